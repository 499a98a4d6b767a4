package main

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stepward/stepward/examples/backend"
)

// asProgram makes the test program be stepward.
const asProgram = "STEPWARD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"stepward": main})
}

// program runs stepward as another process on known addresses and waits until it is ready.
type program struct {
	*exec.Cmd
	w           *world
	door, admin string
	ended       chan error
}

func (w *world) program(lines ...string) *program {
	w.t.Helper()
	p := &program{w: w, door: freeAddress(w.t), admin: freeAddress(w.t), ended: make(chan error, 1)}
	path := w.config(append(lines, "listen: "+p.door, "admin: {listen: "+p.admin+"}")...)
	exe := w.exe
	if exe == "" {
		exe = must(os.Executable())
	}
	p.Cmd = exec.Command(exe, "run", "--config", path)
	p.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	p.Stdout, p.Stderr = w.stdout, w.stderr
	if err := p.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	w.t.Cleanup(func() { _ = p.Process.Kill() })
	w.eventually("ready", func() bool { return p.ready() == http.StatusOK })
	return p
}

// ready is the status of /readyz, 0 without an answer.
func (p *program) ready() int {
	res, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func (p *program) signal(s os.Signal) {
	p.w.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.w.t.Fatal(err)
	}
}

func (p *program) request(c callOf) *http.Request {
	p.w.t.Helper()
	r, err := http.NewRequest(c.method, "http://"+p.door+c.path, strings.NewReader(c.body))
	if err != nil {
		p.w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.session)
	r.Header.Set(elevatedHeader, c.elevated)
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	return r
}

func (w *world) export(user string) callOf {
	return callOf{
		method: "POST", path: w.wallet(user), body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`,
		session: w.session(user), elevated: w.elevated(user, "wallet:export"),
	}
}

// On SIGTERM requests in flight finish, new ones find no door, and the exit is clean.
func TestDrain(t *testing.T) {
	w := newWorld(t, func(c *backend.Config) { c.Pause = 2 * time.Second })
	p := w.program("log: {level: debug}")
	export := w.export("ann")
	export.header = map[string]string{"Accept": "text/event-stream"}
	res, err := http.DefaultTransport.RoundTrip(p.request(export))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	w.eventually("the door is closed", func() bool {
		_, err := http.Get("http://" + p.door + "/")
		return err != nil
	})
	if rest, err := io.ReadAll(lines); err != nil || !strings.Contains(string(rest), "event: ceremony_complete") {
		t.Errorf("the stream was cut: %q, %v", rest, err)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("got %v, want exit 0", err)
	}
	if log := w.file("decisions.jsonl"); !strings.Contains(log, `"phase":"outcome"`) || !strings.Contains(log, `"token_state":"committed"`) {
		t.Errorf("the outcome is not in the log: %s", log)
	}
}

// What a drain may take is bounded.
func TestDrainIsBounded(t *testing.T) {
	w := newWorld(t, func(c *backend.Config) { c.Pause = time.Hour })
	p := w.program("limits: {drain: 200ms}")
	export := w.export("ann")
	export.header = map[string]string{"Accept": "text/event-stream"}
	res, err := http.DefaultTransport.RoundTrip(p.request(export))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("an endless stream holds the process")
	}
	if !strings.Contains(w.stderr.String(), "drain") {
		t.Errorf("nothing is said of what was cut: %s", w.stderr)
	}
}

// A token whose request was under way when the process was killed is spent.
func TestAKillBetweenReserveAndCommitSpends(t *testing.T) {
	w := newWorld(t)
	stalled, over := make(chan struct{}), make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.backend.Handler().ServeHTTP(out, r)
			return
		}
		stalled <- struct{}{}
		<-over
	}))
	defer stuck.Close()
	defer close(over)
	export := w.export("ann")
	for range 5 {
		export.elevated = w.elevated("ann", "wallet:export")
		p := w.program("upstream: " + stuck.URL)
		go func() {
			if res, err := http.DefaultTransport.RoundTrip(p.request(export)); err == nil {
				res.Body.Close()
			}
		}()
		<-stalled
		p.signal(syscall.SIGKILL)
		<-p.ended

		p = w.program()
		res, err := http.DefaultTransport.RoundTrip(p.request(export))
		if err != nil {
			t.Fatal(err)
		}
		w.expect(w.read(res), 403, "elevated_access_token_consumed")
		p.signal(syscall.SIGTERM)
		if err := <-p.ended; err != nil {
			t.Errorf("end: %v", err)
		}
	}
	if n := w.backend.Executions(export.path); n != 0 {
		t.Errorf("the backend saw %d exports after the kill", n)
	}
}

func TestHangupReloads(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(same)
	p := w.program("policy: {path: policy, watch_interval: 0s}")
	w.copyPolicy(func(data string) string { return strings.Replace(data, "mode: enforce", "mode: shadow", 1) })
	p.signal(syscall.SIGHUP)
	w.eventually("the shadow is announced", func() bool { return strings.Contains(w.stderr.String(), "mode: shadow") })
	res, err := http.DefaultTransport.RoundTrip(p.request(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann")}))
	if err != nil {
		t.Fatal(err)
	}
	w.expect(w.read(res), 200, "")
}

// TestScripts runs testdata/*.txt through the real main.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("EXAMPLES", must(filepath.Abs("../../examples")))
			e.Setenv("REGO", must(filepath.Abs("../../rego")))
			return nil
		},
	})
}
