package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/proxy"
	"github.com/stepward/stepward/token"
)

const environment = "env"

// The policy of these tests: what a route needs stands in its operation.
var files = fstest.MapFS{
	"requirement.rego": {Data: []byte(`package stepward

requirement := object.union({"operation": "read", "session": true, "device": "any"}, object.get(data.stepward.needs, input.route, {}))
`)},
	"data.yaml": {Data: []byte(`
mount: ""
environments: {default: {minimum_api_version: "2026_04_01"}}
operations: {read: {}, spend: {}, socket: {}}
needs:
  "POST /spend": {operation: spend, scopes: ["wallet:export"], token: single_use, release_on: [202]}
  "GET /spend": {operation: spend, scopes: ["wallet:export"], token: single_use}
  "GET /spend/socket": {operation: socket, scopes: ["wallet:export"], token: single_use}
  "POST /open": {session: false}
routes:
  "GET /read": {operation: read}
  "POST /read": {operation: read}
  "POST /judged": {operation: read, read_body: 64}
  "GET /files/{name}": {operation: read}
  "POST /open": {operation: read}
  "POST /spend": {operation: spend}
  "GET /spend": {operation: spend}
  "GET /socket": {operation: socket, websocket: true}
  "GET /spend/socket": {operation: socket, websocket: true}
`)},
}

// book is a ledger that writes down what happens to it.
type book struct {
	mu    sync.Mutex
	state map[ledger.Key]string
	log   []string
}

func (b *book) do(op string, f func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, op)
	return f()
}

func (b *book) Reserve(_ context.Context, c ledger.Claim) error {
	return b.do("reserve", func() error {
		if b.state[c.Key] != "" {
			return ledger.ErrConsumed
		}
		b.state[c.Key] = "reserved"
		return nil
	})
}

func (b *book) Commit(_ context.Context, k ledger.Key, _ ledger.Owner) error {
	return b.do("commit", func() error { b.state[k] = "committed"; return nil })
}

func (b *book) Release(_ context.Context, k ledger.Key, _ ledger.Owner) error {
	return b.do("release", func() error { delete(b.state, k); return nil })
}
func (b *book) Stats(context.Context) (ledger.Stats, error) { return ledger.Stats{}, nil }
func (b *book) Close() error                                { return nil }

func (b *book) history() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.log, " ")
}

type setup struct {
	t       testing.TB
	front   *httptest.Server
	address string // of front
	book    *book
	failed  chan string
	records chan decisionlog.Record
}

type option struct {
	proxy    func(*proxy.Config)
	gate     func(*gate.Config)
	upstream string // instead of a backend
}

var snapshot = sync.OnceValues(func() (*policy.Engine, error) {
	return policy.New(context.Background(), policy.Config{FS: files, EvalTimeout: time.Minute}) // for machines that are busy
})

func verify(purpose string, lifetime time.Duration) gate.VerifyFunc {
	return func(_ context.Context, raw string) (*token.Claims, error) {
		kind, id, _ := strings.Cut(raw, "-")
		if kind != purpose {
			return nil, token.ErrInvalid
		}
		c := &token.Claims{
			Issuer: "iss", Subject: "alice", Environment: environment, ID: id, IssuedAt: time.Now(), Expires: time.Now().Add(lifetime),
			Members: map[string]any{"sub": "alice"}, Scopes: []string{"user:basic"},
		}
		if purpose == "elevated" {
			c.Scopes, c.SingleUse = []string{"wallet:export"}, true
		}
		if strings.HasPrefix(id, "odd") {
			c.Subject = "ali\r\nX-Evil: 1 %é"
		}
		return c, nil
	}
}

func newSetup(t testing.TB, backend http.Handler, o option) *setup {
	t.Helper()
	s := &setup{t: t, book: &book{state: map[ledger.Key]string{}}, failed: make(chan string, 100), records: make(chan decisionlog.Record, 1000)}
	engine, err := snapshot()
	if err != nil {
		t.Fatal(err)
	}
	gc := gate.Config{
		Policy:   engine.Snapshot,
		Session:  gate.SessionConfig{Verify: verify("session", time.Hour), Header: "Authorization", Cookie: "SESSION"},
		Elevated: gate.TokenConfig{Verify: verify("elevated", 5*time.Minute), Header: "x-elevated"},
		MFA:      gate.MFAConfig{Header: "x-mfa"},
		Client:   gate.ClientConfig{APIVersionHeader: "x-api-version", SDKVersionHeader: "x-sdk-version"},
		Device:   gate.DeviceConfig{RegisteredScope: "user:basic", UnregisteredScope: "device:register"},
		Ledger:   s.book,
		Record: func(r *decisionlog.Record) error {
			select {
			case s.records <- *r:
			default:
			}
			return nil
		},
		Hash:    func(_, v string) string { return "hash" },
		Observe: func(*gate.Verdict, time.Duration) {},
	}
	if o.gate != nil {
		o.gate(&gc)
	}
	g, err := gate.New(gc)
	if err != nil {
		t.Fatal(err)
	}
	w, err := challenge.New(challenge.Config{TypeBase: "urn:x:", Domain: "d", TokenHeader: "x-elevated"})
	if err != nil {
		t.Fatal(err)
	}
	identity := door.Identity{Subject: "Stepward-Subject", Scopes: "Stepward-Scopes", DecisionID: "Stepward-Decision-Id", Environment: "Stepward-Environment"}
	rules, err := framing.New(framing.Config{
		Tokens: []string{"Authorization", "x-elevated", "x-mfa"}, Sensitive: []string{"x-api-version"},
		Identity: []string{identity.Subject, identity.Scopes, identity.DecisionID, identity.Environment},
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.upstream == "" {
		b := httptest.NewServer(backend)
		t.Cleanup(b.Close)
		o.upstream = b.URL
	}
	upstream, err := url.Parse(o.upstream)
	if err != nil {
		t.Fatal(err)
	}
	pc := proxy.Config{
		Gate: g, Challenge: w, Rules: rules, Upstream: upstream, Identity: identity,
		Credentials: door.Credentials{
			SessionHeader: "Authorization", SessionCookie: "SESSION", ElevatedHeader: "x-elevated", MFAHeader: "x-mfa", ForwardSession: true,
		},
		Failed: func(kind string) { s.failed <- kind },
	}
	if o.proxy != nil {
		o.proxy(&pc)
	}
	p, err := proxy.New(pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.CloseIdleConnections)
	s.front = httptest.NewUnstartedServer(p)
	s.front.Config.DisableGeneralOptionsHandler = true // as internal/listen does
	s.front.Start()
	t.Cleanup(s.front.Close)
	s.address = s.front.Listener.Addr().String()
	return s
}

// raw sends bytes and returns what comes back until the connection ends or one second passes without a byte.
func (s *setup) raw(request string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	var answer bytes.Buffer
	for buf := make([]byte, 4096); ; {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		answer.Write(buf[:n])
		if err != nil {
			return answer.String()
		}
	}
}

// do sends one request with a session.
func (s *setup) do(method, path string, body io.Reader, header ...string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequest(method, s.front.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer session-1")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := s.front.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

type problem struct {
	Code       string
	TokenState string `json:"token_state"`
	Challenge  struct {
		RetrySameToken *bool `json:"retry_same_token"`
	}
}

func (s *setup) refused(res *http.Response, status int, code string) problem {
	s.t.Helper()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || res.StatusCode != status || p.Code != code {
		s.t.Fatalf("got %d %s (%v), want %d %s", res.StatusCode, body, err, status, code)
	}
	return p
}

// echo writes down the request line, host, header and body that reached the backend.
type echo struct {
	mu   sync.Mutex
	seen []string
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
	_ = r.Header.Write(&b)
	fmt.Fprintf(&b, "\n%s", body)
	e.mu.Lock()
	e.seen = append(e.seen, b.String())
	e.mu.Unlock()
	_, _ = io.WriteString(w, "ok")
}

func (e *echo) last(t testing.TB) string {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.seen) == 0 {
		t.Fatal("nothing reached the backend")
	}
	return e.seen[len(e.seen)-1]
}

func (e *echo) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

// What was judged is byte for byte what is sent.
func TestTargetIsSentAsJudged(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	for _, target := range []string{
		"/files/a", "/files/a%20b", "/files/%C3%A9", "/files/a:b@c", "/files/a?x=1&x=2", "/files/a?", "/files/a?x=%2F..%2F", "/files/a?q=a/b?c",
		"/files/!$&'()*+,=",
	} {
		before := e.count()
		answer := s.raw("GET " + target + " HTTP/1.1\r\nHost: Wallet.Example\r\nAuthorization: Bearer session-1\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%s: %.200s", target, answer)
			continue
		}
		if got := e.last(t); e.count() != before+1 || !strings.HasPrefix(got, "GET "+target+"\nHost: wallet.example\n") {
			t.Errorf("%s: the backend got %q", target, got)
		}
	}
}

// Everything that could be read in two ways is refused before anything reaches the backend.
func TestAmbiguousRequestsNeverLeave(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	const good = "GET /read HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer session-1\r\n"
	for name, c := range map[string]struct{ request, code string }{
		"dot segment":            {"GET /read/../spend HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"encoded slash":          {"GET /files/a%2fb HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"encoded dot":            {"GET /files/%2e%2e HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"double slash":           {"GET //read HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"backslash":              {"GET /files/a\\b HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"pipe":                   {"GET /files/a|b HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"semicolon in query":     {"GET /read?a=1;b=2 HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"bad escape in query":    {"GET /read?a=%zz HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"absolute form":          {"GET http://h/read HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"asterisk":               {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"connect":                {"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", "ambiguous_request"},
		"lower-case method":      {"get /read HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"made-up method":         {"SPEND /read HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"folded path":            {"GET /READ HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"trailing slash":         {"GET /read/ HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_request"},
		"host with empty label":  {"GET /read HTTP/1.1\r\nHost: h.\r\n\r\n", "ambiguous_request"},
		"no host":                {"GET /read HTTP/1.0\r\n\r\n", "ambiguous_request"},
		"connection names":       {good + "Connection: authorization\r\n\r\n", "ambiguous_request"},
		"two authorizations":     {good + "Authorization: Bearer session-2\r\n\r\n", "invalid_request"},
		"two elevated tokens":    {good + "X-Elevated: elevated-1\r\nx-elevated: elevated-2\r\n\r\n", "invalid_request"},
		"token in query":         {"GET /read?access_token=x HTTP/1.1\r\nHost: h\r\n\r\n", "invalid_request"},
		"unmatched":              {"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", "route_unmatched"},
		"other method":           {"DELETE /read HTTP/1.1\r\nHost: h\r\n\r\n", "method_not_allowed"},
		"websocket elsewhere":    {good + "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", "upgrade_not_allowed"},
		"no session":             {"GET /read HTTP/1.1\r\nHost: h\r\n\r\n", "session_required"},
		"head of a spending get": {"HEAD /spend HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer session-1\r\n\r\n", ""},
	} {
		answer := s.raw(c.request)
		if !strings.Contains(answer, "Step-Up-Challenge: code="+c.code) || strings.HasPrefix(answer, "HTTP/1.1 2") {
			t.Errorf("%s: %.300s", name, answer)
		}
	}
	if e.count() != 0 {
		t.Errorf("%d requests reached the backend: %q", e.count(), e.seen)
	}
}

// After a framing fault the connection is closed: what follows on it must not be read as a request.
func TestNothingIsReadAfterAFramingFault(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	answer := s.raw("GET //x HTTP/1.1\r\nHost: h\r\n\r\nGET /read HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer session-1\r\n\r\n")
	if strings.Count(answer, "HTTP/1.1 ") != 1 || e.count() != 0 {
		t.Errorf("%d answers, %d requests reached the backend", strings.Count(answer, "HTTP/1.1 "), e.count())
	}
}

func TestWhatTheBackendSees(t *testing.T) {
	spoofed := []string{
		"Stepward-Subject", "mallory", "stepward_subject", "mallory", "STEPWARD_SCOPES", "wallet:export", "Stepward-Decision-Id", "x",
		"X-Forwarded-For", "10.0.0.1", "X-Forwarded-Host", "evil", "X-Real-Ip", "10.0.0.1", "Forwarded", "for=10.0.0.1", "X-Original-Url", "/spend",
		"X-Http-Method-Override", "DELETE", "X-Forwarded-Prefix", "/x", "X-Request-Id", "client-made-this", "X-Elevated", "elevated-1", "X-Mfa", "mfa-1",
		"Upgrade", "h2c", "Connection", "Upgrade", "Cookie", "a=1; SESSION=session-1; b=2", "X-Plain", "kept",
	}
	e := new(echo)
	s := newSetup(t, e, option{})
	if res := s.do("GET", "/read", nil, spoofed...); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	got := e.last(t)
	for _, want := range []string{
		"Stepward-Subject: alice", "Stepward-Decision-Id: ", "Stepward-Environment: env", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http",
		"Authorization: Bearer session-1", "X-Plain: kept", "X-Request-Id: ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
	for _, bad := range []string{"mallory", "wallet:export", "10.0.0.1", "evil", "X-Original", "Override", "Prefix", "client-made-this", "elevated-1", "mfa-1", "h2c", "Upgrade"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q reached the backend:\n%s", bad, got)
		}
	}

	t.Run("forwarding by choice", func(t *testing.T) {
		s := newSetup(t, e, option{proxy: func(c *proxy.Config) {
			c.Credentials.ForwardSession, c.Credentials.ForwardElevated, c.Credentials.ForwardMFA = false, true, true
		}})
		if res := s.do("GET", "/read", nil, spoofed...); res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		got := e.last(t)
		if strings.Contains(got, "session-1") || !strings.Contains(got, "Cookie: a=1; b=2") || !strings.Contains(got, "X-Elevated: elevated-1") ||
			!strings.Contains(got, "X-Mfa: mfa-1") {
			t.Errorf("the backend got\n%s", got)
		}
	})
	t.Run("trusted proxy", func(t *testing.T) {
		s := newSetup(t, e, option{proxy: func(c *proxy.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }})
		if res := s.do("GET", "/read", nil, spoofed...); res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		got := e.last(t)
		if !strings.Contains(got, "X-Forwarded-For: 10.0.0.1, 127.0.0.1") || !strings.Contains(got, "X-Forwarded-Host: evil") ||
			!strings.Contains(got, "X-Request-Id: client-made-this") || strings.Contains(got, "mallory") || strings.Contains(got, "Override") {
			t.Errorf("the backend got\n%s", got)
		}
	})
	t.Run("a subject that is no field value", func(t *testing.T) {
		res := s.do("GET", "/read", nil, "Authorization", "Bearer session-odd")
		if got := e.last(t); res.StatusCode != http.StatusOK || !strings.Contains(got, "Stepward-Subject: ali%0D%0AX-Evil:%201%20%25%C3%A9\r\n") {
			t.Errorf("%s\n%s", res.Status, got)
		}
	})
}

func TestPreflightsPassWithoutCredentials(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	res := s.do("OPTIONS", "/spend", nil, "Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Cookie", "SESSION=session-1", "X-Elevated", "elevated-1")
	if res.StatusCode != http.StatusOK || s.book.history() != "" {
		t.Fatalf("%s, ledger %q", res.Status, s.book.history())
	}
	if got := e.last(t); strings.Contains(got, "session-1") || strings.Contains(got, "elevated-1") || !strings.Contains(got, "Origin: https://app.example") {
		t.Errorf("the backend got\n%s", got)
	}
}

func TestSingleUseTokenIsSpentOnce(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	s.refused(s.do("POST", "/spend", nil), 403, "elevated_access_token_required")
	if res := s.do("POST", "/spend", strings.NewReader(`{}`), "X-Elevated", "elevated-1"); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	if got := e.last(t); !strings.Contains(got, "Stepward-Scopes: wallet:export") {
		t.Errorf("the backend got\n%s", got)
	}
	p := s.refused(s.do("POST", "/spend", nil, "X-Elevated", "elevated-1"), 403, "elevated_access_token_consumed")
	if e.count() != 1 || p.TokenState != "consumed" || s.book.history() != "reserve commit reserve" {
		t.Errorf("%d requests, state %s, ledger %q", e.count(), p.TokenState, s.book.history())
	}
}

func TestConcurrentUsesOfOneToken(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	var passed atomic.Int32
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			r, _ := http.NewRequest(http.MethodPost, s.front.URL+"/spend", nil)
			r.Header.Set("Authorization", "Bearer session-1")
			r.Header.Set("X-Elevated", "elevated-race")
			res, err := s.front.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if res.StatusCode == http.StatusOK {
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	if passed.Load() != 1 || e.count() != 1 {
		t.Errorf("%d passed, the backend counts %d", passed.Load(), e.count())
	}
}

// What becomes of the token when the backend fails, by how it fails (standards.md section 4.3).
func TestSettlement(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := "http://" + closed.Addr().String()
	_ = closed.Close()
	hangUp := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = c.Close()
		}
	})
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	for _, c := range []struct {
		name     string
		backend  http.Handler
		option   option
		status   int
		code     string
		state    string
		ledger   string
		failedAs string
	}{
		{name: "connection refused", option: option{upstream: refusing}, status: 502, code: "upstream_unreachable", state: "unused",
			ledger: "reserve release", failedAs: "unreachable"},
		{name: "TLS that fails", option: option{upstream: "https://" + plainListener(t)}, status: 502, code: "upstream_unreachable", state: "unused",
			ledger: "reserve release", failedAs: "unreachable"},
		{name: "backend hangs up", backend: hangUp, status: 502, code: "upstream_unknown_outcome", state: "consumed",
			ledger: "reserve commit", failedAs: "unknown_outcome"},
		{name: "backend is silent", backend: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // net/http notices that the client has left only behind the body
			<-r.Context().Done()
		}),
			option: option{proxy: func(c *proxy.Config) { c.ResponseHeaderTimeout = 50 * time.Millisecond }},
			status: 504, code: "upstream_unknown_outcome", state: "consumed", ledger: "reserve commit", failedAs: "unknown_outcome"},
		{name: "500", backend: status(500), status: 500, ledger: "reserve commit"},
		{name: "release_on", backend: status(202), status: 202, ledger: "reserve release"},
		{name: "switching unasked", backend: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
				_ = c.Close()
			}
		}), status: 502, code: "upstream_unknown_outcome", state: "consumed", ledger: "reserve commit", failedAs: "unknown_outcome"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSetup(t, c.backend, c.option)
			res := s.do("POST", "/spend", strings.NewReader("x"), "X-Elevated", "elevated-1")
			if c.code == "" {
				if res.StatusCode != c.status {
					t.Errorf("status %d, want %d", res.StatusCode, c.status)
				}
			} else if p := s.refused(res, c.status, c.code); p.TokenState != c.state || *p.Challenge.RetrySameToken != (c.state == "unused") {
				t.Errorf("%+v", p)
			}
			if got := s.book.history(); got != c.ledger {
				t.Errorf("ledger %q, want %q", got, c.ledger)
			}
			if c.failedAs != "" {
				if got := <-s.failed; got != c.failedAs {
					t.Errorf("counted as %s, want %s", got, c.failedAs)
				}
			}
		})
	}
}

// plainListener accepts connections and speaks no TLS.
func plainListener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// dyingBackend answers the first request of each connection and closes it, unanswered, when the second has been read:
// the moment at which http.Transport likes to send a request again.
func dyingBackend(t *testing.T) (address string, requests *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	requests = new(atomic.Int32)
	serve := func(c net.Conn) {
		defer c.Close()
		br := bufio.NewReader(c)
		for first := true; ; first = false {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			requests.Add(1)
			if !first {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String(), requests
}

// http.Transport re-sends what it takes for idempotent on a connection that dies (standards.md fact 4). A body-less POST
// with an idempotency key is such a request, and Dynamic's signing client sends one.
func TestDyingConnectionsNeverExecuteTwice(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		header             []string
	}{
		{"reserved POST", "POST", "/spend", []string{"X-Idempotency-Key", "k", "X-Elevated", "elevated-1"}},
		{"reserved GET", "GET", "/spend", []string{"X-Elevated", "elevated-1"}},
		{"POST with an idempotency key", "POST", "/read", []string{"X-Idempotency-Key", "k"}},
		{"POST with the draft's key", "POST", "/read", []string{"Idempotency-Key", "k"}},
		{"preflight", "OPTIONS", "/read", []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, requests := dyingBackend(t)
			s := newSetup(t, nil, option{upstream: "http://" + address})
			res := s.do("GET", "/read", nil) // leaves a connection in the pool
			_, _ = io.Copy(io.Discard, res.Body)
			before := requests.Load()
			res = s.do(c.method, c.path, nil, c.header...)
			if n := requests.Load() - before; n != 1 {
				t.Errorf("the backend read the request %d times; the client got %s", n, res.Status)
			}
		})
	}
}

// An empty POST is sent with Content-Length: 0, not chunked, and with its idempotency key.
func TestRequestsWithoutABodyKeepTheirFraming(t *testing.T) {
	seen := make(chan *http.Request, 1)
	s := newSetup(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r }), option{})
	for _, c := range []struct {
		path   string
		header []string
	}{
		{"/read", nil},
		{"/read", []string{"X-Idempotency-Key", "k", "Idempotency-Key", "k"}},
		{"/spend", []string{"X-Idempotency-Key", "k", "X-Elevated", "elevated-1"}},
	} {
		_ = s.do("POST", c.path, nil, c.header...)
		r := <-seen
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("%s %v: got Content-Length %d, Transfer-Encoding %v", c.path, c.header, r.ContentLength, r.TransferEncoding)
		}
		for i := 0; i < len(c.header); i += 2 {
			if name := c.header[i]; name != "X-Elevated" && r.Header.Get(name) != "k" {
				t.Errorf("%s: the backend got %q as %s", c.path, r.Header.Get(name), name)
			}
		}
	}
}

func TestClientThatLeavesReachesTheBackend(t *testing.T) {
	reached, left := make(chan struct{}), make(chan struct{})
	s := newSetup(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(left)
	}), option{})
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.front.URL+"/spend", nil)
	r.Header.Set("Authorization", "Bearer session-1")
	r.Header.Set("X-Elevated", "elevated-1")
	go func() {
		if res, err := s.front.Client().Do(r); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-reached
	cancel()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("the backend goes on working for nobody")
	}
	if got := <-s.failed; got != "client_gone" || s.book.history() != "reserve commit" {
		t.Errorf("counted as %s, ledger %q: a request that was sent has spent its token", got, s.book.history())
	}
}

func TestBodyLimits(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{proxy: func(c *proxy.Config) { c.MaxBody = 100 }})
	chunked := func(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }
	if res := s.do("POST", "/read", chunked(100)); res.StatusCode != http.StatusOK || !strings.HasSuffix(e.last(t), strings.Repeat("x", 100)) {
		t.Errorf("a body that just fits: %s", res.Status)
	}
	s.refused(s.do("POST", "/read", strings.NewReader(strings.Repeat("x", 101))), 413, "body_too_large")
	before := e.count()
	s.refused(s.do("POST", "/read", chunked(101)), 413, "body_too_large")
	e.mu.Lock() // the backend may still be writing down a request that was cut
	defer e.mu.Unlock()
	for _, seen := range e.seen[before:] {
		if strings.Contains(seen, strings.Repeat("x", 101)) {
			t.Error("more than the limit reached the backend")
		}
	}
}

// A client that feeds a body byte by byte holds a connection before anybody knows who it is.
func TestJudgedBodiesMustArriveInTime(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{proxy: func(c *proxy.Config) { c.JudgedBody = 100 * time.Millisecond }})
	in, out := io.Pipe()
	ended := make(chan struct{})
	go func() {
		for {
			if _, err := io.WriteString(out, " "); err != nil {
				return
			}
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	s.refused(s.do("POST", "/judged", in, "Content-Type", "application/json"), 400, "body_unreadable")
	close(ended)
	_ = in.Close()
	if e.count() != 0 {
		t.Error("a body that could not be judged reached the backend")
	}
}

func TestJudgedBodiesAreReplayed(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	json := []string{"Content-Type", "application/json"}
	for name, body := range map[string]io.Reader{
		"with length": strings.NewReader(`{"a": 1}`), "chunked": io.MultiReader(strings.NewReader(`{"a":`), strings.NewReader(` 1}`)),
	} {
		if res := s.do("POST", "/judged", body, json...); res.StatusCode != http.StatusOK || !strings.HasSuffix(e.last(t), "\n\n{\"a\": 1}") && !strings.HasSuffix(e.last(t), "{\"a\": 1}") {
			t.Errorf("%s: %s, the backend got %q", name, res.Status, e.last(t))
		}
	}
	before := e.count()
	s.refused(s.do("POST", "/judged", strings.NewReader(`{"a": `), json...), 400, "body_unreadable")
	s.refused(s.do("POST", "/judged", strings.NewReader(`{"a": 1, "a": 2}`), json...), 400, "body_unreadable")
	s.refused(s.do("POST", "/judged", strings.NewReader(`{"a": "`+strings.Repeat("x", 100)+`"}`), json...), 413, "body_too_large")
	s.refused(s.do("POST", "/judged", io.MultiReader(strings.NewReader(`{"a": "`+strings.Repeat("x", 100)+`"}`)), json...), 413, "body_too_large")
	if e.count() != before {
		t.Error("a body that could not be judged reached the backend")
	}
}

// What arrives behind a body was never judged.
func TestTrailersDoNotReachTheBackend(t *testing.T) {
	seen := make(chan http.Header, 1)
	s := newSetup(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
	}), option{})
	for _, path := range []string{"/judged", "/read"} {
		answer := s.raw("POST " + path + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer session-1\r\nContent-Type: application/json\r\n" +
			"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\nStepward-Subject: victim\r\nAuthorization: Bearer x\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Fatalf("%s: %.100s", path, answer)
		}
		if trailer := <-seen; len(trailer) > 0 {
			t.Errorf("%s: the backend got the trailers %v", path, trailer)
		}
	}
}

// A backend that does not read the body of a GET would take it for the next request on its connection.
func TestBodiesWhereNoneBelongs(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	hidden := "POST /spend HTTP/1.1\r\nHost: x\r\nStepward-Subject: victim\r\nContent-Length: 0\r\n\r\n"
	for _, head := range []string{
		"GET /read HTTP/1.1\r\n", "HEAD /read HTTP/1.1\r\n",
		"OPTIONS /read HTTP/1.1\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n",
	} {
		for _, framed := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden), "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
			answer := s.raw(head + "Host: a\r\nAuthorization: Bearer session-1\r\n" + framed)
			if !strings.HasPrefix(answer, "HTTP/1.1 400") || strings.Count(answer, "HTTP/1.1") != 1 {
				t.Errorf("%q: got %.300q", head, answer)
			}
		}
	}
	if n := e.count(); n != 0 {
		t.Errorf("%d requests reached the backend", n)
	}
}

func TestServerSentEventsAreFlushedAtOnce(t *testing.T) {
	next := make(chan struct{})
	s := newSetup(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}), option{})
	res := s.do("GET", "/read", nil)
	br := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := br.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		_, _ = br.ReadString('\n')
		next <- struct{}{} // the backend sends the next event only after this one arrived
	}
}

// A request body reaches the backend while it is still being sent.
func TestRequestsStream(t *testing.T) {
	s := newSetup(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		buf := make([]byte, 4)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	}), option{})
	in, out := io.Pipe()
	r, _ := http.NewRequest(http.MethodPost, s.front.URL+"/read", in)
	r.Header.Set("Authorization", "Bearer session-1")
	go func() { _, _ = io.WriteString(out, "ping") }()
	res, err := s.front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, 4)
	if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "ping" {
		t.Errorf("%q %v", got, err)
	}
	_ = out.Close()
}

// A chunked body that nobody read does not cost the client its connection.
func TestAnUnreadStreamKeepsItsConnection(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	s := newSetup(t, new(echo), option{proxy: func(c *proxy.Config) { c.Upstream.Host = down.Addr().String() }})
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	for range 3 {
		_, _ = io.WriteString(c, "POST /read HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer session-1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusBadGateway {
			t.Fatalf("got %v, %v", res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
}

func TestStreamsEnd(t *testing.T) {
	s := newSetup(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}), option{proxy: func(c *proxy.Config) { c.Stream = 200 * time.Millisecond }})
	res := s.do("GET", "/read", nil)
	ended := make(chan error, 1)
	go func() { _, err := io.ReadAll(res.Body); ended <- err }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the stream outlives its limit")
	}
}

func socketServer() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, data); err != nil {
				return
			}
		}
	})
}

func (s *setup) dialSocket(path string, header ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{"Authorization": {"Bearer session-1"}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return websocket.Dial(ctx, "ws://"+s.address+path, &websocket.DialOptions{HTTPHeader: h})
}

func TestWebSocketLivesAsLongAsTheSession(t *testing.T) {
	s := newSetup(t, socketServer(), option{gate: func(c *gate.Config) { c.Session.Verify = verify("session", 500*time.Millisecond) }})
	c, _, err := s.dialSocket("/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := c.Read(ctx); err != nil || string(data) != "hello" {
		t.Fatalf("%q %v", data, err)
	}
	if _, _, err := c.Read(ctx); err == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("the WebSocket outlives its session: %v", err)
	}
}

func TestWebSocketSpendsLikeAnyOther(t *testing.T) {
	s := newSetup(t, socketServer(), option{})
	if _, res, err := s.dialSocket("/spend/socket"); err == nil || res == nil || res.StatusCode != http.StatusForbidden {
		t.Fatalf("%v %v", res, err)
	}
	c, _, err := s.dialSocket("/spend/socket", "X-Elevated", "elevated-1")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.CloseNow()
	if _, res, err := s.dialSocket("/spend/socket", "X-Elevated", "elevated-1"); err == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("a second WebSocket with the same token: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := proxy.New(proxy.Config{}); err == nil {
		t.Error("an empty configuration makes a proxy")
	}
}

func TestRefusalTouchesNoBackend(t *testing.T) {
	var connections atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = c.Close()
		}
	}()
	s := newSetup(t, nil, option{upstream: "http://" + l.Addr().String()})
	s.refused(s.do("POST", "/spend", nil), 403, "elevated_access_token_required")
	s.refused(s.do("GET", "/read", nil, "Authorization", "Bearer nothing"), 401, "session_invalid")
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
	var outcomes []string
	for range 2 {
		outcomes = append(outcomes, (<-s.records).Reason)
	}
	if !slices.Equal(outcomes, []string{"elevated_access_token_required", "session_invalid"}) {
		t.Errorf("recorded %v", outcomes)
	}
}
