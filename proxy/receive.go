package proxy

import (
	"net/http"
	"strings"
	"time"

	"github.com/stepward/stepward/internal/canon"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/reason"
)

// target is the canonical request target and host: what is judged and what is sent.
type target struct {
	canon.Target
	host string
}

// receive reads the request strictly into x, and removes from r what must not reach the backend. It returns "" or why the
// request cannot be judged.
func (p *Proxy) receive(r *http.Request, x *exchange) reason.Reason {
	x.trusted = p.config.TrustedProxies.Trust(r.RemoteAddr)
	x.request.RequestID = door.RequestID(r.Header, x.trusted)
	x.request.Method = door.SafeMethod(r.Method)
	if err := canon.Method(r.Method); err != nil {
		return reason.AmbiguousRequest
	}
	var err error
	if x.target.Target, err = canon.ParseTarget(r.RequestURI); err != nil {
		return reason.AmbiguousRequest
	}
	if x.target.host, err = canon.Host(r.Host); err != nil {
		return reason.AmbiguousRequest
	}
	if err := p.config.Rules.Check(r.Header, r.Trailer); err != nil {
		return door.FramingReason(err)
	}
	if err := p.config.Rules.CheckQuery(x.target.RawQuery); err != nil {
		return door.FramingReason(err)
	}
	// A body that no method of these has a use for is not drained by some backends, which then read it as the next request.
	if r.ContentLength != 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) {
		return reason.AmbiguousRequest
	}
	if limit := p.config.MaxBody; limit > 0 && r.ContentLength > limit {
		return reason.BodyTooLarge
	}
	x.socket = asksForWebSocket(r)
	if !x.socket {
		r.Header.Del("Upgrade") // any other protocol would be a tunnel past the gate
	}
	p.config.Rules.Strip(r.Header, x.trusted)

	q := &x.request
	q.Path, q.RawQuery, q.Host, q.Header, q.WebSocket = x.target.Path, x.target.RawQuery, x.target.host, r.Header, x.socket
	q.ReadBody = noBody
	if r.Body != nil && r.Body != http.NoBody {
		x.body = requestBody{rc: r.Body, left: p.config.MaxBody, limited: p.config.MaxBody > 0, ends: x.ends}
		r.Body = &x.body
		q.ReadBody = func(limit int64) ([]byte, error) {
			x.body.ends = time.Now().Add(p.config.JudgedBody)
			defer func() { x.body.ends = x.ends }()
			return readPrefix(r, limit)
		}
	}
	return ""
}

func noBody(int64) ([]byte, error) { return nil, nil }

// asksForWebSocket reports whether the client asks for exactly a WebSocket (RFC 6455 section 4.1).
func asksForWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	if len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket") || r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return false
	}
	for _, value := range r.Header["Connection"] {
		for option := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "upgrade") {
				return true
			}
		}
	}
	return false
}
