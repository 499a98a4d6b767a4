package policy_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

// demand is a rule that shows what an environment came to.
const demand = `package stepward

environment := object.union(data.stepward.environments["default"], object.get(data.stepward.environments, input.environment.id, {}))

requirement := {
	"operation": input.operation, "session": false, "minimum_api_version": environment.minimum_api_version,
	"methods": [json.marshal(environment)],
}
`

const demandData = `routes: {GET /a: {operation: a}}
operations:
  a: {scopes: [s], token: single_use, max_age: 300, mfa_action: act}
  b: {scopes: [s], token: single_use, max_age: 300, mfa_action: act}
  c: {mfa_action: other}
environments:
  default: {minimum_api_version: "2026_04_01", max_age: {a: 60}, locked: true}
`

func synced(t *testing.T, data string, all map[string]policy.Synced) *policy.Engine {
	t.Helper()
	e, err := policy.New(context.Background(), policy.Config{FS: files(demand, data), EvalTimeout: time.Minute, Synced: all})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// environment is an environment as the rules see it.
func environment(t *testing.T, e *policy.Engine, id string) string {
	t.Helper()
	var m policy.Match
	e.Snapshot().Match("GET", "/a", &m)
	q, err := e.Snapshot().Require(context.Background(), &policy.Input{Match: &m, Environment: id})
	if err != nil {
		t.Fatal(err)
	}
	return q.Methods[0]
}

func TestSyncedLiesUnderTheDataAndOverTheDefault(t *testing.T) {
	yes, no := true, false
	act := func(edit func(*policy.SyncedAction)) []policy.SyncedAction {
		a := policy.SyncedAction{Name: "act", Required: true}
		edit(&a)
		return []policy.SyncedAction{a}
	}
	for _, row := range []struct {
		name, local string
		synced      policy.Synced
		want        string
	}{
		{"nothing said", "", policy.Synced{}, `{"locked":true,"max_age":{"a":60},"minimum_api_version":"2026_04_01"}`},
		{"over the default", "", policy.Synced{MinimumAPIVersion: "2026_01_01", DeviceRegistration: &no, DeviceCookie: &yes, Actions: act(func(a *policy.SyncedAction) {
			a.Token, a.MaxAge = policy.TimeBound, 10*time.Minute
		})}, `{"device_cookie":true,"device_registration":false,"locked":true,"max_age":{"a":600,"b":600},"mfa_actions":["act"],` +
			`"minimum_api_version":"2026_01_01","token":{"a":"time_bound","b":"time_bound"}}`},
		{"what is not said of an action stays", "", policy.Synced{Actions: act(func(*policy.SyncedAction) {})},
			`{"locked":true,"max_age":{"a":60},"mfa_actions":["act"],"minimum_api_version":"2026_04_01"}`},
		{"no action is required", "", policy.Synced{Actions: []policy.SyncedAction{}},
			`{"locked":true,"max_age":{"a":60},"mfa_actions":[],"minimum_api_version":"2026_04_01"}`},
		{"more than a day is a day", "", policy.Synced{Actions: act(func(a *policy.SyncedAction) { a.MaxAge = 1000 * time.Hour })},
			`{"locked":true,"max_age":{"a":86400,"b":86400},"mfa_actions":["act"],"minimum_api_version":"2026_04_01"}`},
		{"the operator is stricter", `{minimum_api_version: "2026_05_01", mfa_actions: [act, other], max_age: {a: 30}, device_registration: true, token: {b: single_use}}`,
			policy.Synced{MinimumAPIVersion: "2026_01_01", DeviceRegistration: &no, Actions: act(func(a *policy.SyncedAction) {
				a.Required, a.Token, a.MaxAge = false, policy.TimeBound, time.Minute
			})}, `{"device_registration":true,"locked":true,"max_age":{"a":30,"b":60},"mfa_actions":["act","other"],"minimum_api_version":"2026_05_01",` +
				`"token":{"a":"time_bound","b":"single_use"}}`},
		{"the operator is looser", `{minimum_api_version: "2026-01-01", mfa_actions: [], locked: false}`,
			policy.Synced{MinimumAPIVersion: "2026_04_01", Locked: true, Actions: act(func(*policy.SyncedAction) {})},
			`{"locked":false,"max_age":{"a":60},"mfa_actions":[],"minimum_api_version":"2026-01-01"}`},
	} {
		data := demandData
		if row.local != "" {
			data += "  e: " + row.local + "\n"
		}
		e := synced(t, data, map[string]policy.Synced{"e": row.synced})
		if got := environment(t, e, "e"); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
		if got, want := environment(t, e, "f"), `{"locked":true,"max_age":{"a":60},"minimum_api_version":"2026_04_01"}`; got != want {
			t.Errorf("%s: another environment got %s", row.name, got)
		}
	}
}

func TestASyncedLockIsSeenByTheGateToo(t *testing.T) {
	e := synced(t, strings.Replace(demandData, "locked: true", "locked: false", 1), map[string]policy.Synced{"e": {Locked: true}})
	if s := e.Snapshot(); !s.Environment("e").Locked || s.Environment("f").Locked || !s.ImitatesEnvironment("E") {
		t.Errorf("got %+v and %+v, imitated %v", s.Environment("e"), s.Environment("f"), s.ImitatesEnvironment("E"))
	}
}

func TestActionsOfNoOperationAreKeptOut(t *testing.T) {
	actions := []policy.SyncedAction{{Name: "new", Required: true, Token: policy.SingleUse}, {Name: "act", Required: true}, {Name: "newer"}}
	e := synced(t, demandData, map[string]policy.Synced{"e": {Actions: actions}, "f": {Actions: actions[:1]}})
	if got := e.Snapshot().UnknownActions(); !slices.Equal(got, []string{"new", "newer"}) {
		t.Errorf("unknown: %q", got)
	}
	if got := environment(t, e, "e"); !strings.Contains(got, `"mfa_actions":["act"]`) {
		t.Error(got)
	}
	// A policy without operations in its data may know what to do.
	e = synced(t, oneRoute+"environments: {default: {minimum_api_version: \"2026_04_01\"}}\n", map[string]policy.Synced{"e": {Actions: actions}})
	if got := environment(t, e, "e"); !strings.Contains(got, `"mfa_actions":["new","act"]`) || len(e.Snapshot().UnknownActions()) > 0 {
		t.Error(got)
	}
}

func TestADataFileWithoutEnvironments(t *testing.T) {
	for _, data := range []string{oneRoute, `{"routes": {"GET /a": {"operation": "a"}}}`} {
		e, err := policy.New(context.Background(), policy.Config{
			FS: files(anyRule, data), Synced: map[string]policy.Synced{"e": {Locked: true}},
		})
		if err != nil || !e.Snapshot().Environment("e").Locked {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestSyncIsTakenWholeOrNotAtAll(t *testing.T) {
	rule := strings.Replace(demand, "requirement := {", "requirement := {\"release_on\": [600 | environment.locked; not environment.device_cookie; input.environment.id == \"e\"],", 1)
	f := newFolder(files(rule, strings.Replace(demandData, "locked: true", "locked: false", 1)))
	reloads := 0
	e, err := policy.New(context.Background(), policy.Config{FS: f, EvalTimeout: time.Minute, OnReload: func(string, error) { reloads++ }})
	if err != nil {
		t.Fatal(err)
	}
	before, yes := e.Snapshot(), true
	good := map[string]policy.Synced{"e": {DeviceCookie: &yes, Locked: true}}
	if err := e.Sync(t.Context(), good); err != nil || e.Snapshot() == before || !e.Snapshot().Environment("e").Locked {
		t.Fatalf("error %v", err)
	}
	after := e.Snapshot()
	if got, want := len(after.Revision()), 16+1+8; got != want || !strings.HasPrefix(after.Revision(), before.Revision()+"+") {
		t.Errorf("revisions %s and %s", before.Revision(), after.Revision())
	}
	same := true
	if err := e.Sync(t.Context(), map[string]policy.Synced{"e": {DeviceCookie: &same, Locked: true}}); err != nil || e.Snapshot() != after {
		t.Errorf("the same again makes a new snapshot; error %v", err)
	}
	// Without the cookie the rule answers what no requirement may say.
	if err := e.Sync(t.Context(), map[string]policy.Synced{"e": {Locked: true}}); err == nil || e.Snapshot() != after {
		t.Errorf("error %v, changed %v", err, e.Snapshot() != after)
	}

	// Files that are being edited keep no floor from rising, and what was synced survives a reload.
	broken := fstest.MapFS{}
	f.Store(&broken)
	if err := e.Reload(t.Context()); err == nil || e.Snapshot() != after {
		t.Errorf("error %v", err)
	}
	if err := e.Sync(t.Context(), map[string]policy.Synced{"e": {DeviceCookie: &yes}}); err != nil || e.Snapshot().Environment("e").Locked {
		t.Errorf("error %v", err)
	}
	mended := files(demand, demandData)
	f.Store(&mended)
	if err := e.Reload(t.Context()); err != nil || !strings.Contains(environment(t, e, "e"), `"device_cookie":true`) {
		t.Errorf("error %v, environment %s", err, environment(t, e, "e"))
	}
	if err := e.Sync(t.Context(), nil); err != nil || strings.Contains(environment(t, e, "e"), "device_cookie") || strings.Contains(e.Snapshot().Revision(), "+") {
		t.Errorf("error %v, environment %s", err, environment(t, e, "e"))
	}
	if reloads != 2 {
		t.Errorf("%d reloads were told", reloads)
	}
	if err := new(policy.Engine).Sync(t.Context(), good); err == nil {
		t.Error("an engine without a policy is synced")
	}
}

// Requests see one policy from their route to their requirement while floors rise and fall under them.
func TestSyncUnderLoad(t *testing.T) {
	e := synced(t, strings.Replace(demandData, "locked: true", "locked: false", 1), map[string]policy.Synced{"e": {MinimumAPIVersion: "2026_01_01"}})
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var m policy.Match
			for !done.Load() {
				snap := e.Snapshot()
				snap.Match("GET", "/a", &m)
				q, err := snap.Require(context.Background(), &policy.Input{Match: &m, Environment: "e"})
				if err != nil {
					t.Error(err)
					return
				}
				// One call of Sync sets both members, so that half of it would show.
				locked := snap.Environment("e").Locked
				if !strings.Contains(q.Methods[0], string(q.MinimumAPIVersion)) || locked != (q.MinimumAPIVersion == "2026_04_01") {
					t.Errorf("locked %v, floor %s, environment %s", locked, q.MinimumAPIVersion, q.Methods[0])
					return
				}
			}
		})
	}
	for n := range 40 {
		data := map[string]policy.Synced{"e": {MinimumAPIVersion: "2026_01_01"}}
		if n%2 == 0 {
			data = map[string]policy.Synced{"e": {MinimumAPIVersion: "2026_04_01", Locked: true}}
		}
		if err := e.Sync(context.Background(), data); err != nil {
			t.Error(err)
		}
		if n%5 == 0 {
			if err := e.Reload(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	done.Store(true)
	wg.Wait()
}

func TestTheShippedPolicyTakesWhateverABackendSays(t *testing.T) {
	yes := true
	all := map[string]policy.Synced{}
	var actions []policy.SyncedAction
	for _, name := range []string{"wallet.waas.sign", "wallet.waas.export", "wallet.waas.offline_recovery_trigger", "wallet.waas.reshare", "wallet.waas.refresh", "user.update"} {
		actions = append(actions, policy.SyncedAction{Name: name, Required: true, Token: policy.TimeBound, MaxAge: time.Hour})
	}
	for _, version := range []apiversion.Version{"2026_01_01", "2026_04_01", "2027_01_01"} {
		all["some "+string(version)] = policy.Synced{MinimumAPIVersion: version}
		all["all "+string(version)] = policy.Synced{
			MinimumAPIVersion: version, Locked: true, DeviceRegistration: &yes, DeviceCookie: &yes, Actions: actions,
		}
	}
	e, err := policy.New(context.Background(), policy.Config{FS: rego.FS, Synced: all})
	if err != nil {
		t.Fatal(err)
	}
	if unknown := e.Snapshot().UnknownActions(); len(unknown) > 0 {
		t.Errorf("no operation knows %q", unknown)
	}
}

// What an action's settings come to in a requirement of the shipped policy.
func TestSyncedActionsBindTheOperationsThatNameThem(t *testing.T) {
	actions := []policy.SyncedAction{{Name: "wallet.waas.sign", Required: true, Token: policy.TimeBound, MaxAge: 10 * time.Minute}}
	e, err := policy.New(context.Background(), policy.Config{FS: rego.FS, EvalTimeout: time.Minute, Synced: map[string]policy.Synced{
		"old": {MinimumAPIVersion: "2026_01_01", Actions: actions}, "new": {MinimumAPIVersion: "2026_04_01", Actions: actions},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(id string) *policy.Requirement {
		var m policy.Match
		e.Snapshot().Match("POST", "/api/v0/sdk/e/waas/w/signMessage", &m)
		q, err := e.Snapshot().Require(context.Background(), &policy.Input{Match: &m, Environment: id, Session: map[string]any{"scope": "user:basic"}})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	if q := ask("old"); q.MFAAction != "wallet.waas.sign" || len(q.Scopes) != 1 || q.MinimumAPIVersion != "2026_01_01" {
		t.Errorf("below the version: %+v", q)
	}
	if q := ask("new"); len(q.Scopes) != 1 || q.Token != policy.TimeBound || q.MaxAge != 10*time.Minute || q.MFAAction != "" {
		t.Errorf("from it on: %+v", q)
	}
	if q := ask("unlisted"); len(q.Scopes) > 0 || q.MFAAction != "" || q.MinimumAPIVersion != "2026_04_01" {
		t.Errorf("elsewhere: %+v", q)
	}
}

// Whatever stands in the file, what is laid under it adds no fault to a file that has none, and hides none.
func FuzzSynced(f *testing.F) {
	f.Add([]byte(demandData), "act")
	f.Add([]byte("routes: {GET /a: {operation: a}}\nenvironments: {e: null}\n"), "act")
	f.Add([]byte("{routes: {GET /a: {operation: a}}, operations: {a: {mfa_action: [x]}, b: *c}, environments: []}"), "x")
	f.Add([]byte(oneRoute+"environments: {e: {token: {a: single_use}, max_age: 3}, e: {}}\n"), "")
	yes := true
	f.Fuzz(func(t *testing.T, text []byte, action string) {
		before := policy.DataWith(text, nil)
		after := policy.DataWith(text, map[string]policy.Synced{"e": {
			MinimumAPIVersion: "2026_01_01", Locked: true, DeviceRegistration: &yes, DeviceCookie: &yes,
			Actions: []policy.SyncedAction{{Name: action, Required: true, Token: policy.SingleUse, MaxAge: time.Minute}},
		}})
		if len(before) == 0 && len(after) > 0 {
			t.Errorf("faults of what was synced:\n%v", after)
		}
		if len(before) > 0 && len(after) == 0 {
			t.Errorf("hidden:\n%v", before)
		}
	})
}
