package extauthz

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/reason"
)

// The paths of the HTTP door.
const (
	// ForwardAuthPath answers GET requests about another request, which header fields describe; ?mode= says whose they are.
	ForwardAuthPath = "/forward-auth"
	// EnvoyPath is put before the target of the request that Envoy asks about (http_service.path_prefix).
	EnvoyPath = "/envoy"
)

// mode is how one kind of proxy asks, and what it can do with an answer.
type mode struct {
	// Fields in which the client's request is described.
	method, target, host string
	// status maps the status of a refusal to one that this proxy passes on, or at least refuses for.
	status func(int) int
	// removes: an answer can name fields to remove.
	removes bool
}

func asItIs(status int) int { return status }

// orForbidden: nginx makes a 500 without any header of everything but these.
func orForbidden(status int) int {
	if status == http.StatusUnauthorized {
		return status
	}
	return http.StatusForbidden
}

// neverServerError: Envoy applies failure_mode_allow to a 5xx, which would let the request pass.
func neverServerError(status int) int {
	if status >= http.StatusInternalServerError {
		return http.StatusForbidden
	}
	return status
}

var (
	nginx     = mode{method: "X-Original-Method", target: "X-Original-Uri", host: "X-Original-Host", status: orForbidden}
	forwarded = mode{method: "X-Forwarded-Method", target: "X-Forwarded-Uri", host: "X-Forwarded-Host", status: asItIs}
	envoy     = mode{status: neverServerError, removes: true}

	modes = map[string]mode{"nginx": nginx, "traefik": forwarded, "caddy": forwarded, "haproxy": forwarded}
)

// HTTP answers forward auth and Envoy's HTTP service. It believes nobody but trusted peers, since whoever asks it says what the
// client sent.
type HTTP struct {
	*judge
	peers   door.Peers
	strange unseen // only its bounded list of peers
}

// NewHTTP checks the configuration and returns the door. Only peers may ask, and whoever reaches it over a Unix socket.
func NewHTTP(c Config, peers door.Peers) (*HTTP, error) {
	j, err := newJudge(c)
	if err != nil {
		return nil, err
	}
	return &HTTP{judge: j, peers: peers}, nil
}

// ServeHTTP answers one question.
func (s *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := new(asked)
	m, why := s.read(a, r)
	s.decide(a, why, func(q *gate.Request, v *gate.Verdict) { s.Gate.Decide(r.Context(), q, v) })
	s.unseen.note(a, func() string { return peerHost(r) })
	if !a.verdict.Allow {
		answer := s.refuse(a)
		maps.Copy(w.Header(), answer.header)
		w.Header().Del("Content-Length")
		// The answer's own status is no measure: a gRPC caller's refusal is HTTP 200, which whoever asked would take for a yes.
		w.WriteHeader(m.status(challenge.Status(s.profileOf(a), a.verdict.Reason)))
		_, _ = w.Write(answer.body) // whoever asked is gone
		return
	}
	s.allow(w, a, m)
}

// allow says yes, with what the proxy is to change in the request.
func (s *HTTP) allow(w http.ResponseWriter, a *asked, m mode) {
	remove, set := s.changes(a, true)
	h := w.Header()
	for _, f := range set {
		h.Set(f.name, f.value)
	}
	if m.removes {
		h.Set("X-Envoy-Auth-Headers-To-Remove", strings.Join(remove, ","))
	} else {
		h.Del("Cookie") // an answer's is read by nobody
	}
	challenge.Inform(h, &a.verdict) // for a proxy that copies fields of this answer into the client's
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// read fills a from a question.
func (s *HTTP) read(a *asked, r *http.Request) (mode, reason.Reason) {
	a.told = r.Header
	target, isEnvoy := strings.CutPrefix(r.RequestURI, EnvoyPath)
	m, known := modes[r.URL.Query().Get("mode")]
	switch {
	case isEnvoy:
		m = envoy
	case !known:
		m = nginx // the narrowest
	}
	if !s.peers.Trust(r.RemoteAddr) && !onSocket(r) {
		s.stranger(peerHost(r))
		return m, reason.InvalidRequest
	}
	if isEnvoy {
		return m, s.readEnvoy(a, r, target)
	}
	if r.URL.Path != ForwardAuthPath || !known {
		s.Log.Debug("a question that no proxy asks", "want", ForwardAuthPath+"?mode=nginx|traefik|caddy|haproxy, or "+EnvoyPath+"/…")
		return m, reason.InvalidRequest
	}
	described := make([]string, 3)
	for i, name := range []string{m.method, m.target, m.host} {
		values := r.Header[name]
		if len(values) == 0 && name == m.host && r.Host != "" {
			values = []string{r.Host}
		}
		if len(values) != 1 || values[0] == "" {
			return m, reason.InvalidRequest
		}
		described[i] = values[0]
	}
	if why := s.receive(a, described[0], described[1], described[2], withoutConnection(r.Header)); why != "" {
		return m, why
	}
	if err := s.Rules.CheckTwins(r.Header); err != nil { // nobody would remove them
		return m, door.FramingReason(err)
	}
	return m, ""
}

// onSocket reports whether a question came over a Unix socket, whose rights say who may ask.
func onSocket(r *http.Request) bool {
	_, ok := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr)
	return ok
}

// readEnvoy reads the request itself, with what Envoy's allowed_headers let through. Its length says nothing of the client's body.
func (s *HTTP) readEnvoy(a *asked, r *http.Request, target string) reason.Reason {
	if why := s.receive(a, r.Method, target, r.Host, withoutConnection(r.Header)); why != "" {
		return why
	}
	switch partial := r.Header[_partialBody]; {
	case len(partial) == 1 && partial[0] == "true":
		a.request.ReadBody = func(int64) ([]byte, error) { return nil, gate.ErrBodyTooLarge }
	case len(partial) == 1 && partial[0] == "false" && r.ContentLength > 0:
		a.request.ReadBody = func(limit int64) ([]byte, error) { return readAtMost(r.Body, limit) }
	}
	return ""
}

// withoutConnection leaves out what concerns the connection between the proxy and us and is nothing of the client's.
func withoutConnection(h http.Header) http.Header {
	h = maps.Clone(h)
	for _, name := range []string{"Connection", "Content-Length", "Transfer-Encoding", "Te", "Keep-Alive"} {
		delete(h, name)
	}
	return h
}

func readAtMost(body io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", gate.ErrBodyUnreadable, err)
	case int64(len(data)) > limit:
		return nil, gate.ErrBodyTooLarge
	}
	return data, nil
}

// stranger says once that somebody asks who may not.
func (s *HTTP) stranger(peer string) {
	s.strange.mu.Lock()
	defer s.strange.mu.Unlock()
	if p := s.strange.of(peer); !p.named {
		p.named = true
		s.Log.Warn("somebody who is no trusted proxy asks for decisions and is refused; trusted_proxies lists who may", "peer", peer)
	}
}

func peerHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Modes are the words of ?mode=, for documentation and tests.
func Modes() []string { return slices.Sorted(maps.Keys(modes)) }
