package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
)

// reverse makes a httputil.ReverseProxy that sends over one transport.
func (p *Proxy) reverse(t http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		ModifyResponse: p.modifyResponse,
		ErrorHandler:   p.fail,
		Transport:      t,
		BufferPool:     &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
		ErrorLog:       slog.NewLogLogger(p.config.Log.Handler(), slog.LevelDebug), // clients that leave in mid-answer
	}
}

// rewrite makes the backend's request: the target as it was judged, the facts that were verified, and none of the
// credentials that the backend is not to have.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	x := exchangeOf(r.In.Context())
	if x == nil { // cannot be; a request without a judgement goes nowhere
		r.Out.URL = &url.URL{Scheme: "refused"}
		return
	}
	c := &p.config
	// Opaque is sent as it is. A URL's Path would be encoded anew.
	*r.Out.URL = url.URL{
		Scheme: c.Upstream.Scheme, Host: c.Upstream.Host, Opaque: x.target.Path, RawQuery: x.target.RawQuery,
		ForceQuery: x.target.HasQuery && x.target.RawQuery == "",
	}
	r.Out.Host = x.target.host
	r.Out.Trailer = nil // they may arrive after the header was judged
	h := r.Out.Header
	if x.trusted { // ReverseProxy removed them from Out
		copyHeader(h, r.In.Header, "X-Forwarded-For")
	}
	r.SetXForwarded()
	if x.trusted {
		copyHeader(h, r.In.Header, "X-Forwarded-Host")
		copyHeader(h, r.In.Header, "X-Forwarded-Proto")
		copyHeader(h, r.In.Header, "Forwarded")
	}
	x.set(h, "X-Request-Id", x.verdict.RequestID)
	c.Credentials.Withhold(h, x.verdict.Preflight)
	c.Identity.Tell(&x.verdict, func(name, value string) { x.set(h, name, value) })
	sendOnce(r.Out)
}

// sendOnce keeps http.Transport from sending a request anew when a kept connection dies, which it does for a request without
// a body that is an OPTIONS or carries an idempotency key. GET and HEAD may be sent again.
//
// A body that cannot be read twice would do for all of them, but Transport sends a POST with one chunked, even if it is
// empty, and not every backend takes that. It looks for the keys under their canonical names only: the backend, to which
// the case of a name means nothing, still gets them.
func sendOnce(r *http.Request) {
	if r.Body != nil {
		return
	}
	if r.Method == http.MethodOptions {
		r.Body = emptyBody{}
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := r.Header[name]; ok {
			delete(r.Header, name)
			r.Header[strings.ToLower(name)] = values
		}
	}
}

func copyHeader(to, from http.Header, name string) {
	if values := from[name]; len(values) > 0 {
		to[name] = values
	}
}

// set is h.Set for a name in net/http's form, with room for the value that x already has.
func (x *exchange) set(h http.Header, name, value string) {
	n := x.sets
	x.sets++
	x.values[n] = value
	h[name] = x.values[n : n+1 : n+1]
}

var errUnasked = errors.New("proxy: the backend switched protocols without being asked")

// modifyResponse settles the token once the response head is here, before any of it is passed on: a client that retries at
// once finds the token in its final state.
func (p *Proxy) modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	x.verdict.Settle(gate.Outcome{Status: res.StatusCode})
	if res.StatusCode == http.StatusSwitchingProtocols {
		if !x.socket {
			_ = res.Body.Close() // the tunnel that was not asked for
			return errUnasked
		}
		return nil
	}
	challenge.Inform(res.Header, &x.verdict)
	x.answer.bound(res, x.ends)
	return nil
}

// fail answers for a backend that did not.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	v := &x.verdict
	unsent := isDialError(err)
	if v.HoldsReservation() {
		unsent = !x.gotConn.Load()
	}
	v.TokenState = v.Settle(gate.Outcome{Unsent: unsent})

	kind := "unknown_outcome"
	v.Reason = reason.UpstreamUnknownOutcome
	switch fault(x.body.fault.Load()) {
	case faultTooLarge:
		kind, v.Reason = "client_gone", reason.BodyTooLarge
	case faultClient:
		kind, v.Reason = "client_gone", reason.BodyUnreadable
	case noFault:
		switch {
		case errors.Is(r.Context().Err(), context.Canceled):
			kind = "client_gone"
		case unsent:
			kind, v.Reason = "unreachable", reason.UpstreamUnreachable
		}
	}
	p.config.Failed(kind)
	if kind != "client_gone" {
		p.config.Log.Warn("the backend did not answer", "kind", kind, "decision_id", v.DecisionID, "route", routeOf(v), "error", short(err))
	}
	p.config.Challenge.WriteUpstream(w, r, v, isTimeout(err))
}

func routeOf(v *gate.Verdict) string {
	if v.Route == nil {
		return ""
	}
	return v.Route.Pattern
}

// short bounds an error's text, which may quote what a broken backend sent.
func short(err error) string {
	s := err.Error()
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// buffers are what ReverseProxy copies bodies with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	p, _ := b.pool.Get().(*[]byte)
	return *p
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
