package main

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// tortureRounds is how often a test kills Stepward: enough to see that it works on a developer's machine, 200 times where
// all real parts must be there (test/run), and what make torture asks for.
func tortureRounds(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("STEPWARD_TORTURE_ROUNDS"); text != "" {
		return must(strconv.Atoi(text))
	}
	if os.Getenv("STEPWARD_REAL_PARTS") != "" {
		return 200
	}
	return 10
}

// ledgers start a real server where one is needed and return the lines of a configuration that name it, with more options.
var ledgers = map[string]func(w *world, options string) []string{
	"bolt": func(_ *world, options string) []string {
		return []string{"ledger: bolt:ledger.db", "ledger_options: {" + options + "}"}
	},
	"redis": func(w *world, options string) []string { return redisLedger(testkit.StartRedis(w.t).Addr, options) },
	"postgres": func(w *world, options string) []string {
		return postgresLedger(w, testkit.StartPostgres(w.t), options)
	},
}

func redisLedger(address, options string) []string {
	return []string{"ledger: redis://" + address, "ledger_options: {" + options + "}"}
}

func postgresLedger(w *world, server *testkit.Postgres, options string) []string {
	u := must(url.Parse(server.URL))
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	return []string{
		"ledger: " + u.String(), "ledger_options: {password_file: " + w.write("postgres-password", password+"\n") + ", " + options + "}",
	}
}

// slow gives a ledger on a busy test machine the time that it needs.
const slow = "reserve_timeout: 5s"

func (p *program) do(c callOf) answer {
	p.w.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(p.request(c))
	if err != nil {
		p.w.t.Fatal(err)
	}
	return p.w.read(res)
}

// passFence waits until a ledger that has just been made, or has forgotten, believes fresh tokens.
func (p *program) passFence() {
	p.w.t.Helper()
	p.w.eventually("the ledger believes fresh tokens", func() bool { return p.do(p.w.export("eve")).Status == http.StatusOK })
}

// fence is the metric's line.
func (p *program) fence() string {
	p.w.t.Helper()
	res, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.w.t.Fatal(err)
	}
	defer res.Body.Close()
	for line := range strings.Lines(string(must(io.ReadAll(res.Body)))) {
		if strings.HasPrefix(line, "stepward_ledger_fence_timestamp_seconds ") {
			return line
		}
	}
	p.w.t.Fatal("there is no metric of the fence")
	return ""
}

// Two Stepwards share a ledger and 64 requests share a token: the backend sees one, a hundred times over.
func TestAFleetSpendsATokenOnce(t *testing.T) {
	for _, name := range []string{"redis", "postgres"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			lines := append(ledgers[name](w, slow), "leeway: 0s")
			fleet := []*program{w.program(lines...), w.program(lines...)}
			fleet[0].passFence()
			for round := range 100 {
				export := w.export("ann")
				var passed atomic.Int64
				var wg sync.WaitGroup
				for i := range 64 {
					r := fleet[i%2].request(export)
					wg.Go(func() {
						res, err := http.DefaultTransport.RoundTrip(r)
						if err != nil {
							t.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
						switch res.StatusCode {
						case http.StatusOK:
							passed.Add(1)
						case http.StatusForbidden:
						default:
							t.Errorf("got %s", res.Status)
						}
					})
				}
				wg.Wait()
				if n := w.backend.Executions(export.path); n != 1 || passed.Load() != 1 {
					t.Fatalf("round %d: %d passed and the backend saw %d, want 1 and 1", round, passed.Load(), n)
				}
			}
		})
	}
}

// arrivals is a backend that counts requests by path before it answers, and answers only while it is told to.
type arrivals struct {
	http.Handler
	mu     sync.Mutex
	count  map[string]int
	stall  atomic.Bool
	arrive chan struct{}
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		a.Handler.ServeHTTP(w, r)
		return
	}
	a.mu.Lock()
	a.count[r.URL.Path]++
	a.mu.Unlock()
	if a.stall.Load() {
		_, _ = io.Copy(io.Discard, r.Body) // only then net/http watches the connection
		a.arrive <- struct{}{}
		<-r.Context().Done() // whoever sent it is dead
	}
}

func (a *arrivals) of(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[path]
}

// Stepward is killed while requests hold reservations, again and again: no token reaches the backend twice, and every
// successor starts on what its predecessor left.
func TestKillsNeverSpendATokenTwice(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "stepward") // hundreds of starts: without the race detector each takes a tenth
	if out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"bolt", "redis"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.exe = exe
			seen := &arrivals{Handler: w.backend.Handler(), count: map[string]int{}, arrive: make(chan struct{}, 1)}
			upstream := httptest.NewServer(seen)
			defer upstream.Close()
			lines := append(ledgers[name](w, slow), "leeway: 0s", "upstream: "+upstream.URL, "decision_log: {to: 'off'}")
			p := w.program(lines...)
			p.passFence()
			rounds, spent := tortureRounds(t), 0
			for round := range rounds {
				export := w.export("ann")
				seen.stall.Store(true)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					if res, err := http.DefaultTransport.RoundTrip(p.request(export)); err == nil {
						res.Body.Close()
					}
				}()
				if round%2 == 0 {
					<-seen.arrive // the reservation is held
				} else {
					time.Sleep(time.Duration(rand.Int64N(int64(8 * time.Millisecond)))) // wherever it is by then
				}
				p.signal(syscall.SIGKILL)
				<-p.ended
				<-sent
				select {
				case <-seen.arrive:
				default:
				}
				seen.stall.Store(false)
				before := seen.of(export.path)
				spent += before

				p = w.program(lines...)
				res := p.do(export)
				if after := seen.of(export.path); after > 1 || before == 1 && res.Code != "elevated_access_token_consumed" {
					t.Fatalf("round %d: the backend saw the token %d times, %d of them before the kill; the successor said %d %s", round, after, before, res.Status, res.Code)
				}
			}
			t.Logf("%d kills, %d of them with a request at the backend", rounds, spent)
		})
	}
}

// What happens to Redis refuses tokens, and spends none twice.
func TestWhenRedisFails(t *testing.T) {
	w := newWorld(t)
	redis := testkit.StartRedis(t)
	wire := ledgertest.NewWire(t, "tcp", redis.Addr)
	p := w.program(append(redisLedger(wire.Address(), "reserve_timeout: 200ms"), "leeway: 0s")...)
	p.passFence()

	spend := func() callOf {
		t.Helper()
		export := w.export("ann")
		w.expect(p.do(export), 200, "")
		return export
	}
	// refused: now, and once the ledger grants again, the token of before is not granted a second time.
	refused := func(what string, spent callOf) {
		t.Helper()
		if a := p.do(spent); a.Status == http.StatusOK {
			t.Errorf("%s: a spent token passed", what)
		}
		p.passFence()
		w.expect(p.do(spent), 403, "elevated_access_token_required")
		if n := w.backend.Executions(spent.path); n != 1 {
			t.Errorf("%s: the backend saw %d, want 1", what, n)
		}
	}
	unavailable := func(what string) callOf {
		t.Helper()
		export := w.export("ann")
		a := p.do(export)
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.HasPrefix(a.Code, "consumption_") {
			t.Errorf("%s: got %d %s, Retry-After %q", what, a.Status, a.Code, a.Header.Get("Retry-After"))
		}
		return export
	}

	spent := spend()
	redis.Stop()
	unavailable("stopped")
	redis.Cont()
	w.eventually("a stopped server that goes on is found again", func() bool { return p.do(w.export("eve")).Status == http.StatusOK })
	w.expect(p.do(spent), 403, "elevated_access_token_consumed")

	redis.Kill()
	unavailable("killed")
	redis.Restart(true)
	wire.Lead("tcp", redis.Addr)
	refused("restarted with its data", spent)

	spent = spend()
	redis.Kill()
	redis.Restart(false)
	wire.Lead("tcp", redis.Addr)
	refused("restarted empty", spent)

	spent = spend()
	redis.Do("FLUSHALL")
	refused("flushed", spent)

	replica := testkit.StartRedis(t)
	host, port, _ := strings.Cut(redis.Addr, ":")
	fence := p.fence()
	replica.Do("REPLICAOF", host, port)
	w.eventually("the replica follows", func() bool { return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up") })
	w.eventually("a first replica begins another epoch", func() bool { return p.fence() != fence })
	p.passFence()
	replica.Do("REPLICAOF", "NO", "ONE") // it misses what comes now
	spent = spend()
	wire.Lead("tcp", replica.Addr)
	refused("failed over to a replica that lags behind", spent)

	if n := w.backend.Executions(spent.path); n != 1 {
		t.Errorf("the backend saw %d, want 1", n)
	}
}

// A PostgreSQL that is killed forgets nothing, and one that hangs is not waited for.
func TestWhenPostgresFails(t *testing.T) {
	w := newWorld(t)
	postgres := testkit.StartPostgres(t)
	p := w.program(append(postgresLedger(w, postgres, "reserve_timeout: 500ms"), "leeway: 0s")...)
	p.passFence()
	spent := w.export("ann")
	w.expect(p.do(spent), 200, "")

	for what, fail := range map[string][2]func(){
		"stopped": {postgres.Stop, postgres.Cont},
		"killed":  {postgres.Kill, postgres.Restart},
	} {
		fail[0]()
		a := p.do(w.export("ann"))
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d %s", what, a.Status, a.Body)
		}
		if a := p.do(spent); a.Status == http.StatusOK {
			t.Errorf("%s: a spent token passed", what)
		}
		fail[1]()
		p.passFence()
		w.expect(p.do(spent), 403, "elevated_access_token_consumed")
	}
	if n := w.backend.Executions(spent.path); n != 1 {
		t.Errorf("the backend saw %d, want 1", n)
	}
}

// A backend that refuses connections leaves the token good; one that dies after it has read the request has spent it.
func TestABackendThatDies(t *testing.T) {
	for name, lines := range ledgers {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			seen := &arrivals{Handler: w.backend.Handler(), count: map[string]int{}, arrive: make(chan struct{}, 1)}
			upstream := httptest.NewUnstartedServer(seen)
			address := upstream.Listener.Addr().String()
			upstream.Listener.Close()
			p := w.program(append(lines(w, slow), "leeway: 0s", "upstream: http://"+address)...)
			p.w.eventually("the ledger believes fresh tokens", func() bool {
				return p.do(p.w.export("eve")).Code == "upstream_unreachable"
			})
			export := w.export("ann")
			a := p.do(export)
			w.expect(a, 502, "upstream_unreachable")
			if a.TokenState != "unused" {
				t.Errorf("the token is %q, want unused", a.TokenState)
			}

			upstream.Listener = listenOn(t, address)
			upstream.Start()
			defer upstream.Close()
			seen.stall.Store(true)
			answered := make(chan answer)
			go func() {
				res, err := http.DefaultTransport.RoundTrip(p.request(export))
				if err != nil {
					close(answered)
					return
				}
				answered <- w.read(res)
			}()
			<-seen.arrive
			upstream.CloseClientConnections()
			a = <-answered
			w.expect(a, 502, "upstream_unknown_outcome")
			seen.stall.Store(false)
			w.expect(p.do(export), 403, "elevated_access_token_consumed")
			if n := seen.of(export.path); n != 1 {
				t.Errorf("the backend saw %d, want 1", n)
			}
		})
	}
}

// The policy may name answers that mean "not done": the token that got one is good again before the client has the answer.
func TestATokenIsGivenBackForAGovernedAnswer(t *testing.T) {
	for name, lines := range ledgers {
		t.Run(name, func(t *testing.T) {
			var status atomic.Int64
			status.Store(http.StatusAccepted)
			upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(int(status.Load()))
			}))
			defer upstream.Close()
			w := newWorld(t)
			p := w.program(append(lines(w, slow), "leeway: 0s", "upstream: "+upstream.URL)...)
			call := func() callOf {
				return callOf{
					method: "POST", path: w.issuer.Prefix() + "/businessAccounts/b-1/transferOwnership", session: w.session("ann"),
					elevated: w.elevated("ann", "business_account:transfer_ownership"),
				}
			}
			w.eventually("the ledger believes fresh tokens", func() bool { return p.do(call()).Status == http.StatusAccepted })
			transfer := call()
			for range 3 { // governed: ask again with the same token
				w.expect(p.do(transfer), 202, "")
			}
			status.Store(http.StatusOK)
			w.expect(p.do(transfer), 200, "")
			w.expect(p.do(transfer), 403, "elevated_access_token_consumed")
		})
	}
}

// The ledger verb tells of a server while Stepwards use it, and of a file once they do not.
func TestTheLedgerVerb(t *testing.T) {
	for name, lines := range ledgers {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start(append(lines(w, slow), "leeway: 0s", "log: {level: error}")...)
			w.passFence()
			w.expect(w.do(w.export("ann")), 200, "")
			verb := func(action string) (string, int) {
				var out, talk buffer
				code := run([]string{"ledger", action, "--config", filepath.Join(w.dir, "stepward.yaml")}, &out, &talk)
				return out.String() + talk.String(), code
			}
			if name == "bolt" {
				if said, code := verb("stats"); code != exitFailure || !strings.Contains(said, "is in use by process "+strconv.Itoa(os.Getpid())) {
					t.Errorf("stats of a file in use: exit %d, %s", code, said)
				}
				w.stop()
				if said, code := verb("compact"); code != exitOK || !strings.Contains(said, "ledger.db: ") {
					t.Errorf("compact: exit %d, %s", code, said)
				}
			}
			if said, code := verb("stats"); code != exitOK || !strings.Contains(said, "tokens remembered ") {
				t.Errorf("stats: exit %d, %s", code, said)
			}
			if said, code := verb("verify"); code != exitOK || !strings.Contains(said, name) && !strings.Contains(said, "whole, ") {
				t.Errorf("verify: exit %d, %s", code, said)
			}
		})
	}
}
