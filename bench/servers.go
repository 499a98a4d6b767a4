package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const environment = "3f0c2a2e-0000-4000-8000-000000000001"

// backend answers 1 KiB of JSON to everything.
func backend(ctx context.Context, address string) error {
	body := []byte(`{"data":"` + strings.Repeat("x", 1024-11) + `"}`)
	return serve(ctx, address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(body) // a loader that left is no fault
	}))
}

// bare is httputil.ReverseProxy as good as it gets: idle connections, buffer pool, no compression.
func bare(ctx context.Context, address, upstream string) error {
	target, err := url.Parse("http://" + upstream)
	if err != nil {
		return err
	}
	return serve(ctx, address, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: 512, MaxIdleConns: 0, IdleConnTimeout: time.Minute, DisableCompression: true},
		BufferPool: &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
	})
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { p, _ := b.pool.Get().(*[]byte); return *p }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

func serve(ctx context.Context, address string, h http.Handler) error {
	server := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close() // the process ends
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// lab is what all rows share.
type lab struct {
	settings settings
	dir      string
	self     string // this program
	key      *ecdsa.PrivateKey
	session  string
	backend  *server
	bare     *server
	plain    func(int) source
}

func newLab(ctx context.Context, s settings) (*lab, error) {
	dir, err := os.MkdirTemp("", "stepward-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{settings: s, dir: dir}
	if l.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if err := l.writeKeys(); err != nil {
		return nil, err
	}
	if l.session, err = l.mint(jwt.MapClaims{"scope": "user:basic", "sid": "s", "exp": time.Now().Add(time.Hour).Unix()}); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l.self = self
	if l.backend, err = start(ctx, "1", func(a string) []string { return []string{self, "-role", "backend", "-listen", a} }); err != nil {
		return nil, err
	}
	l.bare, err = start(ctx, "0", func(a string) []string {
		return []string{self, "-role", "bare", "-listen", a, "-upstream", l.backend.address}
	})
	if err != nil {
		return nil, err
	}
	l.plain = constant([]byte("GET /api/v0/sdk/" + environment + "/users HTTP/1.1\r\nHost: wallet.example\r\nAuthorization: Bearer " + l.session + "\r\n\r\n"))
	pin(ctx, "1", os.Getpid())
	return l, nil
}

func (l *lab) close() {
	if l.bare != nil {
		l.bare.stop()
	}
	if l.backend != nil {
		l.backend.stop()
	}
	_ = os.RemoveAll(l.dir) // a temporary folder
}

func (l *lab) writeKeys() error {
	point, err := l.key.PublicKey.Bytes()
	if err != nil {
		return err
	}
	coordinate := base64.RawURLEncoding.EncodeToString
	keys := map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "bench", "x": coordinate(point[1:33]), "y": coordinate(point[33:]),
	}}}
	text, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, "jwks.json"), text, 0o600)
}

func (l *lab) mint(claims jwt.MapClaims) (string, error) {
	claims["iss"], claims["aud"], claims["sub"], claims["environment_id"] = "bench/"+environment, "https://app.example", "alice", environment
	claims["iat"] = time.Now().Unix()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	t.Header["kid"] = "bench"
	return t.SignedString(l.key)
}

// start runs a process on one CPU and waits until it listens.
func start(ctx context.Context, cpu string, command func(address string) []string) (*server, error) {
	a, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	args := append([]string{"-c", cpu}, command(a)...)
	cmd := exec.CommandContext(ctx, "taskset", args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var failure error // read after ended
	ended := make(chan struct{})
	go func() { failure = cmd.Wait(); close(ended) }()
	stop := func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended by itself
		select {
		case <-ended: // how it ended no longer matters
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
		}
	}
	for range 2000 {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", a); err == nil {
			conn.Close()
			return &server{address: a, pid: cmd.Process.Pid, stop: stop}, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s ended: %w", args[2], failure)
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	return nil, fmt.Errorf("%s does not listen on %s", args[2], a)
}

func pin(ctx context.Context, cpu string, pid int) {
	_ = exec.CommandContext(ctx, "taskset", "-apc", cpu, fmt.Sprint(pid)).Run() // without it the figures are only noisier
}

func freeAddress(ctx context.Context) (string, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// row is one line of the table.
type row struct {
	name        string
	concurrency []int
	ledger      string
	cacheOff    bool
	routes      int  // 0: the embedded policy
	reloading   bool // the policy changes all the time
	spends      bool // each request needs a new token
	requests    func(n int) source
	status      int
}

func (l *lab) rows() []row {
	all := []int{1, 32, 256}
	export := "POST /api/v0/sdk/" + environment + "/waas/w1/privateKey/export HTTP/1.1\r\nHost: wallet.example\r\nAuthorization: Bearer " + l.session +
		"\r\nContent-Length: 0\r\n"
	refused := constant([]byte(export + "\r\n"))
	return []row{
		{name: "allowed, warm caches", concurrency: all, ledger: "memory:", requests: l.plain, status: 200},
		{name: "allowed, requirement cache off", concurrency: all, ledger: "memory:", cacheOff: true, requests: l.plain, status: 200},
		{name: "single-use spend, memory", concurrency: all, ledger: "memory:", spends: true, requests: l.tokens(export), status: 200},
		{name: "single-use spend, bolt", concurrency: all, ledger: "bolt", spends: true, requests: l.tokens(export), status: 200},
		{name: "refusal, no elevated token", concurrency: all, ledger: "memory:", requests: refused, status: 403},
		{name: "allowed, 10 routes", concurrency: []int{32}, ledger: "memory:", routes: 10, requests: l.plain, status: 200},
		{name: "allowed, 10,000 routes", concurrency: []int{32}, ledger: "memory:", routes: 10_000, requests: l.plain, status: 200},
		{name: "allowed, 10 routes, reloading", concurrency: []int{32}, ledger: "memory:", routes: 10, reloading: true, requests: l.plain, status: 200},
	}
}

// tokens mints as many elevated tokens as one leg can spend; when they run dry the leg ends early.
func (l *lab) tokens(head string) func(int) source {
	return func(int) source {
		const n = 12_000
		requests := make([][]byte, n)
		var wg sync.WaitGroup
		for part := range 2 {
			wg.Go(func() {
				for i := part; i < n; i += 2 {
					token, err := l.mint(jwt.MapClaims{
						"scope": "wallet:export", "singleUse": true, "jti": rand.Text(), "exp": time.Now().Add(5 * time.Minute).Unix(),
					})
					if err != nil {
						return
					}
					requests[i] = []byte(head + "x-dyn-elevated-access-token: " + token + "\r\n\r\n")
				}
			})
		}
		wg.Wait()
		var next atomic.Int64
		return func() []byte {
			if i := next.Add(1) - 1; i < n {
				return requests[i]
			}
			return nil
		}
	}
}

// stepward starts the program as a row wants it.
func (l *lab) stepward(ctx context.Context, r row) (*server, error) {
	dir, err := os.MkdirTemp(l.dir, "run-")
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	under, err := start(ctx, "0", func(address string) []string {
		file := filepath.Join(dir, "stepward.yaml")
		if err := os.WriteFile(file, []byte(l.config(r, dir, address, admin)), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		return []string{l.settings.binary, "run", "--config", file}
	})
	if err == nil && r.spends {
		time.Sleep(1100 * time.Millisecond) // a new ledger refuses tokens issued in the second of its start
	}
	if err == nil && r.reloading {
		reload(under, filepath.Join(dir, "policy", "data.yaml"))
	}
	return under, err
}

// reload changes a policy's data five times a second until the server is stopped.
func reload(s *server, file string) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := s.stop
	s.stop = func() { cancel(); stop() }
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			text, err := os.ReadFile(file)
			if err == nil {
				text, _, _ = bytes.Cut(text, []byte("# change"))
				err = os.WriteFile(file+".new", fmt.Appendf(text, "# change %d\n", n), 0o600)
			}
			if err == nil {
				err = os.Rename(file+".new", file)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "bench: reload:", err)
			}
		}
	}()
}

func (l *lab) config(r row, dir, address, admin string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nupstream: http://%s\nadmin: {listen: %s}\n", address, l.backend.address, admin)
	fmt.Fprintf(&b, "session: {issuer: bench/%s, audience: [https://app.example], jwks_file: %s, algorithms: [ES256]}\n", environment, filepath.Join(l.dir, "jwks.json"))
	ledger := r.ledger
	if ledger == "bolt" {
		ledger = "bolt:" + filepath.Join(dir, "ledger.db")
	}
	fmt.Fprintf(&b, "ledger: %q\nleeway: 0s\n", ledger)
	if ledger == "memory:" {
		b.WriteString("dangerously_single_replica: true\n")
	}
	b.WriteString("decision_log: {to: \"off\"}\nlog: {level: error}\n")
	switch {
	case r.routes > 0:
		fmt.Fprintf(&b, "policy: {path: %s, watch_interval: 50ms}\n", l.policy(dir, r.routes))
	case r.cacheOff:
		b.WriteString("policy: {cache_size: 0}\n")
	}
	return b.String()
}

// policy writes a policy with so many routes, the measured one in their middle.
func (l *lab) policy(dir string, routes int) string {
	var b strings.Builder
	b.WriteString("mount: /api/v0\nenvironments:\n  default: {mode: enforce}\nroutes:\n")
	for i := range routes - 1 {
		fmt.Fprintf(&b, "  \"GET /sdk/{environmentId}/things%d/{thingId}\": {operation: user.read}\n", i)
		if i == routes/2 {
			b.WriteString("  \"GET /sdk/{environmentId}/users\": {operation: user.read}\n")
		}
	}
	path := filepath.Join(dir, "policy")
	files := map[string]string{
		"data.yaml": b.String(),
		"requirement.rego": "package stepward\n\ndefault requirement := {\"operation\": \"undecided\", \"session\": true, \"deny\": {\"code\": \"undecided\"}}\n\n" +
			"requirement := {\"operation\": input.operation, \"session\": true} if input.operation == \"user.read\"\n",
	}
	_ = os.MkdirAll(path, 0o700) // the writes below say what is wrong
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	return path
}

func matches(name, only string) bool { return only == "" || strings.Contains(name, only) }
