// Package proxy is the reverse-proxy door: it hands each request to the gate, forwards what may pass, answers what may not
// with a challenge, and tells the gate what became of a spent token.
//
// What was judged is byte for byte what is sent, a request that holds a reservation is sent at most once, and the backend
// sees only freshly framed requests with facts that Stepward verified.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/framing"
)

// Config says what stands before and behind the door. Fields without a default are required.
type Config struct {
	Gate      *gate.Gate
	Challenge *challenge.Writer
	Rules     *framing.Rules

	// Upstream is the backend's origin: scheme and host, nothing else.
	Upstream              *url.URL
	UpstreamTLS           *tls.Config   // for an https backend; nil means the system's roots
	DialTimeout           time.Duration // connecting, with TLS: default 5 s
	ResponseHeaderTimeout time.Duration // default 1 min

	// Credentials are the client's tokens, and which of them the backend gets.
	Credentials door.Credentials
	// Identity names the headers that tell the backend verified facts; "" tells none.
	Identity door.Identity
	// TrustedProxies are the peers whose X-Forwarded-* and X-Request-Id are believed.
	TrustedProxies door.Peers

	MaxBody    int64         // of a request, in bytes; 0 sets no limit
	JudgedBody time.Duration // for all of a body that the policy reads, before anybody is authenticated: default 30 s
	Stream     time.Duration // of one exchange, default 1 h

	// Failed is called for each request that the backend did not answer: unreachable, unknown_outcome or client_gone.
	Failed func(kind string)
	Log    *slog.Logger
}

// Proxy is the door. It is safe for concurrent use.
type Proxy struct {
	config  Config
	pooled  *httputil.ReverseProxy // keeps connections to the backend
	once    *httputil.ReverseProxy // a fresh connection for each request: nothing to re-send on
	closers []func()
}

// New checks the configuration and returns the door.
func New(c Config) (*Proxy, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	p := &Proxy{config: c}
	pooled, once := transports(&c)
	p.pooled, p.once = p.reverse(pooled), p.reverse(once)
	p.closers = []func(){pooled.CloseIdleConnections, once.CloseIdleConnections}
	return p, nil
}

func (c *Config) prepare() error {
	switch {
	case c.Gate == nil, c.Challenge == nil, c.Rules == nil:
		return errors.New("proxy: gate, challenge or rules are missing")
	case c.Upstream == nil || c.Upstream.Host == "" || c.Upstream.Scheme != "http" && c.Upstream.Scheme != "https":
		return errors.New("proxy: upstream: want an origin such as http://127.0.0.1:9000")
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 5 * time.Second
	}
	if c.ResponseHeaderTimeout == 0 {
		c.ResponseHeaderTimeout = time.Minute
	}
	if c.JudgedBody == 0 {
		c.JudgedBody = 30 * time.Second
	}
	if c.Stream == 0 {
		c.Stream = time.Hour
	}
	if c.Failed == nil {
		c.Failed = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Credentials, c.Identity = c.Credentials.Canonical(), c.Identity.Canonical()
	return nil
}

// CloseIdleConnections ends the connections to the backend that no request uses.
func (p *Proxy) CloseIdleConnections() {
	for _, closeIdle := range p.closers {
		closeIdle()
	}
}

// exchange is one request on its way, and the context in which it goes.
type exchange struct {
	context.Context //nolint:containedctx // it is one: ReverseProxy's hooks find the exchange by exchangeKey

	request gate.Request
	verdict gate.Verdict
	target  target
	trusted bool // the peer is a trusted proxy
	socket  bool // the client asks for a WebSocket
	ends    time.Time
	body    requestBody
	answer  responseBody
	gotConn atomic.Bool

	values [5]string // of headers that we set: a request id and four facts
	sets   int       // how many there are
}

type exchangeKey struct{}

// Value is context.Context's.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// ServeHTTP judges one request and forwards or answers it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ends: time.Now().Add(p.config.Stream)}
	v := &x.verdict
	if why := p.receive(r, x); why != "" {
		p.config.Gate.Refuse(&x.request, v, why)
		w.Header().Set("Connection", "close") // how the rest of the connection would be read is anybody's guess
		p.config.Challenge.Write(w, r, v)
		return
	}
	p.config.Gate.Decide(r.Context(), &x.request, v)
	if !v.Allow {
		if fault(x.body.fault.Load()) != noFault {
			w.Header().Set("Connection", "close") // net/http would wait for the rest of the body
		}
		p.config.Challenge.Write(w, r, v)
		return
	}
	// Whatever happens from here on, a panic of ReverseProxy included, the reservation is settled.
	defer v.Settle(gate.Outcome{})
	p.forward(w, r, x)
}

func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, x *exchange) {
	x.Context = r.Context()
	ctx := context.Context(x)
	if x.socket {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, x.socketEnd())
		defer cancel()
	}
	way := p.pooled
	if x.verdict.HoldsReservation() {
		way = p.once
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { x.gotConn.Store(true) },
		})
	}
	if r.ContentLength != 0 {
		// Over HTTP/1 net/http reads a body to its end before it lets an answer begin. A stream that waits for its answer has
		// none, and what is read there of a body that is still being sent is missing at the backend, which cuts the answer.
		// HTTP/2, which cannot do this, need not.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	defer x.answer.stop()
	way.ServeHTTP(w, r.WithContext(ctx))
	if r.ContentLength != 0 && !x.body.ended.Load() {
		// What is left of the body is for net/http to drain, which it does here: after the handler it would begin to read in the
		// background behind it, and panic (golang/go#68560). The answer must not wait for that.
		_ = http.NewResponseController(w).Flush()
		_ = r.Body.Close()
	}
}

// socketEnd is when a WebSocket is cut: with the session, or with every exchange.
func (x *exchange) socketEnd() time.Time {
	if e := x.verdict.SessionExpires; !e.IsZero() && e.Before(x.ends) {
		return e
	}
	return x.ends
}
