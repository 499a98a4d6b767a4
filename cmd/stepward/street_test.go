package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

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
	// whole: all of Stepward's answer has effect: gRPC clients get gRPC's refusals, and preflights lose their credentials.
	whole bool
	// away is what a client gets while there is no Stepward; awayBody, where the body decides.
	away, awayBody int
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
	case strings.HasSuffix(q.URL.Path, "/busy"):
		w.WriteHeader(http.StatusServiceUnavailable)
	case strings.HasSuffix(q.URL.Path, "/dead"):
		panic(http.ErrAbortHandler)
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

// emptyStreet is a backend. What stands in front of it is still to be built.
func emptyStreet(t *testing.T, edits ...func(*backend.Config)) *street {
	t.Helper()
	s := &street{world: newWorld(t, edits...)}
	s.origin = &recorder{next: s.world.origin.Config.Handler}
	s.origin.server = httptest.NewServer(s.origin)
	t.Cleanup(s.origin.server.Close)
	return s
}

// newStreet starts everything. The configurations are those of examples/, with other addresses.
func newStreet(t *testing.T) *street {
	t.Helper()
	s := emptyStreet(t, func(c *backend.Config) { c.Pause, c.Origins = 300*time.Millisecond, []string{testAudience} })
	s.start("upstream: "+s.origin.server.URL, "ext_authz: {listen: 127.0.0.1:0}", "forward_auth: {listen: 127.0.0.1:0}",
		"trusted_proxies: [127.0.0.1/32]", "policy: {path: "+s.policyWithSocket()+"}", "challenge: {cors: {allowed_origins: ["+testAudience+"]}}")
	s.fronts = []*front{
		{name: "stepward", address: s.service.Addr().String(), status: asItIs, whole: true},
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

// policyWithSocket is the shipped policy with routes of the recorder.
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
  "POST /sdk/{environmentId}/busy": {operation: user.read}
  "POST /sdk/{environmentId}/dead": {operation: user.read}
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
	return s.write(filepath.Join("front", name), text), address
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
	// The worst case: Envoy obeys x-envoy-* of clients that it takes for internal ones.
	const edge = "use_remote_address: true"
	text := strings.Replace(string(must(os.ReadFile(file))), edge, edge+"\n                internal_address_config: {cidr_ranges: [{address_prefix: 0.0.0.0, prefix_len: 0}]}", 1)
	s.write("front/envoy/"+config, text)
	s.valid(program, "--mode", "validate", "-c", file)
	return &front{
		name: name, address: address, status: status, whole: true, away: 503, awayBody: 503,
		program: testkit.StartProgram(s.t, s.dir, address, program, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"),
	}
}

func (s *street) nginx() *front {
	s.t.Helper()
	program := testkit.Part(s.t, "nginx", "/usr/sbin/nginx")
	file, address := s.example("nginx/nginx.conf")
	s.example("nginx/withheld.conf") // which it includes
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
		name: "nginx", address: address, away: 503, awayBody: 503, program: testkit.StartProgram(s.t, dir, address, program, args...),
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
		name: "caddy", address: address, status: asItIs, away: 502, awayBody: 502,
		program: testkit.StartProgram(s.t, s.dir, address, program, "run", "--adapter", "caddyfile", "--config", file),
	}
}

func (s *street) haproxy() *front {
	s.t.Helper()
	program := testkit.Part(s.t, "haproxy", "/usr/sbin/haproxy")
	file, address := s.example("haproxy/haproxy.cfg")
	s.valid(program, "-c", "-f", file)
	return &front{
		name: "haproxy", address: address, status: asItIs, whole: true, away: 503, awayBody: 503,
		program: testkit.StartProgram(s.t, s.dir, address, program, "-db", "-f", file),
	}
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
