package main

import (
	"bufio"
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

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/rego"
)

func TestAnExportNeedsATokenThatIsSpentOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	path := w.wallet("ann")
	export := callOf{method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: w.session("ann")}

	refused := w.do(export)
	w.expect(refused, 403, "elevated_access_token_required")
	if got := refused.Header.Get("WWW-Authenticate"); !strings.Contains(got, `scope="wallet:export"`) {
		t.Errorf("got WWW-Authenticate %q", got)
	}
	export.elevated = w.elevated("ann", "credential:link")
	w.expect(w.do(export), 403, "elevated_access_token_insufficient_scope")
	export.elevated = w.elevated("bob", "wallet:export")
	w.expect(w.do(export), 403, "elevated_access_token_invalid")
	if n := w.backend.Executions(path); n != 0 {
		t.Fatalf("the backend saw %d exports that were refused", n)
	}
	export.elevated = w.elevated("ann", "wallet:export")
	w.expect(w.do(export), 200, "")
	w.expect(w.do(export), 403, "elevated_access_token_consumed")
	if n := w.backend.Executions(path); n != 1 {
		t.Errorf("the backend saw %d exports, want 1", n)
	}
}

func TestOneTokenManyRequests(t *testing.T) {
	for _, ledger := range []string{"ledger: bolt:ledger.db", "ledger: 'memory:'"} {
		w := newWorld(t)
		w.start(ledger, "dangerously_single_replica: true", "leeway: 0s")
		w.passFence()
		path, session := w.wallet("ann"), w.session("ann")
		for round := range 5 {
			token := w.elevated("ann", "wallet:export")
			var wg sync.WaitGroup
			passed := make(chan int, 64)
			for range 64 {
				r := w.request(callOf{
					method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: session, elevated: token,
				})
				wg.Go(func() {
					res, err := http.DefaultTransport.RoundTrip(r)
					if err != nil {
						t.Error(err)
						return
					}
					res.Body.Close()
					if res.StatusCode == http.StatusOK {
						passed <- 1
					}
				})
			}
			wg.Wait()
			if n := w.backend.Executions(path); len(passed) != 1 || n != round+1 {
				t.Errorf("%s: %d passed, and the backend saw %d after %d rounds", ledger, len(passed), n, round+1)
			}
		}
		w.stop()
	}
}

func TestTokensAreNotInterchangeable(t *testing.T) {
	w := newWorld(t)
	w.start()
	session, elevated := w.session("ann"), w.elevated("ann", "wallet:export")
	w.expect(w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: elevated}), 401, "session_invalid")
	w.expect(w.do(callOf{method: "POST", path: w.wallet("ann"), session: session, elevated: session}), 403, "elevated_access_token_invalid")
	w.expect(w.do(callOf{method: "POST", path: w.wallet("ann"), elevated: elevated}), 401, "session_required")
	w.expect(w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: session}), 200, "")
}

func TestAnUnregisteredDevice(t *testing.T) {
	w := newWorld(t)
	w.start()
	pending := w.session("ann", func(claims map[string]any) { claims["scope"] = "device:register" })
	got := w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: pending})
	w.expect(got, 403, "device_verification_required")
	if got.Challenge.Kind != "device_verification" || got.Challenge.State != "unregistered" {
		t.Errorf("got %+v", got.Challenge)
	}
}

// What is spent stays spent over a restart, and a backend that was not reached spends nothing.
func TestRestartsAndABackendThatIsDown(t *testing.T) {
	w := newWorld(t)
	w.start()
	path, session, token := w.wallet("ann"), w.session("ann"), w.elevated("ann", "wallet:export")
	export := callOf{method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: session, elevated: token}
	w.expect(w.do(export), 200, "")
	w.stop()
	w.start()
	w.expect(w.do(export), 403, "elevated_access_token_consumed")

	address := w.origin.Listener.Addr().String()
	w.origin.CloseClientConnections()
	w.origin.Close()
	export.elevated = w.elevated("ann", "wallet:export")
	down := w.do(export)
	w.expect(down, 502, "upstream_unreachable")
	if down.TokenState != "unused" || down.Challenge.RetrySameToken == nil || !*down.Challenge.RetrySameToken {
		t.Errorf("got token_state %q, %+v", down.TokenState, down.Challenge)
	}
	w.origin = httptest.NewUnstartedServer(w.backend.Handler())
	w.origin.Listener.Close()
	w.origin.Listener = must(net.Listen("tcp", address))
	w.origin.Start()
	defer w.origin.Close()
	w.expect(w.do(export), 200, "")
	if n := w.backend.Executions(path); n != 2 {
		t.Errorf("the backend saw %d exports, want 2", n)
	}
}

func TestAMemoryLedgerRefusesWhatWasIssuedBeforeItsStart(t *testing.T) {
	w := newWorld(t)
	token := w.elevated("ann", "wallet:export")
	w.start("ledger: 'memory:'", "dangerously_single_replica: true", "leeway: 0s")
	w.passFence()
	old := w.do(callOf{method: "POST", path: w.wallet("ann"), session: w.session("ann"), elevated: token})
	w.expect(old, 403, "elevated_access_token_required")
	if !strings.Contains(old.Body, "older than the memory of what has been spent") || !strings.Contains(w.stderr.String(), "the ledger is new") {
		t.Errorf("nobody is told why: %s", old.Body)
	}
}

// The events of an export arrive as the backend sends them.
func TestServerSentEventsArriveAtOnce(t *testing.T) {
	w := newWorld(t, func(c *backend.Config) { c.Pause = time.Hour })
	w.start()
	r := w.request(callOf{
		method: "POST", path: w.wallet("ann"), body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: w.session("ann"),
		elevated: w.elevated("ann", "wallet:export"), header: map[string]string{"Accept": "text/event-stream"},
	})
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != "event: room_created\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// eagerBackend answers each connection's first request at its head, with the given text and then whatever it is told, and
// never looks at the body.
func eagerBackend(t *testing.T, answer string, more func(io.Writer)) (address string) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, answer)
				more(conn)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// A client whose body is answered early has sent no further request, whatever that body looks like.
func TestTheRestOfABodyIsNoRequest(t *testing.T) {
	w := newWorld(t)
	w.start("upstream: http://" + eagerBackend(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", func(io.Writer) {}))
	hidden := strings.Repeat("GET "+w.issuer.Prefix()+"/healthcheck HTTP/1.1\r\nHost: x\r\n\r\n", 5000)
	for framing, head := range map[string]string{
		"chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(hidden)+1),
		"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n", len(hidden)+1),
	} {
		t.Run(framing, func(t *testing.T) {
			conn := must(net.Dial("tcp", w.service.Addr().String()))
			defer conn.Close()
			fmt.Fprintf(conn, "POST %s/connect HTTP/1.1\r\nHost: x\r\n%s", w.issuer.Prefix(), head)
			answers := bufio.NewReader(conn)
			_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
			res, err := http.ReadResponse(answers, nil)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("got %v, %v", res, err)
			}
			_, _ = io.ReadAll(res.Body)
			_, _ = io.WriteString(conn, hidden) // the connection may be closed by now
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			if rest, _ := io.ReadAll(answers); strings.Contains(string(rest), "HTTP/1.1") {
				t.Errorf("the rest of the body was answered: %.200s", rest)
			}
		})
	}
}

// An answer that begins while a body is being sent is not cut by the bound on pauses within bodies once that has ended.
func TestAnswersOutliveTheBoundOnBodies(t *testing.T) {
	const idle = 300 * time.Millisecond
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 0\n\n\r\n"
	for framing, parts := range map[string][2]string{
		"chunked": {"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n", "0\r\n\r\n"},
		"length":  {"Content-Length: 20\r\n\r\n0123456789", "0123456789"},
	} {
		t.Run(framing, func(t *testing.T) {
			w := newWorld(t)
			w.start("limits: {body_idle: "+idle.String()+"}", "upstream: http://"+eagerBackend(t, head, func(to io.Writer) {
				for i := range 4 {
					time.Sleep(idle)
					fmt.Fprintf(to, "9\r\ndata: %d\n\n\r\n", i+1)
				}
				_, _ = io.WriteString(to, "0\r\n\r\n")
			}))
			conn := must(net.Dial("tcp", w.service.Addr().String()))
			defer conn.Close()
			fmt.Fprintf(conn, "POST %s/connect HTTP/1.1\r\nHost: x\r\n%s", w.issuer.Prefix(), parts[0])
			time.Sleep(idle / 3) // the answer begins first
			_, _ = io.WriteString(conn, parts[1])
			_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if events, err := io.ReadAll(res.Body); err != nil || !strings.HasSuffix(string(events), "data: 4\n\n") {
				t.Errorf("the answer was cut: %q, %v", events, err)
			}
		})
	}
}

// An environment's id in another case is nobody's: a backend may take it for the listed one, whose rules are stricter.
func TestEnvironmentsInAnotherCase(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(func(data string) string {
		return strings.Replace(data, "environments:\n", "environments:\n  "+testEnvironment+": {locked: true}\n", 1)
	})
	w.start("policy: {path: policy}")
	path := w.issuer.Prefix() + "/emailVerifications/create"
	w.expect(w.do(callOf{method: "POST", path: path}), 403, "environment_locked")
	w.expect(w.do(callOf{method: "POST", path: strings.Replace(path, testEnvironment, strings.ToUpper(testEnvironment), 1)}), 403, "environment_mismatch")
}

func TestKeysRotateUnderARunningService(t *testing.T) {
	w := newWorld(t)
	w.start()
	before := w.session("ann")
	if err := w.issuer.Rotate(); err != nil {
		t.Fatal(err)
	}
	read := callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: before}
	w.expect(w.do(read), 200, "")
	w.eventually("a token of the new key is good", func() bool {
		return w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann")}).Status == 200
	})
	w.expect(w.do(read), 200, "")
}

func TestKeysThatCannotBeHadEndTheStart(t *testing.T) {
	w := newWorld(t)
	nobody := freeAddress(t)
	s, err := w.build("jwks: {start_wait: 300ms, timeout: 100ms, min_refresh: 1s}", fmt.Sprintf(
		"session: {issuer: i, audience: a, jwks_url: http://%s/jwks}", nobody))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "keys of issuer i") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

// copyPolicy writes the shipped policy into a folder of the test.
func (w *world) copyPolicy(edit func(data string) string) {
	w.t.Helper()
	entries, err := rego.FS.ReadDir(".")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		text := string(must(rego.FS.ReadFile(e.Name())))
		if e.Name() == "data.yaml" {
			text = edit(text)
		}
		w.write("policy/"+e.Name(), text)
	}
}

func same(data string) string { return data }

func TestPolicyChangesTakeEffectAndBrokenOnesDoNot(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(same)
	w.start("policy: {path: policy, watch_interval: 20ms}")
	path := strings.TrimSuffix(w.wallet("ann"), "privateKey/export") + "signMessage"
	sign := callOf{method: "POST", path: path, body: `{"message":"6869"}`, session: w.session("ann")}
	w.expect(w.do(sign), 200, "")

	w.copyPolicy(func(data string) string {
		return strings.Replace(data, "step_up: {}", "step_up: {wallet.sign: true}", 1)
	})
	w.eventually("signing needs a step-up", func() bool { return w.do(sign).Code == "elevated_access_token_required" })

	w.write("policy/requirement.rego", "package stepward\nrequirement := {")
	w.eventually("the broken policy is noticed", func() bool {
		_, page := w.admin("/metrics")
		return strings.Contains(page, "stepward_policy_last_reload_successful 0")
	})
	w.expect(w.do(sign), 403, "elevated_access_token_required")
	status, page := w.admin("/readyz")
	if status != 200 || !strings.Contains(page, "requirement.rego:") || !strings.Contains(page, "the last good one stays in force") {
		t.Errorf("/readyz: got %d %s", status, page)
	}

	w.copyPolicy(same)
	w.eventually("the mended policy is in force", func() bool { return w.do(sign).Status == 200 })
}

// SIGHUP's work, without the signal.
func TestReload(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(same)
	w.start("policy: {path: policy, watch_interval: 0s}")
	w.copyPolicy(func(data string) string { return strings.Replace(data, "mode: enforce", "mode: shadow", 1) })
	if err := os.Rename(filepath.Join(w.dir, "decisions.jsonl"), filepath.Join(w.dir, "decisions.1")); err != nil {
		t.Fatal(err)
	}
	w.service.Reload(t.Context())
	path := w.wallet("ann")
	token := w.elevated("ann", "credential:link")
	rehearsal := callOf{method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: w.session("ann"), elevated: token}
	w.expect(w.do(rehearsal), 200, "")
	if _, page := w.admin("/metrics"); !strings.Contains(page,
		`stepward_decisions_total{operation="wallet.export",outcome="would_refuse",reason="elevated_access_token_insufficient_scope"} 1`) {
		t.Error("the rehearsal was not counted")
	}
	if log := w.file("decisions.jsonl"); !strings.Contains(log, `"outcome":"would_refuse"`) {
		t.Errorf("the new decision log has %q", log)
	}
	if !strings.Contains(w.stderr.String(), "mode: shadow") {
		t.Error("nobody was warned of the shadow")
	}
}

// Whoever wants to spend without a word in the log does not spend.
func TestADecisionLogThatFailsRefuses(t *testing.T) {
	w := newWorld(t)
	w.start("decision_log: {to: /dev/full, blocking: true}") // a file of Linux that every write to fails
	token := w.elevated("ann", "wallet:export")
	path := w.wallet("ann")
	got := w.do(callOf{method: "POST", path: path, session: w.session("ann"), elevated: token})
	w.expect(got, 503, "decision_log_unavailable")
	if w.backend.Executions(path) != 0 || got.TokenState != "unused" || got.Header.Get("Retry-After") == "" {
		t.Errorf("got token_state %q, Retry-After %q", got.TokenState, got.Header.Get("Retry-After"))
	}
}

func TestNothingIsLeftBehindByAStartThatFails(t *testing.T) {
	taken := must(net.Listen("tcp", "127.0.0.1:0"))
	defer taken.Close()
	w := newWorld(t)
	_, err := w.build("listen: "+taken.Addr().String(), "ledger: bolt:new.db")
	if err == nil || !strings.Contains(err.Error(), "listen: "+taken.Addr().String()) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
	w.write("not-a-ledger.db", strings.Repeat("x", 8192))
	_, err = w.build("ledger: bolt:not-a-ledger.db")
	if err == nil || !strings.Contains(err.Error(), "not-a-ledger.db") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"new.db", "decisions.jsonl"} {
		if _, err := os.Stat(filepath.Join(w.dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}
