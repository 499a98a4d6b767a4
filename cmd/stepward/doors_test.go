package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/rego"
)

// street is one Stepward with all its doors open, one backend, and other proxies that ask or are asked for.
type street struct {
	*world
	origin *recorder
	fronts []*front
}

// front is one way from a client to the backend.
type front struct {
	name, address string
	program       *testkit.Program // nil where Stepward itself listens
	// status is what a client sees of a refusal's status, where the proxy does not pass it on.
	status func(int) int
	// bodies: the door can show the policy a request's body.
	bodies bool
	// own: refusals that the proxy makes by itself before it asks, by name of the row.
	own map[string]bool
}

func asItIs(status int) int { return status }

// recorder writes down what reaches the backend.
type recorder struct {
	next   http.Handler
	server *httptest.Server
	mu     sync.Mutex
	seen   []*http.Request // guarded by mu
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, q.Clone(context.Background()))
	r.mu.Unlock()
	switch {
	case strings.HasSuffix(q.URL.Path, "/socket"):
		c, err := websocket.Accept(w, q, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for kind, data, err := c.Read(q.Context()); err == nil; kind, data, err = c.Read(q.Context()) {
			if c.Write(q.Context(), kind, data) != nil {
				return
			}
		}
	case strings.HasSuffix(q.URL.Path, "/upload"):
		n, err := io.Copy(io.Discard, q.Body)
		fmt.Fprintf(w, `{"bytes":%d,"error":%q}`, n, fmt.Sprint(err))
	default:
		r.next.ServeHTTP(w, q)
	}
}

// since returns what has been seen from the n-th request on.
func (r *recorder) since(n int) []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen[n:])
}

func (r *recorder) count() int { return len(r.since(0)) }

// newStreet starts everything. The configurations are those of examples/, with other addresses.
func newStreet(t *testing.T) *street {
	t.Helper()
	s := &street{world: newWorld(t, func(c *backend.Config) { c.Pause = 300 * time.Millisecond })}
	s.origin = &recorder{next: s.world.origin.Config.Handler}
	s.origin.server = httptest.NewServer(s.origin)
	t.Cleanup(s.origin.server.Close)
	s.start("upstream: "+s.origin.server.URL, "ext_authz: {listen: 127.0.0.1:0}", "forward_auth: {listen: 127.0.0.1:0}",
		"trusted_proxies: [127.0.0.1/32]", "policy: {path: "+s.policyWithSocket()+"}", "challenge: {cors: {allowed_origins: ["+testAudience+"]}}")
	s.fronts = []*front{
		{name: "stepward", address: s.service.Addr().String(), status: asItIs, bodies: true},
		s.envoy("envoy", "envoy.yaml", asItIs),
		s.envoy("envoy-http", "envoy-http.yaml", func(status int) int {
			if status >= 500 {
				return 403
			}
			return status
		}),
		s.nginx(), s.caddy(), s.haproxy(), s.traefik(),
	}
	return s
}

// policyWithSocket is the shipped policy with two routes more.
func (s *street) policyWithSocket() string {
	dir := filepath.Join(s.dir, "policy")
	if err := os.CopyFS(dir, rego.FS); err != nil {
		s.t.Fatal(err)
	}
	data := string(must(fs.ReadFile(rego.FS, "data.yaml")))
	for from, to := range map[string]string{
		"mfa_actions: []": "mfa_actions: [wallet.waas.offline_recovery_trigger]", "sdk_minimums: advise": "sdk_minimums: enforce",
	} {
		if !strings.Contains(data, from) {
			s.t.Fatalf("the shipped data has no %q", from)
		}
		data = strings.Replace(data, from, to, 1)
	}
	data += `
  "GET /sdk/{environmentId}/socket": {operation: user.read, websocket: true}
  "POST /sdk/{environmentId}/upload": {operation: user.read}
`
	s.write("policy/data.yaml", data)
	return dir
}

// example writes a configuration of examples/ with the addresses of this street, and returns its file and where clients go.
func (s *street) example(name string) (file, address string) {
	s.t.Helper()
	text := string(must(os.ReadFile(filepath.Join("../../examples", name))))
	address = freeAddress(s.t)
	port := func(a string) string { return a[strings.LastIndexByte(a, ':')+1:] }
	for at, is := range map[string]string{
		"10000": address, "9000": s.origin.server.Listener.Addr().String(), "9191": s.service.extAuthz.String(),
		"9192": s.service.forwardAuth.String(), "8080": s.service.Addr().String(), "8081": s.service.AdminAddr().String(),
	} {
		for _, form := range []string{"127.0.0.1:%s", "port_value: %s}", "port %s ", "http://:%s {"} {
			text = strings.ReplaceAll(text, fmt.Sprintf(form, at), fmt.Sprintf(form, port(is)))
		}
	}
	return s.write(filepath.Join("front", filepath.Base(name)), text), address
}

// valid has the proxy itself check a configuration.
func (s *street) valid(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.CommandContext(s.t.Context(), name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// part is a program that test/run puts below .work.
func (s *street) part(name string) string {
	s.t.Helper()
	return testkit.Part(s.t, must(filepath.Abs(filepath.Join("../..", name))))
}

func (s *street) envoy(name, config string, status func(int) int) *front {
	s.t.Helper()
	program := s.part(".work/venv/bin/envoy")
	file, address := s.example("envoy/" + config)
	s.valid(program, "--mode", "validate", "-c", file)
	return &front{
		name: name, address: address, status: status, bodies: true,
		program: testkit.StartProgram(s.t, s.dir, address, program, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"),
		own:     map[string]bool{"an encoded slash": true, "an underscore": true, "a null": true},
	}
}

func (s *street) nginx() *front {
	s.t.Helper()
	program := testkit.Part(s.t, "nginx", "/usr/sbin/nginx")
	file, address := s.example("nginx/nginx.conf")
	dir := filepath.Join(s.dir, "nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	args := []string{"-p", dir, "-c", file, "-g", "user root;"}
	if os.Getuid() != 0 {
		args = args[:4]
	}
	s.valid(program, append(args, "-t")...)
	args[len(args)-1] += "daemon off;"
	return &front{
		name: "nginx", address: address, program: testkit.StartProgram(s.t, dir, address, program, args...),
		status: func(status int) int {
			if status == 401 {
				return 401
			}
			return 403
		},
	}
}

func (s *street) caddy() *front {
	s.t.Helper()
	program := s.part(".work/bin/caddy")
	file, address := s.example("caddy/Caddyfile")
	s.valid(program, "validate", "--adapter", "caddyfile", "--config", file)
	return &front{
		name: "caddy", address: address, status: asItIs,
		program: testkit.StartProgram(s.t, s.dir, address, program, "run", "--adapter", "caddyfile", "--config", file),
	}
}

func (s *street) haproxy() *front {
	s.t.Helper()
	program := testkit.Part(s.t, "haproxy", "/usr/sbin/haproxy")
	file, address := s.example("haproxy/haproxy.cfg")
	s.valid(program, "-c", "-f", file)
	return &front{
		name: "haproxy", address: address, status: asItIs, bodies: true,
		program: testkit.StartProgram(s.t, s.dir, address, program, "-db", "-f", file),
	}
}

// traefik is no Traefik, whose module cannot be built here: it asks and forwards as Traefik's ForwardAuth does (traefik/traefik,
// pkg/middlewares/auth/forward.go, ServeHTTP and writeHeader with trustForwardHeader false), with what examples/traefik/dynamic.yaml
// says.
func (s *street) traefik() *front {
	s.t.Helper()
	text := string(must(os.ReadFile("../../examples/traefik/dynamic.yaml")))
	var conf struct {
		HTTP struct {
			Middlewares map[string]struct {
				ForwardAuth struct {
					Address             string
					TrustForwardHeader  bool     `yaml:"trustForwardHeader"`
					AuthResponseHeaders []string `yaml:"authResponseHeaders"`
				} `yaml:"forwardAuth"`
				Headers struct {
					CustomRequestHeaders map[string]string `yaml:"customRequestHeaders"`
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
		s.t.Fatal(err)
	}
	auth, spent := conf.HTTP.Middlewares["stepward"].ForwardAuth, conf.HTTP.Middlewares["spent"].Headers.CustomRequestHeaders
	if auth.TrustForwardHeader || len(auth.AuthResponseHeaders) == 0 || len(spent) == 0 {
		s.t.Fatalf("%+v", conf)
	}
	address := strings.Replace(auth.Address, "127.0.0.1:9192", s.service.forwardAuth.String(), 1)
	hops := []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailers", "Transfer-Encoding", "Upgrade"}
	upstream := httputil.NewSingleHostReverseProxy(must(url.Parse(s.origin.server.URL)))
	upstream.FlushInterval = time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		ask.Header = r.Header.Clone()
		for _, hop := range hops {
			ask.Header.Del(hop)
		}
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		for name, value := range map[string]string{
			"X-Forwarded-For": client, "X-Forwarded-Method": r.Method, "X-Forwarded-Proto": "http", "X-Forwarded-Host": r.Host, "X-Forwarded-Uri": r.URL.RequestURI(),
		} {
			ask.Header.Set(name, value)
		}
		res, err := http.DefaultTransport.RoundTrip(ask)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer res.Body.Close()
		if res.StatusCode < 200 || res.StatusCode >= 300 {
			maps.Copy(w.Header(), res.Header)
			w.WriteHeader(res.StatusCode)
			_, _ = io.Copy(w, res.Body) // a client that is gone has no use for it
			return
		}
		for _, name := range auth.AuthResponseHeaders {
			r.Header.Del(name)
			if values := res.Header.Values(name); len(values) > 0 {
				r.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
		for name := range spent {
			r.Header.Del(name)
		}
		r.RequestURI = r.URL.RequestURI()
		upstream.ServeHTTP(w, r)
	}))
	s.t.Cleanup(server.Close)
	return &front{name: "traefik, replayed", address: server.Listener.Addr().String(), status: asItIs}
}

// through sends one request by a front.
func (s *street) through(f *front, c callOf) answer {
	s.t.Helper()
	r := s.request(c)
	r.URL.Host, r.Host = f.address, "wallet.example"
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.read(res)
}

// codeOf is the reason of a refusal: nginx drops bodies, and its configuration makes one of the structured header.
func codeOf(a answer) string {
	var body struct{ Code string }
	_ = json.Unmarshal([]byte(a.Body), &body) // a proxy's own refusals have other bodies
	return body.Code
}

func TestEveryDoorJudgesAlike(t *testing.T) {
	if testing.Short() {
		t.Skip("starts five proxies")
	}
	s := newStreet(t)
	prefix := s.issuer.Prefix()
	session := s.session("ann")
	expired := s.session("ann", func(c map[string]any) {
		c["exp"], c["iat"] = time.Now().Add(-time.Hour).Unix(), time.Now().Add(-2*time.Hour).Unix()
	})
	pending := s.session("ann", func(c map[string]any) { c["scope"] = "device:register" })
	halfway := s.session("ann", func(c map[string]any) { c["scope"] = "requiresAdditionalAuth" })
	exportID := `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`
	rows := []struct {
		name   string
		call   func(path string) callOf // path exports a wallet of this row's own
		status int
		code   string
	}{
		{"a read", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: session} }, 200, ""},
		{"public", func(string) callOf { return callOf{method: "GET", path: prefix + "/settings"} }, 200, ""},
		{"no session", func(string) callOf { return callOf{method: "GET", path: prefix + "/users"} }, 401, "session_required"},
		{"an expired session", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: expired} }, 401, "session_invalid"},
		{"no token", func(p string) callOf { return callOf{method: "POST", path: p, body: exportID, session: session} }, 403, "elevated_access_token_required"},
		{"another scope", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("ann", "credential:link")}
		}, 403, "elevated_access_token_insufficient_scope"},
		{"another user's token", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("bob", "wallet:export")}
		}, 403, "elevated_access_token_invalid"},
		{"a token that is none", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: "a.b.c"}
		}, 403, "elevated_access_token_invalid"},
		{"a good token", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("ann", "wallet:export")}
		}, 200, ""},
		{"an unregistered device", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: pending} }, 403, "device_verification_required"},
		{"below the floor", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"X-Dyn-Api-Version": "2026_01_01"}}
		}, 400, "api_version_below_floor"},
		{"no version", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"X-Dyn-Api-Version": "newest"}}
		}, 400, "api_version_invalid"},
		{"a second factor outstanding", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: halfway} }, 403, "additional_auth_required"},
		{"an old SDK", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"X-Dyn-Version": "WalletKit/4.0.0"}}
		}, 400, "sdk_version_too_old"},
		{"no MFA token", func(path string) callOf {
			return callOf{method: "POST", path: strings.Replace(path, "privateKey/export", "keyShares/recover", 1), body: "{}", session: session}
		}, 403, "mfa_token_required"},
		{"no route", func(string) callOf { return callOf{method: "GET", path: "/elsewhere", session: session} }, 403, "route_unmatched"},
		{"another method", func(string) callOf { return callOf{method: "PATCH", path: prefix + "/users", session: session} }, 405, "method_not_allowed"},
		{"an administration route", func(string) callOf {
			return callOf{method: "GET", path: "/api/v0/environments/x/users", session: session}
		}, 403, "forbidden"},
		{"a token in the query", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users?x-dyn-elevated-access-token=x", session: session}
		}, 400, "invalid_request"},
		{"a tunnel", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"Early-Data": "1"}}
		}, 200, ""},
	}
	for _, f := range s.fronts {
		t.Run(f.name, func(t *testing.T) {
			for _, row := range rows {
				path := s.wallet("ann")
				before := s.origin.count()
				c := row.call(path)
				a := s.through(f, c)
				want := row.status
				if want >= 400 {
					want = f.status(want)
				}
				reached := s.origin.since(before)
				if a.Status != want || codeOf(a) != row.code || (len(reached) > 0) != (row.status < 400) {
					t.Errorf("%s: got %d %q, %d reached the backend; want %d %q: %.300s", row.name, a.Status, codeOf(a), len(reached), want, row.code, a.Body)
				}
				if row.status >= 400 && !strings.Contains(a.Header.Get("Step-Up-Challenge"), "code="+row.code) {
					t.Errorf("%s: Step-Up-Challenge is %q", row.name, a.Header.Get("Step-Up-Challenge"))
				}
				if row.name != "a good token" || len(reached) != 1 {
					continue
				}
				got := reached[0].Header
				if got.Get("Stepward-Subject") != "ann" || got.Get("Stepward-Scopes") != "wallet:export" || got.Get(elevatedHeader) != "" {
					t.Errorf("the backend was told %v", got)
				}
				again := s.through(f, c)
				if again.Status != f.status(403) || codeOf(again) != "elevated_access_token_consumed" || s.backend.Executions(path) != 1 {
					t.Errorf("a second use: %d %q, %d executions", again.Status, codeOf(again), s.backend.Executions(path))
				}
			}
		})
	}
	t.Run("bodies", func(t *testing.T) { s.bodies(t) })
	t.Run("spoofs", func(t *testing.T) { s.spoofs(t) })
	t.Run("attacks", func(t *testing.T) { s.attacks(t) })
	t.Run("race", func(t *testing.T) { s.race(t) })
	t.Run("streams", func(t *testing.T) { s.streams(t) })
	t.Run("sockets", func(t *testing.T) { s.sockets(t) })
	t.Run("uploads", func(t *testing.T) { s.uploads(t) })
	t.Run("accessLog", func(t *testing.T) { s.accessLog(t) })
	t.Run("stopped", func(t *testing.T) { s.stopped(t) })
}

// An operation that the body decides is judged where the door shows the body, and refused where it cannot.
func (s *street) bodies(t *testing.T) {
	linking := callOf{method: "POST", path: s.issuer.Prefix() + "/emailVerifications/verify", session: s.session("ann"),
		body: `{"verificationUUID":"x","verificationToken":"y"}`, header: map[string]string{"Content-Type": "application/json"}}
	asking := linking
	asking.body = `{"verificationUUID":"x","verificationToken":"y","requestedScopes":["wallet:export"]}`
	forbidden := linking
	forbidden.body = `{"verificationUUID":"x","verificationToken":"y","requestedScopes":["console:sso:update"]}`
	long := linking
	long.body = `{"verificationUUID":"x","requestedScopes":["wallet:export"],"pad":"` + strings.Repeat("x", 100<<10) + `"}`
	for _, f := range s.fronts {
		for what, c := range map[string]callOf{"linking": linking, "asking": asking, "forbidden": forbidden, "long": long} {
			before := s.origin.count()
			a := s.through(f, c)
			reached := len(s.origin.since(before))
			var code string
			switch {
			case !f.bodies:
				code = "body_unreadable"
			case what == "linking":
				code = "elevated_access_token_required"
			case what == "forbidden":
				code = "forbidden"
			case what == "long":
				code = "body_too_large"
			}
			if code == "" {
				if reached != 1 || a.Header.Get("Step-Up-Challenge") != "" {
					t.Errorf("%s, %s: got %d %.200s, %d reached the backend", f.name, what, a.Status, a.Body, reached)
				}
				continue
			}
			if codeOf(a) != code || reached != 0 {
				t.Errorf("%s, %s: got %d %q, %d reached the backend, want %q", f.name, what, a.Status, codeOf(a), reached, code)
			}
		}
	}
}

// raw sends bytes and returns the status of the answer, 0 if there is none.
func raw(t *testing.T, address, text string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// What a client says under the names of verified facts never reaches the backend.
func (s *street) spoofs(t *testing.T) {
	head := "GET " + s.issuer.Prefix() + "/users HTTP/1.1\r\nHost: wallet.example\r\nConnection: close\r\nAuthorization: Bearer " + s.session("ann") + "\r\n"
	for _, f := range s.fronts {
		for name, lines := range map[string]string{
			"one":            "Stepward-Subject: mallory\r\nStepward-Scopes: wallet:export\r\nStepward-Decision-Id: x\r\nStepward-Environment: y\r\n",
			"two":            "Stepward-Subject: mallory\r\nStepward-Subject: mallory\r\nStepward-Scopes: a\r\nStepward-Scopes: b\r\n",
			"underscores":    "Stepward_Subject: mallory\r\nStepward_Scopes: mallory\r\n",
			"the way in":     "X-Original-Uri: /api/v0/mallory\r\nX-Forwarded-Uri: /api/v0/mallory\r\nX-Original-Method: DELETE\r\nX-Forwarded-Method: DELETE\r\n",
			"overrides":      "X-Http-Method-Override: mallory\r\n",
			"a partial body": "X-Envoy-Auth-Partial-Body: false\r\nX-Envoy-Auth-Headers-To-Remove: authorization\r\n",
		} {
			before := s.origin.count()
			status := raw(t, f.address, head+lines+"\r\n")
			reached := s.origin.since(before)
			if len(reached) > 1 || (len(reached) == 1) != (status == 200) {
				t.Errorf("%s, %s: %d, and %d reached the backend", f.name, name, status, len(reached))
			}
			for _, r := range reached {
				if r.Header.Get("Stepward-Subject") != "ann" || len(r.Header["Stepward-Subject"]) != 1 {
					t.Errorf("%s, %s: the subject is %q", f.name, name, r.Header["Stepward-Subject"])
				}
				for field, values := range r.Header {
					if strings.Contains(strings.Join(values, " "), "mallory") || field == "Stepward-Scopes" {
						t.Errorf("%s, %s: the backend got %s: %q", f.name, name, field, values)
					}
				}
			}
		}
	}
}

// Targets that some servers read as an export. None of them may reach it without a token.
func (s *street) attacks(t *testing.T) {
	export := s.wallet("ann")
	dir, last := export[:strings.LastIndexByte(export, '/')], export[strings.LastIndexByte(export, '/')+1:]
	prefix := s.issuer.Prefix()
	targets := map[string]string{
		"dots": prefix + "/networks/../" + strings.TrimPrefix(export, prefix+"/"), "encoded dots": prefix + "/networks/%2e%2e/" + strings.TrimPrefix(export, prefix+"/"),
		"an encoded slash": dir + "%2f" + last, "a doubled slash": "/" + export, "a slash more": export + "/", "an inner slash": dir + "//" + last,
		"a matrix parameter": export + ";a=b", "a parameter in the middle": dir + ";a=b/" + last, "a backslash": dir + "\\" + last,
		"an encoded backslash": dir + "%5c" + last, "another case": strings.ToUpper(export[:7]) + export[7:], "another case at the end": dir + "/" + strings.ToUpper(last),
		"an encoded letter": dir + "/%65xport", "a null": export + "%00", "a fragment": export + "#x", "a dot": dir + "/./" + last,
		"a whole URL": "http://wallet.example" + export, "a whole URL of another": "http://other.example" + export, "a star": "*",
	}
	for _, f := range s.fronts {
		for name, target := range targets {
			status := raw(t, f.address, "POST "+target+" HTTP/1.1\r\nHost: wallet.example\r\nConnection: close\r\nContent-Length: 2\r\nContent-Type: application/json\r\nAuthorization: Bearer "+
				s.session("ann")+"\r\n\r\n{}")
			if status == 0 || status >= 200 && status < 400 {
				t.Errorf("%s, %s: %d", f.name, name, status)
			}
		}
		for name, lines := range map[string]string{
			"two tokens":         elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\n" + elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\n",
			"an underscore":      "X_Dyn_Elevated_Access_Token: " + s.elevated("ann", "wallet:export") + "\r\n",
			"removed on the way": elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\nConnection: close, Authorization\r\n",
			"another tunnel":     elevatedHeader + ": " + s.elevated("ann", "credential:link") + "\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
		} {
			if name == "removed on the way" && !f.bodies {
				continue // what a client says of its connection is not told, and its token is good
			}
			before := s.backend.Executions(export)
			status := raw(t, f.address, "POST "+export+" HTTP/1.1\r\nHost: wallet.example\r\nContent-Length: 2\r\nContent-Type: application/json\r\nAuthorization: Bearer "+
				s.session("ann")+"\r\n"+lines+"\r\n{}")
			if status < 400 || s.backend.Executions(export) != before {
				t.Errorf("%s, %s: %d, %d executions", f.name, name, status, s.backend.Executions(export)-before)
			}
		}
	}
	if n := s.backend.Executions(export); n != 0 {
		t.Errorf("%d exports reached the backend", n)
	}
	for _, r := range s.origin.since(0) {
		if strings.Contains(strings.ToLower(r.RequestURI), strings.ToLower(dir)) && r.RequestURI != export {
			t.Errorf("the backend got %s", r.RequestURI)
		}
	}
}

// One token, 64 requests, through all doors at once: one of them is carried out.
func (s *street) race(t *testing.T) {
	for range 3 {
		path, session, token := s.wallet("ann"), s.session("ann"), s.elevated("ann", "wallet:export")
		var wg sync.WaitGroup
		passed := make(chan string, 64)
		for i := range 64 {
			f := s.fronts[i%len(s.fronts)]
			r := s.request(callOf{method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: session, elevated: token})
			r.URL.Host = f.address
			wg.Go(func() {
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK {
					passed <- f.name
				}
			})
		}
		wg.Wait()
		if n := s.backend.Executions(path); n != 1 || len(passed) != 1 {
			t.Errorf("%d executions, %d passed", n, len(passed))
		}
	}
}

// The first event of a signing ceremony is there before the last is sent.
func (s *street) streams(t *testing.T) {
	wallet := must(s.backend.CreateWallet("ann")).ID
	for _, f := range s.fronts {
		r := s.request(callOf{method: "POST", path: s.issuer.Prefix() + "/waas/" + wallet + "/signMessage", body: `{"message":"m"}`, session: s.session("ann"),
			header: map[string]string{"Accept": "text/event-stream"}})
		r.URL.Host = f.address
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(res.Body)
		first, err := lines.ReadString('\n')
		at := time.Now()
		rest, err2 := io.ReadAll(lines)
		_ = res.Body.Close()
		if took := time.Since(at); err != nil || err2 != nil || res.StatusCode != http.StatusOK || took < 100*time.Millisecond || !strings.Contains(string(rest), "signature") {
			t.Errorf("%s: %d %q, the rest %s later: %s (%v, %v)", f.name, res.StatusCode, first, took, rest, err, err2)
		}
	}
}

func (s *street) sockets(t *testing.T) {
	for _, f := range s.fronts {
		if f.name == "traefik, replayed" { // which tells nobody of an upgrade: its configuration removes it
			before := s.origin.count()
			raw(t, f.address, "GET "+s.issuer.Prefix()+"/users HTTP/1.1\r\nHost: wallet.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nAuthorization: Bearer "+s.session("ann")+"\r\n\r\n")
			for _, r := range s.origin.since(before) {
				if r.Header.Get("Upgrade") != "" {
					t.Errorf("%s: the backend is asked to upgrade to %q", f.name, r.Header.Get("Upgrade"))
				}
			}
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		url := "ws://" + f.address + s.issuer.Prefix() + "/socket"
		dial := func(session string) (*websocket.Conn, *http.Response, error) {
			return websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + session}}})
		}
		c, _, err := dial(s.session("ann"))
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			cancel()
			continue
		}
		_ = c.Write(ctx, websocket.MessageText, []byte("hello")) // the read tells
		if _, echo, err := c.Read(ctx); err != nil || string(echo) != "hello" {
			t.Errorf("%s: %q, %v", f.name, echo, err)
		}
		_ = c.CloseNow()
		if _, res, err := dial("none"); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: a bad session: %v %v", f.name, res, err)
		}
		cancel()
	}
}

func (s *street) uploads(t *testing.T) {
	body := strings.Repeat("x", 2<<20)
	for _, f := range s.fronts {
		a := s.through(f, callOf{method: "POST", path: s.issuer.Prefix() + "/upload", body: body, session: s.session("ann")})
		if a.Status != 200 || !strings.Contains(a.Body, `{"bytes":2097152,"error":"<nil>"}`) {
			t.Errorf("%s: %d %.200s", f.name, a.Status, a.Body)
		}
	}
}

// A Stepward that does not answer lets nothing through, and one that is back does.
func (s *street) stopped(t *testing.T) {
	extAuthz, forwardAuth, door := s.service.extAuthz.String(), s.service.forwardAuth.String(), s.service.Addr().String()
	adminAt := s.service.AdminAddr().String()
	read := callOf{method: "GET", path: s.issuer.Prefix() + "/users", session: s.session("ann")}
	requests := map[*front]*http.Request{}
	for _, f := range s.fronts[1:] {
		r := s.request(read)
		r.URL.Host = f.address
		requests[f] = r
	}
	s.stop()
	before := s.origin.count()
	for f, r := range requests {
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode < 500 {
			t.Errorf("%s: %d without a Stepward", f.name, res.StatusCode)
		}
	}
	if n := s.origin.count() - before; n != 0 {
		t.Errorf("%d requests reached the backend without a Stepward", n)
	}
	s.start("listen: "+door, "admin: {listen: "+adminAt+"}", "upstream: "+s.origin.server.URL, "ext_authz: {listen: "+extAuthz+"}", "forward_auth: {listen: "+forwardAuth+"}",
		"trusted_proxies: [127.0.0.1/32]", "policy: {path: "+filepath.Join(s.dir, "policy")+"}")
	for _, f := range s.fronts[1:] {
		s.eventually(f.name+" finds Stepward again", func() bool { return s.through(f, read).Status == 200 })
	}
}

// Envoy's access log says what was decided.
func (s *street) accessLog(t *testing.T) {
	envoy := s.fronts[1]
	a := s.through(envoy, callOf{method: "POST", path: s.wallet("ann"), body: "{}", session: s.session("ann")})
	var body struct {
		ID string `json:"decision_id"`
	}
	_ = json.Unmarshal([]byte(a.Body), &body) // an empty id is not found
	want := `"decision_id":"` + body.ID + `"`
	s.eventually("the access log has "+want, func() bool {
		for line := range strings.Lines(envoy.program.Output()) {
			if body.ID != "" && strings.Contains(line, want) {
				return strings.Contains(line, `"operation":"wallet.export"`) && strings.Contains(line, `"reason":"elevated_access_token_required"`)
			}
		}
		return false
	})
}

// What failure_mode_allow does: without a Stepward Envoy forwards everything, unjudged. A Stepward that is there and in trouble
// still refuses, since that is an answer and no failure.
func TestFailureModeAllowIsAnOpenDoor(t *testing.T) {
	s := &street{world: newWorld(t)}
	s.origin = &recorder{next: s.world.origin.Config.Handler}
	s.origin.server = httptest.NewServer(s.origin)
	t.Cleanup(s.origin.server.Close)
	s.start("upstream: "+s.origin.server.URL, "ext_authz: {listen: 127.0.0.1:0}", "forward_auth: {listen: 127.0.0.1:0}", "trusted_proxies: [127.0.0.1/32]",
		"ledger_options: {capacity: 1}")
	program := s.part(".work/venv/bin/envoy")
	for _, config := range []string{"envoy.yaml", "envoy-http.yaml"} {
		file, address := s.example("envoy/" + config)
		text := strings.Replace(string(must(os.ReadFile(file))), "failure_mode_allow: false", "failure_mode_allow: true", 1)
		file = s.write("front/open.yaml", text)
		s.fronts = append(s.fronts, &front{
			name: config, address: address,
			program: testkit.StartProgram(t, s.dir, address, program, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error"),
		})
	}
	export := func() callOf {
		return callOf{method: "POST", path: s.wallet("ann"), body: "{}", session: s.session("ann"), elevated: s.elevated("ann", "wallet:export")}
	}
	s.do(export()) // the one that the ledger has room for
	for _, f := range s.fronts {
		before := s.origin.count()
		a := s.through(f, export())
		if codeOf(a) != "consumption_store_unavailable" || a.Status < 400 || s.origin.count() != before {
			t.Errorf("%s with a full ledger: %d %s", f.name, a.Status, a.Body)
		}
	}
	requests := map[*front]*http.Request{}
	for _, f := range s.fronts {
		requests[f] = s.request(callOf{method: "POST", path: s.wallet("ann"), body: "{}"}) // by nobody, with nothing
		requests[f].URL.Host = f.address
	}
	s.stop()
	for f, r := range requests {
		before := s.origin.count()
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if s.origin.count() != before+1 {
			t.Errorf("%s: failure_mode_allow no longer forwards what nobody judged: say so in docs/doors/envoy.md", f.name)
		}
	}
}
