package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/issuer"
	"github.com/stepward/stepward/ledger"
)

const (
	testEnvironment = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"
	testAudience    = "https://wallet.example"
	elevatedHeader  = "X-Dyn-Elevated-Access-Token"
)

// world is a real issuer, a real backend and, once started, Stepward between them and the test.
type world struct {
	t       *testing.T
	dir     string
	issuer  *issuer.Issuer
	backend *backend.Backend
	origin  *httptest.Server // both, on one host, as at Dynamic

	stdout, stderr, answers *buffer // everything that Stepward says
	exe                     string  // what program runs, the test program itself if it is ""
	service                 *service
	stop                    func() // ends the service and waits
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newWorld(t *testing.T, edits ...func(*backend.Config)) *world {
	t.Helper()
	return newWorldOf(t, issuer.Config{Audience: testAudience, Algorithm: "ES256"}, edits...)
}

// newWorldOf has an issuer of its own kind.
func newWorldOf(t *testing.T, ic issuer.Config, edits ...func(*backend.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), stdout: new(buffer), stderr: new(buffer), answers: new(buffer)}
	ic.Dir, ic.Environment = w.dir, testEnvironment
	ic.Wallets = func(user string) ([]map[string]any, error) { return w.backend.Credentials(user) }
	var err error
	w.issuer, err = issuer.New(ic)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.issuer.Close() })
	bc := backend.Config{Dir: w.dir, Environment: testEnvironment, Next: w.issuer.Handler()}
	for _, edit := range edits {
		edit(&bc)
	}
	if w.backend, err = backend.New(bc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.backend.Close() })
	w.origin = httptest.NewServer(w.backend.Handler())
	t.Cleanup(w.origin.Close)
	w.oldLedger()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("stderr:\n%s", w.stderr.String())
		}
	})
	return w
}

// oldLedger makes a ledger whose memory reaches back far enough for every token of a test: a new one refuses what may have
// been spent before it was made.
func (w *world) oldLedger() {
	w.t.Helper()
	hourAgo := func() time.Time { return time.Now().Add(-time.Hour) }
	store, err := ledger.Open(w.t.Context(), "bolt:"+filepath.Join(w.dir, "ledger.db"), ledger.Options{Capacity: 1, Now: hourAgo})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// config is a configuration file: what every test needs, and the lines of one test. A line replaces the default of its key.
func (w *world) config(lines ...string) string {
	defaults := []string{
		"listen: 127.0.0.1:0",
		"admin: {listen: 127.0.0.1:0}",
		"upstream: " + w.origin.URL,
		fmt.Sprintf("session: {issuer: app.dynamicauth.com/%s, audience: %s, jwks_url: %s%s/.well-known/jwks, algorithms: [ES256]}",
			testEnvironment, testAudience, w.origin.URL, w.issuer.Prefix()),
		"ledger: bolt:ledger.db",
		"jwks: {min_refresh: 1s}",
		"policy: {eval_timeout: 10s}", "limits: {upstream_dial: 30s}", // for machines that are busy
		"decision_log: {to: ./decisions.jsonl, blocking: true}",
	}
	var text strings.Builder
	named := map[string]bool{}
	for _, line := range append(lines, defaults...) {
		key, _, _ := strings.Cut(line, ":")
		if !named[key] {
			text.WriteString(line + "\n")
		}
		named[key] = true
	}
	path := filepath.Join(w.dir, "stepward.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) build(lines ...string) (*service, error) {
	w.t.Helper()
	cfg, err := config.Load(w.config(lines...), config.LoadOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return newService(w.t.Context(), cfg, outputs{w.stdout, w.stderr})
}

// start runs Stepward until the test ends or calls stop.
func (w *world) start(lines ...string) {
	w.t.Helper()
	s, err := w.build(lines...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.service = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("end: %v", err)
		}
	})
	w.t.Cleanup(w.stop)
	within, cancelWait := context.WithTimeout(ctx, 20*time.Second)
	defer cancelWait()
	if err := s.Ready(within); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) session(user string, edits ...issuer.Edit) string {
	return must(w.issuer.SessionToken(user, edits...))
}

func (w *world) elevated(user string, scopes ...string) string {
	return must(w.issuer.ElevatedToken(user, scopes, true))
}

// wallet makes a wallet and returns the path that exports its key.
func (w *world) wallet(user string) string {
	return w.issuer.Prefix() + "/waas/" + must(w.backend.CreateWallet(user)).ID + "/privateKey/export"
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// answer is what came back.
type answer struct {
	Status int
	Header http.Header
	Body   string
	problem
}

type problem struct {
	Error, Code string
	TokenState  string `json:"token_state"`
	Challenge   struct {
		Kind           string
		State          string
		RetrySameToken *bool `json:"retry_same_token"`
	}
}

// callOf is one request; body is JSON, "" for none.
type callOf struct {
	method, path, body string
	session, elevated  string
	header             map[string]string
}

func (w *world) request(c callOf) *http.Request {
	w.t.Helper()
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	r, err := http.NewRequest(c.method, "http://"+w.service.Addr().String()+c.path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if c.session != "" {
		r.Header.Set("Authorization", "Bearer "+c.session)
	}
	if c.elevated != "" {
		r.Header.Set(elevatedHeader, c.elevated)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	return r
}

func (w *world) do(c callOf) answer {
	w.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(w.request(c))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.read(res)
}

func (w *world) read(res *http.Response) answer {
	w.t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	a := answer{Status: res.StatusCode, Header: res.Header, Body: string(body)}
	_ = json.Unmarshal(body, &a.problem) // an answer of the backend may be anything
	fmt.Fprintf(w.answers, "%d %v\n%s\n", a.Status, a.Header, a.Body)
	return a
}

func (w *world) expect(a answer, status int, code string) {
	w.t.Helper()
	if a.Status != status || a.Code != code {
		w.t.Errorf("got %d %q, want %d %q: %s", a.Status, a.Code, status, code, a.Body)
	}
}

// admin gets a page of the admin listener.
func (w *world) admin(path string) (int, string) {
	w.t.Helper()
	res, err := http.Get("http://" + w.service.AdminAddr().String() + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (w *world) file(name string) string {
	return string(must(os.ReadFile(filepath.Join(w.dir, name))))
}

func (w *world) write(name, text string) string {
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// passFence waits until a ledger that has just been made believes fresh tokens.
func (w *world) passFence() {
	w.t.Helper()
	w.eventually("a new ledger believes fresh tokens", func() bool {
		a := w.do(callOf{method: "POST", path: w.wallet("eve"), session: w.session("eve"), elevated: w.elevated("eve", "wallet:export")})
		return a.Code != "elevated_access_token_required"
	})
}

// eventually polls, for what happens behind a request.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// freeAddress is one that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listenOn takes an address that was free a moment ago.
func listenOn(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
