package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/examples/issuer"
)

// console is where an environment's owner changes its settings: a server that answers what a test says.
type console struct {
	*httptest.Server
	answer atomic.Pointer[string] // nil is a backend that fails
}

func newConsole(t *testing.T, text string) *console {
	t.Helper()
	c := &console{}
	c.says(text)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := c.answer.Load()
		if text == nil || r.URL.Path != "/api/v0/sdk/"+testEnvironment+"/settings" {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, *text)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *console) says(text string) { c.answer.Store(&text) }

func (c *console) fails() { c.answer.Store(nil) }

// section is the configuration that follows this console; more are members of environment.settings.
func (c *console) section(more ...string) string {
	members := append([]string{
		"url: '" + c.URL + "/api/v0/sdk/{environmentId}/settings'", "environments: [" + testEnvironment + "]", "cache_file: settings.json", "every: 1h",
	}, more...)
	return "environment: {settings: {" + strings.Join(members, ", ") + "}}"
}

// minimum is what a backend says of an environment with that minimum and more members of its security.
func minimum(version string, security ...string) string {
	return fmt.Sprintf(`{"sdk": {"minApiVersion": %q}, "security": {%s}}`, version, strings.Join(security, ", "))
}

const exportNeedsMFA = `"mfa": {"actions": [{"action": "wallet.waas.export", "required": true}, {"action": "wallet.waas.teleport", "required": true}]}`

// oldExport is the call of an app that knows nothing of step-up.
func (w *world) oldExport(user string) callOf {
	c := w.export(user)
	c.elevated = ""
	return c
}

// poll is what SIGHUP does.
func (w *world) poll() { w.service.settings.Poll(w.t.Context()) }

func (w *world) metric(line string) {
	w.t.Helper()
	if _, page := w.admin("/metrics"); !strings.Contains(page, line) {
		w.t.Errorf("missing in /metrics: %s", line)
	}
}

func TestARaisedFloorHoldsFromTheNextRequest(t *testing.T) {
	w := newWorld(t)
	c := newConsole(t, minimum("2026_01_01"))
	w.start(c.section(), fmt.Sprintf("mfa: {issuer: app.dynamicauth.com/%s, audience: %s, jwks_url: %s%s/.well-known/jwks, algorithms: [ES256]}",
		testEnvironment, testAudience, w.origin.URL, w.issuer.Prefix()))
	export := w.oldExport("ann")
	w.expect(w.do(export), 200, "") // the old behaviour, also with the default being the newest
	revision := w.service.policy.Snapshot().Revision()

	c.says(minimum("2026_01_01", exportNeedsMFA))
	w.poll()
	w.expect(w.do(export), 403, "mfa_token_required")
	c.says(minimum("2026_04_01", strings.Replace(exportNeedsMFA, "true}", `true, "tokenExpirySeconds": 601}`, 1)))
	w.poll()
	w.expect(w.do(export), 403, "elevated_access_token_required")
	export.elevated = w.elevated("ann", "wallet:export")
	w.expect(w.do(export), 200, "")

	if now := w.service.policy.Snapshot().Revision(); now == revision || !strings.Contains(w.file("decisions.jsonl"), now) {
		t.Errorf("the revision stays %s", now)
	}
	log := w.stderr.String()
	if !strings.Contains(log, "environment="+testEnvironment+" from=2026_01_01 to=2026_04_01") || strings.Count(log, "wallet.waas.teleport") != 1 ||
		!strings.Contains(log, "action=wallet.waas.export lifetime=10m1s max_lifetime=10m0s") {
		t.Error("the log lacks the change, or what it means")
	}
	w.metric(`stepward_settings_changes_total{kind="raised"} 1`)
	w.metric(`stepward_settings_polls_total{outcome="ok"} 3`)
	w.metric(`stepward_settings_last_success_timestamp_seconds{environment="` + testEnvironment + `"} 1.`)
	if status, page := w.admin("/readyz"); status != 200 || !strings.Contains(page, "minimum API version 2026_04_01, read at") {
		t.Errorf("/readyz: %d %s", status, page)
	}
}

func TestADowngradeIsRefusedAlsoAfterARestart(t *testing.T) {
	w := newWorld(t)
	c := newConsole(t, minimum("2026_04_01"))
	w.start(c.section())
	export := w.oldExport("ann")
	w.expect(w.do(export), 403, "elevated_access_token_required")
	refused := func() {
		t.Helper()
		w.expect(w.do(export), 403, "elevated_access_token_required")
		w.metric(`stepward_settings_changes_total{kind="downgrade_refused"} 1`)
		status, page := w.admin("/readyz")
		if status != 200 || !strings.Contains(page, "is below the last known 2026_04_01") {
			t.Errorf("/readyz: %d %s", status, page)
		}
	}
	c.says(minimum("2026_01_01"))
	w.poll()
	refused()
	w.stop()
	w.start(c.section())
	refused()
	w.stop()
	if problems := checkSettings(t.Context(), must(config.Load(w.config(c.section()), config.LoadOptions{}))); len(problems) != 1 ||
		!strings.Contains(problems[0], "is below the last known 2026_04_01") {
		t.Errorf("check says %q", problems)
	}

	w.start(c.section("dangerously_allow_downgrade: [" + testEnvironment + "]"))
	w.expect(w.do(export), 200, "")
	w.metric(`stepward_settings_changes_total{kind="lowered"} 1`)
}

func TestALocalWordWinsBothWays(t *testing.T) {
	for _, row := range []struct {
		name, local, backend string
		status               int
		code                 string
	}{
		{"stricter than the backend", `{minimum_api_version: "2026_04_01"}`, "2026_01_01", 403, "elevated_access_token_required"},
		{"looser than the backend", `{minimum_api_version: "2026_01_01"}`, "2026_04_01", 200, ""},
		{"about something else", `{mode: enforce}`, "2026_01_01", 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			w.copyPolicy(func(data string) string {
				return strings.Replace(data, "environments:\n", "environments:\n  \""+testEnvironment+"\": "+row.local+"\n", 1)
			})
			c := newConsole(t, minimum(row.backend))
			w.start(c.section(), "policy: {path: policy, watch_interval: 0s}")
			w.expect(w.do(w.oldExport("ann")), row.status, row.code)
		})
	}
}

func TestABackendThatIsDownKeepsItsFloor(t *testing.T) {
	w := newWorld(t)
	c := newConsole(t, minimum("2026_01_01"))
	w.start(c.section())
	export := w.oldExport("ann")
	for _, fail := range []func(){c.fails, func() { c.says("<html>") }, func() { c.says(minimum("soon")) }, c.Close} {
		fail()
		w.poll()
		w.expect(w.do(export), 200, "")
		if status, page := w.admin("/readyz"); status != 200 || !strings.Contains(page, "what was known stays in force") {
			t.Errorf("/readyz: %d %s", status, page)
		}
	}
	w.stop()
	w.start(c.section()) // from the cache
	w.expect(w.do(export), 200, "")
	w.stop()
	if err := os.Remove(w.dir + "/settings.json"); err != nil {
		t.Fatal(err)
	}
	w.start(c.section()) // nobody knows, so the newest
	w.expect(w.do(export), 403, "elevated_access_token_required")
}

func TestALockedEnvironment(t *testing.T) {
	w := newWorld(t)
	c := newConsole(t, minimum("2026_04_01", `"environmentLocked": true`))
	w.start(c.section())
	users := callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann")}
	w.expect(w.do(users), 403, "environment_locked")
	c.says(minimum("2026_04_01", `"environmentLocked": false`))
	w.poll()
	w.expect(w.do(users), 200, "")
	w.metric(`stepward_settings_changes_total{kind="loosened"} 1`)
}

// The example backend is asked itself, on the address that requests go to, and a signal asks again.
func TestSettingsOfTheBackendItself(t *testing.T) {
	w := newWorldOf(t, issuer.Config{Audience: testAudience, Algorithm: "ES256", MinimumAPIVersion: "2026_01_01"})
	section := "environment: {fixed: '" + testEnvironment + "', settings: {url: '/api/v0/sdk/{environmentId}/settings', cache_file: settings.json, every: 1h}}"
	if problems := checkSettings(t.Context(), must(config.Load(w.config(section), config.LoadOptions{}))); len(problems) > 0 {
		t.Errorf("check says %q", problems)
	}
	p := w.program(section)
	export := w.oldExport("ann")
	call := func() int {
		r := p.request(export)
		r.Header.Set("Authorization", "Bearer "+export.session)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := call(); got != 200 {
		t.Errorf("below the floor: %d", got)
	}
	origin := w.origin.Config.Handler
	w.origin.Config.Handler = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/settings") {
			fmt.Fprint(out, minimum("2026_04_01"))
			return
		}
		origin.ServeHTTP(out, r)
	})
	p.signal(syscall.SIGHUP)
	w.eventually("the floor is raised", func() bool { return call() == 403 })
}

// While floors move, every request is judged by one of the two policies, and none by half of one.
func TestSettingsChangeUnderLoad(t *testing.T) {
	w := newWorld(t)
	c := newConsole(t, minimum("2026_01_01"))
	w.start(c.section("dangerously_allow_downgrade: [" + testEnvironment + "]"))
	var done atomic.Bool
	var wg sync.WaitGroup
	requests := make([]callOf, 4)
	for i := range requests {
		requests[i] = w.oldExport(fmt.Sprint("user", i))
	}
	for _, export := range requests {
		wg.Go(func() {
			for !done.Load() {
				res, err := http.DefaultTransport.RoundTrip(w.request(export))
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusForbidden {
					t.Errorf("status %d", res.StatusCode)
				}
			}
		})
	}
	for n := range 10 {
		c.says(minimum([]string{"2026_04_01", "2026_01_01"}[n%2]))
		w.poll()
	}
	done.Store(true)
	wg.Wait()
	w.metric(`stepward_settings_changes_total{kind="raised"} 5`)
}

func TestAStartWaitsForTheFirstAnswers(t *testing.T) {
	w := newWorld(t)
	held := make(chan bool)
	slow := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		<-held
		fmt.Fprint(out, minimum("2026_01_01"))
	}))
	defer slow.Close()
	w.service = must(w.build((&console{Server: slow}).section()))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.service.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	w.eventually("the keys are there", func() bool {
		_, page := w.admin("/readyz")
		return strings.Contains(page, "read at")
	})
	if status, page := w.admin("/readyz"); status != 503 || !strings.Contains(page, "not read yet") || strings.Contains(w.stderr.String(), "msg=ready") {
		t.Errorf("/readyz: %d %s", status, page)
	}
	close(held)
	w.eventually("ready", func() bool { return strings.Contains(w.stderr.String(), "msg=ready") })
	w.expect(w.do(w.oldExport("ann")), 200, "")
}

func TestCheckSaysWhatIsWrongWithSettings(t *testing.T) {
	w := newWorld(t)
	c := newConsole(t, minimum("2026_01_01"))
	c.fails()
	load := func() *config.Config { return must(config.Load(w.config(c.section()), config.LoadOptions{})) }
	if got := checkSettings(t.Context(), load()); len(got) != 1 || !strings.Contains(got[0], "status 503, want 200; check environment.settings") {
		t.Errorf("got %q", got)
	}
	w.write("settings.json", "{")
	if got := checkSettings(t.Context(), load()); len(got) != 1 || !strings.Contains(got[0], "settings.json: is not a cache") {
		t.Errorf("got %q", got)
	}
	if _, err := w.build(c.section()); err == nil || !strings.Contains(err.Error(), "is not a cache") {
		t.Errorf("it starts with a broken cache: %v", err)
	}
}
