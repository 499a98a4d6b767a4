package settings_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/settings"
)

// rig is a backend whose answers a test sets, and a poller of it.
type rig struct {
	t      *testing.T
	server *httptest.Server
	cfg    settings.Config
	poller *settings.Poller

	mu       sync.Mutex
	answers  map[string]http.HandlerFunc // by path
	inForce  map[string]*settings.Settings
	applied  int
	rejects  string // the minimum that Apply does not take
	polls    []string
	changes  []string
	log      bytes.Buffer
	requests []*http.Request
}

func newRig(t *testing.T, edits ...func(*settings.Config)) *rig {
	t.Helper()
	r := &rig{t: t, answers: map[string]http.HandlerFunc{}}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.server.Close)
	r.cfg = settings.Config{
		URL: must(url.Parse(r.server.URL + "/api/v0/sdk/{environmentId}/settings")), Environments: []string{"a"},
		CacheFile: filepath.Join(t.TempDir(), "settings.json"), Timeout: 2 * time.Second, Apply: r.apply, Now: func() time.Time { return time.Unix(1000, 0) },
		Logger: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnPoll: func(w string) { r.polls = append(r.polls, w) }, OnChange: func(w string) { r.changes = append(r.changes, w) },
	}
	for _, edit := range edits {
		edit(&r.cfg)
	}
	r.restart()
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// restart makes the poller anew, as a new process would.
func (r *rig) restart() {
	r.t.Helper()
	p, err := settings.New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.poller, r.inForce, r.changes = p, p.Known(), nil
}

func (r *rig) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req)
	h := r.answers[req.URL.Path]
	r.mu.Unlock()
	if h == nil {
		http.NotFound(w, req)
		return
	}
	h(w, req)
}

// answer sets what the backend says of an environment.
func (r *rig) answer(id string, h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers["/api/v0/sdk/"+id+"/settings"] = h
}

func (r *rig) says(id, text string) {
	r.answer(id, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

func minimum(version string) string {
	return fmt.Sprintf(`{"sdk": {"minApiVersion": %q}, "security": {}}`, version)
}

func (r *rig) apply(_ context.Context, all map[string]*settings.Settings) error {
	r.applied++
	for _, s := range all {
		if string(s.MinimumAPIVersion) == r.rejects {
			return errors.New("environment is not answered")
		}
	}
	r.inForce = maps.Clone(all)
	return nil
}

// poll polls once and returns what the poll came to.
func (r *rig) poll() string {
	r.t.Helper()
	r.polls, r.changes = nil, nil
	r.poller.Poll(r.t.Context())
	return strings.Join(r.polls, " ")
}

func (r *rig) floor(id string) string {
	if r.inForce[id] == nil {
		return ""
	}
	return string(r.inForce[id].MinimumAPIVersion)
}

func (r *rig) expect(poll, wantPoll, wantFloor string, wantChanges ...string) {
	r.t.Helper()
	if poll != wantPoll || r.floor("a") != wantFloor || !slices.Equal(r.changes, wantChanges) {
		r.t.Errorf("poll %q, floor %q, changes %q; want %q, %q, %q", poll, r.floor("a"), r.changes, wantPoll, wantFloor, wantChanges)
	}
}

func TestAFloorRisesAndDoesNotFall(t *testing.T) {
	r := newRig(t)
	r.says("a", minimum("2026_01_01"))
	r.expect(r.poll(), "ok", "2026_01_01", "first_seen")
	r.expect(r.poll(), "ok", "2026_01_01")
	if r.applied != 1 {
		t.Errorf("applied %d times, though nothing changed", r.applied)
	}
	r.says("a", minimum("2026_04_01"))
	r.expect(r.poll(), "ok", "2026_04_01", "raised")
	if got := r.log.String(); !strings.Contains(got, `level=INFO msg="minimum API version raised" environment=a from=2026_01_01 to=2026_04_01`) {
		t.Errorf("log:\n%s", got)
	}

	r.says("a", `{"sdk": {}, "security": {"environmentLocked": true}}`)
	r.expect(r.poll(), "refused", "2026_04_01", "downgrade_refused")
	r.expect(r.poll(), "refused", "2026_04_01") // told once
	if got := strings.Count(r.log.String(), "settings refused"); got != 1 {
		t.Errorf("the refusal is logged %d times", got)
	}
	if state := r.poller.States()[0]; state.Settings.Locked || state.Err == nil || !strings.Contains(state.Err.Error(), "dangerously_allow_downgrade") {
		t.Errorf("a refused answer was taken in part: %+v", state)
	}
	r.says("a", minimum("2026_04_01"))
	r.expect(r.poll(), "ok", "2026_04_01")
	r.says("a", minimum("2026_03_31"))
	r.expect(r.poll(), "refused", "2026_04_01", "downgrade_refused") // a new attempt is told
}

func TestTheFloorOutlivesARestart(t *testing.T) {
	r := newRig(t)
	r.says("a", minimum("2026_04_01"))
	r.expect(r.poll(), "ok", "2026_04_01", "first_seen")
	if mode := must(os.Stat(r.cfg.CacheFile)).Mode(); mode != 0o600 {
		t.Errorf("the cache has mode %v", mode)
	}
	r.says("a", minimum("2026_01_01"))
	r.restart()
	r.expect("", "", "2026_04_01") // before anybody is asked
	r.expect(r.poll(), "refused", "2026_04_01", "downgrade_refused")

	r.server.Close()
	r.restart()
	r.expect(r.poll(), "unreachable", "2026_04_01")
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(r.cfg.CacheFile), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAnEnvironmentThatIsNotAskedAboutKeepsItsFloor(t *testing.T) {
	r := newRig(t)
	r.says("a", minimum("2026_04_01"))
	r.says("b", minimum("2026_04_01"))
	r.poll()
	r.cfg.Environments = []string{"b"}
	r.restart()
	r.says("b", minimum("2026_05_01"))
	r.poll()
	r.cfg.Environments = []string{"a", "b"}
	r.restart()
	r.says("a", minimum("2026_01_01"))
	r.expect(r.poll(), "refused ok", "2026_04_01", "downgrade_refused")
}

func TestANamedDowngradeIsTaken(t *testing.T) {
	r := newRig(t, func(c *settings.Config) { c.AllowDowngrade = []string{"a"} })
	r.says("a", minimum("2026_04_01"))
	r.poll()
	r.says("a", minimum("2026_01_01"))
	r.expect(r.poll(), "ok", "2026_01_01", "lowered")
	if !strings.Contains(r.log.String(), "level=WARN msg=\"minimum API version lowered") {
		t.Errorf("log:\n%s", &r.log)
	}
	r.restart()
	r.expect("", "", "2026_01_01")
}

func TestOtherLooseningsAreTakenAndTold(t *testing.T) {
	strict := `{"sdk": {"minApiVersion": "2026_01_01"}, "security": {"environmentLocked": true, "deviceRegistrationRequired": true, "mfa": {"actions": [
		{"action": "gone", "required": true}, {"action": "off", "required": true}, {"action": "use", "required": true, "tokenBehavior": "single_use"},
		{"action": "age", "required": true, "tokenExpirySeconds": 60}, {"action": "same", "required": true}]}}}`
	loose := `{"sdk": {"minApiVersion": "2026_04_01"}, "security": {"mfa": {"actions": [
		{"action": "off", "required": false}, {"action": "use", "required": true, "tokenBehavior": "time_bound"},
		{"action": "age", "required": true, "tokenExpirySeconds": 61}, {"action": "same", "required": true}]}}}`
	r := newRig(t)
	r.says("a", strict)
	r.poll()
	r.says("a", loose)
	r.expect(r.poll(), "ok", "2026_04_01", "raised", "loosened")
	want := `what="[unlocked device registration is not required age accepts older tokens gone is not required off is not required use is not single-use]"`
	if !strings.Contains(r.log.String(), want) {
		t.Errorf("log:\n%s", &r.log)
	}
	r.says("a", strings.Replace(loose, `"required": false`, `"required": true`, 1))
	r.expect(r.poll(), "ok", "2026_04_01", "changed") // stricter
}

func TestABackendThatFailsKeepsTheLastGoodSettings(t *testing.T) {
	r := newRig(t, func(c *settings.Config) { c.Timeout, c.MaxBytes = 200*time.Millisecond, 4096 })
	r.says("elsewhere", minimum("2026_05_01"))
	for _, row := range []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"garbage", "invalid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }},
		{"an error", "status", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, minimum("2026_05_01"), http.StatusInternalServerError)
		}},
		{"no content", "status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }},
		{"a redirect", "status", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/api/v0/sdk/elsewhere/settings", http.StatusFound)
		}},
		{"too much", "invalid", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, minimum("2026_05_01"), strings.Repeat(" ", 4096))
		}},
		{"nothing for too long", "unreachable", func(w http.ResponseWriter, req *http.Request) { <-req.Context().Done() }},
		{"a drop at a time", "unreachable", func(w http.ResponseWriter, req *http.Request) {
			for req.Context().Err() == nil {
				fmt.Fprint(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}},
		{"half of an answer", "unreachable", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, minimum("2026_05_01"))
		}},
		{"a compressed answer", "invalid", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "\x1f\x8b\x08\x00")
		}},
	} {
		r.answer("a", row.handler)
		r.restart()
		r.expect(r.poll(), row.want, "") // nothing is known, and nothing is made up
		r.says("a", minimum("2026_04_01"))
		r.poll()
		r.answer("a", row.handler)
		if got := r.poll(); got != row.want || r.floor("a") != "2026_04_01" || len(r.changes) > 0 {
			t.Errorf("%s: poll %q, floor %q, changes %q", row.name, got, r.floor("a"), r.changes)
		}
		os.Remove(r.cfg.CacheFile)
	}
}

func TestWhatThePolicyDoesNotTakeKeepsNobodyElseBack(t *testing.T) {
	r := newRig(t, func(c *settings.Config) { c.Environments = []string{"a", "b", "c"} })
	for _, id := range r.cfg.Environments {
		r.says(id, minimum("2026_01_01"))
	}
	r.poll()
	r.rejects = "2026_03_01"
	r.says("a", minimum("2026_04_01"))
	r.says("b", minimum("2026_03_01"))
	r.says("c", minimum("2026_04_01"))
	r.expect(r.poll(), "ok not_applied ok", "2026_04_01", "raised", "raised")
	r.expect(r.poll(), "ok not_applied ok", "2026_04_01")
	if r.floor("b") != "2026_01_01" || r.floor("c") != "2026_04_01" || strings.Count(r.log.String(), "level=ERROR") != 1 {
		t.Errorf("floors %q and %q, log:\n%s", r.floor("b"), r.floor("c"), &r.log)
	}
	if strings.Contains(string(must(os.ReadFile(r.cfg.CacheFile))), "2026_03_01") {
		t.Error("the cache has what is not in force")
	}
	r.rejects = ""
	if got := r.poll(); got != "ok ok ok" || r.floor("b") != "2026_03_01" {
		t.Errorf("poll %q, floor %q", got, r.floor("b"))
	}
}

func TestACacheThatCannotBeUnderstoodStopsTheStart(t *testing.T) {
	good := `{"minimum_api_version": "2026_04_01", "actions": [{"name": "a", "required": true, "token": "single_use", "max_age": 60000000000}]}`
	for _, row := range []struct {
		name, text string
		good       bool
	}{
		{"what is written", `{"version": 1, "environments": {"a": ` + good + `}}`, true},
		{"members to come", `{"version": 1, "at": 1, "environments": {"a": {"minimum_api_version": "2026_04_01", "new": 1}}}`, true},
		{"nothing", ``, false},
		{"half of it", `{"version": 1, "environments": {"a": ` + good, false},
		{"another version", `{"version": 2, "environments": {}}`, false},
		{"no environments", `{"version": 1}`, false},
		{"null", `{"version": 1, "environments": {"a": null}}`, false},
		{"no minimum", `{"version": 1, "environments": {"a": {}}}`, false},
		{"a minimum in another spelling", `{"version": 1, "environments": {"a": {"minimum_api_version": "2026-04-01"}}}`, false},
		{"an unknown use", `{"version": 1, "environments": {"a": {"minimum_api_version": "2026_04_01", "actions": [{"name": "a", "token": "x"}]}}}`, false},
	} {
		r := newRig(t)
		if err := os.WriteFile(r.cfg.CacheFile, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := settings.New(r.cfg)
		if (err == nil) != row.good || err != nil && !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	r := newRig(t)
	r.cfg.CacheFile = t.TempDir()
	if _, err := settings.New(r.cfg); err == nil {
		t.Error("a folder is taken for a cache")
	}
}

func TestACacheThatCannotBeWrittenIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	r := newRig(t, func(c *settings.Config) { c.CacheFile = filepath.Join(dir, "settings.json") })
	r.says("a", minimum("2026_04_01"))
	r.expect(r.poll(), "ok", "2026_04_01", "first_seen")
	r.poll()
	if r.poller.CacheError() == nil || strings.Count(r.log.String(), "cannot be kept") != 1 {
		t.Errorf("error %v, log:\n%s", r.poller.CacheError(), &r.log)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.poll()
	if err := r.poller.CacheError(); err != nil || !json.Valid(must(os.ReadFile(r.cfg.CacheFile))) {
		t.Error(err)
	}
}

func TestCheckChangesNothing(t *testing.T) {
	r := newRig(t, func(c *settings.Config) { c.Environments = []string{"a", "b"} })
	r.says("a", minimum("2026_04_01"))
	all, errs := r.poller.Check(t.Context())
	if len(errs) != 1 || errs[0].Error() != "settings of environment b: status 404, want 200" || len(all) != 1 || all["a"] == nil {
		t.Errorf("got %v, %v", all, errs)
	}
	if _, err := os.Stat(r.cfg.CacheFile); err == nil || len(r.poller.Known()) > 0 || r.applied > 0 {
		t.Errorf("known %v, applied %d", r.poller.Known(), r.applied)
	}
}

func TestWhomAPollAsks(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	r := newRig(t, func(c *settings.Config) {
		c.URL = must(url.Parse(c.URL.String() + "?sdkVersion=Stepward%2F1.0.0"))
		c.Environments = []string{"a-B_c.1"}
	})
	r.says("a-B_c.1", minimum("2026_04_01"))
	if got := r.poll(); got != "ok" {
		t.Fatal(got)
	}
	req := r.requests[0]
	if req.RequestURI != "/api/v0/sdk/a-B_c.1/settings?sdkVersion=Stepward%2F1.0.0" || req.Method != http.MethodGet || req.Header.Get("Authorization") != "" {
		t.Errorf("asked %s %s %v", req.Method, req.RequestURI, req.Header)
	}
}

func TestABackendWithACertificateOfItsOwn(t *testing.T) {
	r := newRig(t)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	r.says("a", minimum("2026_04_01"))
	r.cfg.URL = must(url.Parse(secure.URL + r.cfg.URL.Path))
	r.restart()
	r.expect(r.poll(), "unreachable", "") // not one of the system's
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	r.cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	r.restart()
	r.expect(r.poll(), "ok", "2026_04_01", "first_seen")
}

func TestWhereNobodyIsAsked(t *testing.T) {
	r := newRig(t)
	for _, row := range []struct {
		address string
		any     bool
		ids     string
	}{
		{"http://example.com/{environmentId}", false, "a"},
		{"ftp://127.0.0.1/{environmentId}", false, "a"},
		{"https://u:p@example.com/{environmentId}", false, "a"},
		{"https://example.com/settings", true, "a"},
		{"https://example.com/{environmentId}/{environmentId}", true, "a"},
		{"https://example.com/a%2Fb/{environmentId}", true, "a"},
		{"https://example.com/?e={environmentId}", true, "a"},
		{"https://example.com/{environmentId}", false, ""},
		{"https://example.com/{environmentId}", false, ".."},
		{"https://example.com/{environmentId}", false, "a/b"},
		{"https://example.com/{environmentId}", false, "a?b"},
		{"https://example.com/{environmentId}", false, "a%2e"},
	} {
		c := r.cfg
		c.URL, c.AnyAddress, c.Environments = must(url.Parse(row.address)), row.any, []string{row.ids}
		if _, err := settings.New(c); err == nil {
			t.Errorf("taken: %+v", row)
		}
	}
	// The names of other machines may lead anywhere; the dial is where that is seen.
	for address, want := range map[string]string{
		"https://169.254.169.254/{environmentId}": "address is not allowed for settings",
		"https://0.0.0.0/{environmentId}":         "address is not allowed for settings",
	} {
		c := r.cfg
		c.URL = must(url.Parse(address))
		p := must(settings.New(c))
		p.Poll(t.Context())
		if err := p.States()[0].Err; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAnEndedPollSaysNothingOfTheBackend(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.answer("a", func(_ http.ResponseWriter, req *http.Request) { cancel(); <-req.Context().Done() })
	r.poller.Poll(ctx)
	if state := r.poller.States()[0]; state.Err != nil || len(r.polls) > 0 {
		t.Errorf("got %v, %q", state.Err, r.polls)
	}
	select {
	case <-r.poller.First():
		t.Error("the first round has ended")
	default:
	}
}

func TestRunPollsUntilItIsEnded(t *testing.T) {
	asked := make(chan bool, 100)
	r := newRig(t, func(c *settings.Config) { c.Every = 10 * time.Millisecond })
	r.answer("a", func(w http.ResponseWriter, _ *http.Request) { asked <- true; fmt.Fprint(w, minimum("2026_04_01")) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.poller.Run(ctx) })
	for range 3 {
		<-asked
	}
	<-r.poller.First()
	r.poller.Poll(ctx) // beside it, as SIGHUP does
	cancel()
	wg.Wait()
	if r.floor("a") != "2026_04_01" {
		t.Error(r.floor("a"))
	}
}
