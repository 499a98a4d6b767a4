package main

import (
	"context"
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

