package policy_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/policy"
)

var update = flag.Bool("update", false, "write docs/dynamic-coverage.md instead of comparing it")

// The shipped policy beside Dynamic's API: one walk over the endpoints feeds the assertions and the table in docs, so that
// neither can say what the policy does not do.

// openBecause says why an operation asks for a session at most. Routes of which more is known say it in dynamic-rows.tsv.
var openBecause = map[string]string{
	"public":           "the generated client sends no session",
	"session.begin":    "begins a session, so there is none yet",
	"session.callback": "a provider's page sends it, which has no session",
	"session.keep":     "renews, tells or ends a session, one that is no longer good too",
	"user.check":       "a session is enough: nothing is changed",
	"user.read":        "a session is enough: nothing is changed",
	"user.write":       "a session is enough: no step-up is known",
	"wallet.read":      "a session is enough: nothing is changed",
	"wallet.write":     "a session is enough: no step-up is known",
	"mfa.read":         "whoever still owes the second factor must see which ones there are",
	"admin":            "the API of dashboards and API keys asks for no step-up, so it is refused",
}

// sessionless are routes to which the generated client sends a session that the policy does not demand.
var sessionless = map[string]string{
	"GET /sdk/{environmentId}/session":              "the backend says whether it is good",
	"POST /sdk/{environmentId}/refresh":             "an expired session may be renewed",
	"POST /sdk/{environmentId}/revoke":              "an expired session may be ended",
	"POST /sdk/{environmentId}/externalAuth/signin": "signs in",
}

// stricter are routes to which the generated client sends no session although the policy demands one.
var stricter = map[string]string{
	"POST /sdk/{environmentId}/providers/{providerType}/verify":   "links to somebody who is signed in; signIn is the other one",
	"GET /sdk/{environmentId}/waas/keyShares/backup/token":        "hands out a token for key shares",
	"POST /sdk/{environmentId}/users/embeddedWallets/upgradeToV2": "changes a user's wallet",
}

// elsewhere are routes that the newest generated client does not have.
var elsewhere = map[string]string{
	"GET /sdk/{environmentId}/users/passkeys/authenticate":                   "sdk-api 0.0.847",
	"GET /sdk/{environmentId}/users/passkeys/register":                       "sdk-api 0.0.847",
	"POST /sdk/{environmentId}/waas/{walletId}/keyShares/backup":             "sdk-api 0.0.847",
	"POST /sdk/{environmentId}/waas/{walletId}/keyShares/backup/googleDrive": "sdk-api 0.0.847",
	"POST /sdk/{environmentId}/waas/{walletId}/keyShares/backup/location":    "sdk-api 0.0.847",
}

// tsv reads a table of testdata without its comments and its head.
func tsv(t testing.TB, file string) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
		}
	}
	return rows
}

// endpoint is one row of the table.
type endpoint struct {
	method, path string // without the mount
	bearer       bool   // the generated client sends a session
	preflight    bool
	route        *policy.Route
	roles        []role // what the route is; the first is the one of a body that says nothing
	marks        string
	want         string // the demand that dynamic-rows.tsv wants, "" for none
	remark       string
}

func (e endpoint) key() string { return e.method + " " + e.path }

// role is what a route is for one kind of body.
type role struct {
	name                        string // "" for every body that says nothing
	below, actionsBelow         *policy.Requirement
	usual, off, on, withActions *policy.Requirement
}

// bodies are those by which a route is decided.
var bodies = []struct {
	name string
	body any
}{
	{"", nil},
	{"asking", map[string]any{"requestedScopes": []any{"wallet:sign"}}},
	{"for a business account", map[string]any{"businessAccountId": "b"}},
}

// dynamic is the shipped policy with environments of every kind, and all that is known of Dynamic's endpoints.
type dynamic struct {
	snapshot  *policy.Snapshot
	endpoints []endpoint
}

func readDynamic(t *testing.T) *dynamic {
	t.Helper()
	shipped := shippedSnapshot(t, policy.Config{})
	operations, ok := shipped.Plain()["operations"].(map[string]any)
	if !ok {
		t.Fatal("no operations")
	}
	var on, off, actions []string
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		operation, _ := operations[name].(map[string]any)
		off = append(off, name+": false")
		if operation["scopes"] != nil {
			on = append(on, name+": true")
		}
		if action, ok := operation["mfa_action"].(string); ok && !slices.Contains(actions, action) {
			actions = append(actions, action)
		}
	}
	environments := fmt.Sprintf("\nenvironments:\n  below: {minimum_api_version: %q}\n  actionsBelow: {minimum_api_version: %q, mfa_actions: [%s]}\n"+
		"  off: {step_up: {%s}}\n  on: {step_up: {%s}}\n  withActions: {mfa_actions: [%[3]s]}\n",
		"2026_01_01", "2026-01-01", strings.Join(actions, ", "), strings.Join(off, ", "), strings.Join(on, ", "))
	fsys := shippedFiles(t)
	fsys["data.yaml"].Data = bytes.Replace(fsys["data.yaml"].Data, []byte("\nenvironments:\n"), []byte(environments), 1)
	d := &dynamic{snapshot: load(t, fsys)}
	rows := map[string][]string{}
	for _, row := range tsv(t, "dynamic-rows.tsv")[1:] {
		rows[row[0]] = row
	}
	for _, row := range tsv(t, "dynamic-endpoints.tsv")[1:] {
		d.endpoints = append(d.endpoints, d.endpoint(t, row[0], row[1], row[3] == "bearer", rows))
	}
	for _, key := range slices.Sorted(maps.Keys(elsewhere)) {
		method, path, _ := strings.Cut(key, " ")
		d.endpoints = append(d.endpoints, d.endpoint(t, method, path, true, rows))
	}
	for _, r := range d.snapshot.Routes() {
		if r.Operation == "admin" {
			d.endpoints = append(d.endpoints, d.endpoint(t, "", strings.TrimPrefix(r.Pattern, " /api/v0"), false, rows))
		}
	}
	for key := range rows {
		t.Errorf("dynamic-rows.tsv: %s is no endpoint", key)
	}
	return d
}

// endpoint asks the policy about one endpoint, and takes its row.
func (d *dynamic) endpoint(t testing.TB, method, path string, bearer bool, rows map[string][]string) endpoint {
	t.Helper()
	e := endpoint{method: method, path: strings.TrimPrefix(path, "/api/v0"), bearer: bearer, marks: "A", preflight: method == http.MethodOptions}
	if row := rows[e.key()]; row != nil {
		e.marks, e.want, e.remark = row[1], row[2], row[3]
		delete(rows, e.key())
	}
	if e.preflight {
		e.remark = "a preflight passes without credentials"
		return e
	}
	var m policy.Match
	d.snapshot.Match(cmp.Or(method, "POST"), filled("/api/v0"+e.path), &m)
	if e.route = m.Route; e.route == nil {
		return e
	}
	for _, b := range bodies {
		r := role{name: b.name}
		if b.name != "" && e.route.ReadBody == 0 {
			break
		}
		for environment, q := range map[string]**policy.Requirement{
			"below": &r.below, "actionsBelow": &r.actionsBelow, "": &r.usual, "off": &r.off, "on": &r.on, "withActions": &r.withActions,
		} {
			*q = require(t, d.snapshot, &policy.Input{
				Match: &m, Method: method, Body: b.body, Environment: environment, Session: map[string]any{"sub": "a", "scope": "user:basic"},
			})
		}
		if b.name == "" || r.usual.Operation != e.roles[0].usual.Operation {
			e.roles = append(e.roles, r)
		}
	}
	return e
}

// filled is a path of the pattern.
func filled(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "0f9a-" + strings.Trim(s, "{}.")
		}
	}
	return strings.Join(segments, "/")
}

// demand says for which scopes a role asks, and whether an environment has a word in it.
func (r role) demand() string {
	switch {
	case len(r.off.Scopes) > 0:
		return "always " + scopesOf(r.off)
	case len(r.usual.Scopes) > 0:
		return "by default " + scopesOf(r.usual)
	case len(r.on.Scopes) > 0:
		return "optional " + scopesOf(r.on)
	}
	return "none"
}

func (e endpoint) demand() string {
	var parts []string
	for _, r := range e.roles {
		if r.name == "" {
			parts = append(parts, r.demand())
		} else {
			parts = append(parts, r.name+": "+r.demand())
		}
	}
	return strings.Join(parts, "; ")
}

func scopesOf(q *policy.Requirement) string {
	var all []string
	for _, choice := range q.Scopes {
		all = append(all, strings.Join(choice, " or "))
	}
	return strings.Join(all, " and ")
}

// Every operation of Dynamic's newest client is mapped under its own path, or is a preflight; what asks for no more than a
// session says why.
func TestEveryEndpointOfDynamicIsMapped(t *testing.T) {
	d := readDynamic(t)
	if n := len(tsv(t, "dynamic-endpoints.tsv")) - 1; n != 225 {
		t.Errorf("%d endpoints, want 225", n)
	}
	for _, e := range d.endpoints {
		path := filled("/api/v0" + e.path)
		switch {
		case e.preflight:
			var m policy.Match
			if d.snapshot.Match("OPTIONS", path, &m); m.Route != nil || len(m.Allow) == 0 {
				t.Errorf("%s: want routes for other methods only, so that the gate passes the preflight without credentials", e.key())
			}
			continue
		case e.route == nil:
			t.Errorf("%s has no route", e.key())
			continue
		case strings.TrimPrefix(e.route.Pattern, " ") != strings.TrimSpace(e.method+" /api/v0"+e.path):
			t.Errorf("%s is %s", e.key(), e.route.Pattern)
		}
		q := e.roles[0].usual
		if e.want == "" && openBecause[q.Operation] == "" {
			t.Errorf("%s (%s): say in dynamic-rows.tsv or openBecause what it needs and why", e.key(), q.Operation)
		}
		if e.want != "" && e.demand() != e.want {
			t.Errorf("%s: %q, want %q", e.key(), e.demand(), e.want)
		}
		if e.want == "" && e.demand() != "none" {
			t.Errorf("%s: %q without a row in dynamic-rows.tsv", e.key(), e.demand())
		}
		if q.Deny == nil && e.bearer && !q.Session && sessionless[e.key()] == "" {
			t.Errorf("%s: the client sends a session and the policy wants none", e.key())
		}
		if !e.bearer && q.Session && stricter[e.key()] == "" {
			t.Errorf("%s: the client sends no session and the policy wants one", e.key())
		}
	}
}

// Nothing is mapped that nobody knows of.
func TestEveryShippedRouteIsAnEndpoint(t *testing.T) {
	d := readDynamic(t)
	known := map[string]bool{}
	for _, e := range d.endpoints {
		known[strings.TrimSpace(e.method+" /api/v0"+e.path)] = true
	}
	for _, r := range shippedSnapshot(t, policy.Config{}).Routes() {
		if !known[strings.TrimSpace(r.Pattern)] {
			t.Errorf("%s is no endpoint of Dynamic's", r.Pattern)
		}
	}
}

// Below 2026_04_01 no elevated token is asked for anywhere, whatever is switched on; one is only accepted in place of an MFA
// token.
func TestBelowTheVersionNothingNeedsAnElevatedToken(t *testing.T) {
	for _, e := range readDynamic(t).endpoints {
		for _, r := range e.roles {
			if len(r.below.Scopes) > 0 || r.below.MFAAction != "" || len(r.actionsBelow.Scopes) > 0 && r.actionsBelow.MFAAction == "" {
				t.Errorf("%s: %+v and %+v", e.key(), r.below, r.actionsBelow)
			}
			// What was configured carries over.
			if r.actionsBelow.MFAAction != "" && len(r.withActions.Scopes) == 0 && r.withActions.MFAAction == "" {
				t.Errorf("%s: %s is dropped when the version is raised", e.key(), r.actionsBelow.MFAAction)
			}
		}
	}
}

// Spending and lifetimes are Dynamic's defaults (MFASettingsActions): single use and five minutes for wallets, ten minutes for
// the others; transfer_ownership is issued for single use.
func TestUseAndLifetimeAreDynamicsDefaults(t *testing.T) {
	for _, e := range readDynamic(t).endpoints {
		for _, r := range e.roles {
			q := r.on
			if len(q.Scopes) == 0 {
				continue
			}
			use, age := policy.TimeBound, 600*time.Second
			if scope := q.Scopes[0][0]; strings.HasPrefix(scope, "wallet:") || scope == "business_account:transfer_ownership" {
				use, age = policy.SingleUse, 300*time.Second
			}
			if q.Token != use || q.MaxAge != age || len(q.Methods) != 6 {
				t.Errorf("%s: %s for %s by %v, want %s for %s", e.key(), q.Token, q.MaxAge, q.Methods, use, age)
			}
		}
	}
}

// All of Dynamic's scopes: a user's are somewhere asked for and may be requested, the console's neither. A new one is a name
// like every other.
func TestEveryScopeOfDynamic(t *testing.T) {
	d := readDynamic(t)
	demanded := map[string]bool{}
	for _, e := range d.endpoints {
		for _, r := range e.roles {
			for _, choice := range r.on.Scopes {
				for _, scope := range choice {
					demanded[scope] = true
				}
			}
		}
	}
	scopes := tsv(t, "dynamic-scopes.txt")
	if len(scopes) != 34 {
		t.Errorf("%d scopes, want 34", len(scopes))
	}
	for _, row := range append(scopes, []string{"wallet:teleport"}, []string{"a:new:family"}) {
		scope := row[0]
		console := strings.HasPrefix(scope, "console:")
		if known := !slices.Contains([]string{"wallet:teleport", "a:new:family"}, scope); demanded[scope] != (known && !console) {
			t.Errorf("%s: demanded is %v", scope, demanded[scope])
		}
		for path, operation := range map[string]string{
			"users/mfa/auth/totp": "stepup.verify", "users/mfa/auth/passkey": "stepup.verify", "users/mfa/auth/recovery": "stepup.verify",
			"users/mfa/auth/email": "stepup.verify", "wallets/verify": "stepup.verify", "emailVerifications/verify": "stepup.verify",
			"smsVerifications/verify": "stepup.verify", "providers/google/verify": "stepup.verify", "emailVerifications/signin": "session.begin",
			"smsVerifications/signin": "session.begin", "wallets/signin": "session.begin", "verify": "session.begin", "providers/google/signIn": "session.begin",
			"users/passkeys/signin": "session.begin", "verify/link": "credential.link", "verify/transfer": "credential.merge",
		} {
			var m policy.Match
			d.snapshot.Match("POST", "/api/v0/sdk/e/"+path, &m)
			q := require(t, d.snapshot, &policy.Input{Match: &m, Method: "POST", Body: map[string]any{"requestedScopes": []any{"wallet:sign", scope}}})
			if console {
				operation = "stepup.refused"
			}
			if q.Operation != operation || (q.Deny != nil) != console || console && q.Deny.Code != "scope_not_requestable" {
				t.Errorf("%s at %s: %s, %+v", scope, path, q.Operation, q.Deny)
			}
		}
	}
}

// What a lenient backend could take for a route that needs more than a session is refused, or needs as much.
func TestRoutesThatNeedMoreCannotBeReachedByOtherSpellings(t *testing.T) {
	d := readDynamic(t)
	literals := map[string]bool{}
	for _, e := range d.endpoints {
		for _, s := range strings.Split(e.path, "/")[1:] {
			literals[s] = !strings.HasPrefix(s, "{")
		}
	}
	for _, e := range d.endpoints {
		if e.route == nil || e.demand() == "none" && e.roles[0].usual.Deny == nil {
			continue
		}
		method, path := cmp.Or(e.method, "DELETE"), filled("/api/v0"+e.path)
		var m policy.Match
		for _, other := range []string{
			strings.ToUpper(path), strings.ToLower(path), path + "/", strings.Replace(path, "/sdk/", "/SDK/", 1), "/API" + strings.TrimPrefix(path, "/api"),
			strings.Replace(path, "/sdk/", "//sdk/", 1), strings.TrimPrefix(path, "/api/v0"),
		} {
			if d.snapshot.Match(method, other, &m); m.Route != nil && m.Route != e.route {
				t.Errorf("%s %s is %s", method, other, m.Route.Pattern)
			}
		}
		if method == http.MethodGet {
			if d.snapshot.Match(http.MethodHead, path, &m); m.Route != e.route {
				t.Errorf("HEAD %s is %v", path, m.Route)
			}
		}
		// Identifiers that are words of other routes.
		for i, s := range strings.Split(e.path, "/") {
			if !strings.HasPrefix(s, "{") || strings.HasSuffix(s, "...}") {
				continue
			}
			for word, is := range literals {
				segments := strings.Split(filled("/api/v0"+e.path), "/")
				segments[i+2] = word
				if d.snapshot.Match(method, strings.Join(segments, "/"), &m); is && m.Route != nil && m.Route != e.route {
					t.Errorf("%s %s is %s", method, strings.Join(segments, "/"), m.Route.Pattern)
				}
			}
		}
	}
}

// A catch-all, which operators may add, does not open the administration API.
func TestACatchAllDoesNotOpenTheAdministrationAPI(t *testing.T) {
	fsys := shippedFiles(t)
	fsys["data.yaml"].Data = bytes.Replace(fsys["data.yaml"].Data, []byte("\nroutes:\n"), []byte("\nroutes:\n  \"/{rest...}\": {operation: public}\n"), 1)
	s := load(t, fsys)
	for _, path := range []string{
		"/environments/e/users", "/environments/e/origins/o", "/Environments/e/users", "/environments", "/environments/", "/server/e/waas", "/users/u/mfa/reset",
		"/users/u/mfa", "/sessions/s/revoke", "/projects/p", "/organizations/o/members", "/environments/e/waas/w/delegatedAccess/signMessage",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			var m policy.Match
			if s.Match(method, "/api/v0"+path, &m); m.Route == nil {
				continue
			}
			if q := require(t, s, &policy.Input{Match: &m, Method: method, Session: map[string]any{"scope": "user:basic"}}); q.Deny == nil {
				t.Errorf("%s %s is %s", method, path, q.Operation)
			}
		}
	}
	var m policy.Match
	if s.Match("GET", "/api/v0/mine", &m); m.Route == nil {
		t.Error("the catch-all catches nothing")
	}
}

// What is lost or misspelt in a copy of the data is a problem at load, or refuses.
func TestLostDataOpensNothing(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"the lists by another name", "\nrequested_scopes:", "\nrequested_scope:", "requested_scopes: is missing beside by_body"},
		{"the list of refused scopes", `, refuse: ["console:*"]`, "", "requested_scopes.refuse: is missing"},
		{"what the body decides", "\nby_body:", "\nby_bodies:", `add "credential.verify" to operations`},
		{"the other role", "{otherwise: credential.link, ", "{", `by_body["credential.verify"]: has no otherwise`},
		{"a body that is not shown", "auth/totp\": {operation: stepup.request, read_body: 65536}", "auth/totp\": {operation: stepup.request}", "does not show the body that decides stepup.request"},
		{"all operations", "\noperations:", "\nactions:", "requirement.operation: want a name"},
		{"scopes of a demand", "credential.link: {scopes: [\"credential:link\"], ", "credential.link: {", `operations["credential.link"].token: is not right; write scopes beside token`},
		{"the lifetime of a demand", "token: time_bound, max_age: 600, by_default: true}", "token: time_bound, by_default: true}", "requirement.operation: want a name"},
		{"a default by another name", "by_default: true", "by_defaults: true", ".by_defaults: is not a member of an operation"},
		{"the code of a denial", "{code: admin_route, ", "{cod: admin_route, ", `operations["admin"].deny.cod`},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := shippedFiles(t)
			text := string(fsys["data.yaml"].Data)
			changed := strings.Replace(text, c.old, c.new, 1)
			if changed == text {
				t.Fatalf("the data has no %q", c.old)
			}
			fsys["data.yaml"].Data = []byte(changed)
			if got := strings.Join(problems(t, fsys), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got:\n%s\nwant a problem that says %q", got, c.want)
			}
		})
	}
	t.Run("the operation of a refusal", func(t *testing.T) {
		fsys := shippedFiles(t)
		fsys["data.yaml"].Data = bytes.Replace(fsys["data.yaml"].Data, []byte("  stepup.refused:"), []byte("  stepup.refuse:"), 1)
		s := load(t, fsys)
		var m policy.Match
		s.Match("POST", "/api/v0/sdk/e/users/mfa/auth/totp", &m)
		in := &policy.Input{Match: &m, Method: "POST", Body: map[string]any{"requestedScopes": []any{"console:mfa:reset"}}}
		if q, err := s.Require(t.Context(), in); err == nil {
			t.Errorf("asking for a console scope needs %+v", q)
		}
	})
}

const coverageHead = `<!-- Generated from rego/data.yaml and policy/testdata by go generate ./policy. Do not edit. -->
# What the shipped policy asks of Dynamic's API

    make build && ./bin/stepward test

runs the tests of that policy, which is embedded in the program; its files are in ` + "`rego/`" + ` of the source. The tables below are made by
asking it about every operation of Dynamic's newest generated client (%d endpoints; paths stand below the mount, ` + "`/api/v0`" + `), about a few
that only older clients call, and about the administration API. Nothing here was tried on the live service.

- **below** is an environment whose ` + "`minimum_api_version`" + ` is below 2026_04_01, **from** one at it. An MFA token is asked for only where the
  environment lists its action in ` + "`mfa_actions`" + `, and an elevated token is accepted in its place where the cell says *or step-up*; where such an environment is raised to 2026_04_01, what it lists needs step-up.
- *session* is a finished sign-in on a registered device; *session, unfinished too* lets pass who still owes a second factor or a registration.
- *step-up* names the scopes of the elevated token, how it may be used and its greatest age. *Unless off* and *if on* are what an
  environment's ` + "`step_up`" + ` says of the operation: [writing-policy.md](writing-policy.md). Use and age can be set by environment too.
- *202 gives back*: a backend's 202 means "not done yet", and leaves a single-use token good.
- Two rows for one endpoint: the body decides. Every endpoint marked † may ask for an elevated token, and is refused with the code
  ` + "`scope_not_requestable`" + ` when it asks for scopes that ` + "`requested_scopes`" + ` has not.
- Sources: [A] the vendor's shipped code, [B] the vendor's documents, [C] what others report, [D] inferred. Rows that say only [A] and
  need no step-up are so because the generated client names none.
`

// The table is generated by this test, so that no generator ships and none can be forgotten: go generate ./policy.
func TestTheCoverageTableIsFresh(t *testing.T) {
	const file = "../docs/dynamic-coverage.md"
	want := coverage(readDynamic(t))
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale (%v): run go generate ./policy", file, err)
	}
}

func coverage(d *dynamic) []byte {
	var out bytes.Buffer
	n := 0
	for _, e := range d.endpoints {
		if elsewhere[e.key()] == "" && e.method != "" {
			n++
		}
	}
	fmt.Fprintf(&out, coverageHead, n)
	for _, section := range []struct {
		title string
		holds func(e endpoint) bool
	}{
		{"Step-up", func(e endpoint) bool { return e.route != nil && e.demand() != "none" }},
		{"A session", func(e endpoint) bool { return e.route != nil && e.demand() == "none" && e.roles[0].usual.Session }},
		{"Open", func(e endpoint) bool {
			return e.route != nil && !e.roles[0].usual.Session && e.roles[0].usual.Deny == nil
		}},
		{"Refused", func(e endpoint) bool { return e.route != nil && e.roles[0].usual.Deny != nil }},
		{"Preflights", func(e endpoint) bool { return e.preflight }},
	} {
		fmt.Fprintf(&out, "\n## %s\n\n| endpoint | operation | below | from | source | remark |\n| --- | --- | --- | --- | --- | --- |\n", section.title)
		for _, e := range d.endpoints {
			if section.holds(e) {
				e.write(&out)
			}
		}
	}
	return out.Bytes()
}

func (e endpoint) write(out *bytes.Buffer) {
	marks := "[" + strings.ReplaceAll(e.marks, " ", "] [") + "]"
	if e.preflight {
		fmt.Fprintf(out, "| `%s` | | | | %s | %s |\n", e.key(), marks, e.remark)
		return
	}
	for _, r := range e.roles {
		name, remark := "`"+strings.TrimSpace(e.key())+"`", cmp.Or(e.remark, openBecause[r.usual.Operation])
		if e.route.ReadBody > 0 && r.name != "for a business account" {
			name += " †"
		}
		if r.name != "" {
			name += " " + r.name
		}
		if remark == "" {
			remark = sessionless[e.key()]
		}
		fmt.Fprintf(out, "| %s | `%s` | %s | %s | %s | %s |\n", name, r.usual.Operation, r.cellBelow(), r.cellFrom(), marks, remark)
	}
}

func base(q *policy.Requirement) string {
	switch {
	case q.Deny != nil:
		return "refused: `" + q.Deny.Code + "`"
	case !q.Session:
		return "open"
	case q.Device == policy.DeviceAny:
		return "session, unfinished too"
	}
	return "session"
}

func (r role) cellBelow() string {
	if r.actionsBelow.MFAAction != "" {
		cell := base(r.below) + "; MFA token for `" + r.actionsBelow.MFAAction + "`"
		if len(r.actionsBelow.Scopes) > 0 {
			cell += " or step-up"
		}
		return cell
	}
	return base(r.below)
}

func (r role) cellFrom() string {
	cell := base(r.usual)
	when := map[string]string{"always": "", "by": ", unless off", "optional": ", if on"}
	if word, _, _ := strings.Cut(r.demand(), " "); len(r.on.Scopes) > 0 {
		cell += fmt.Sprintf("; step-up `%s`, %s, %d s%s", strings.ReplaceAll(scopesOf(r.on), " or ", "` or `"),
			strings.ReplaceAll(string(r.on.Token), "_", " "), int(r.on.MaxAge.Seconds()), when[word])
	}
	if len(r.on.ReleaseOn) > 0 {
		cell += "; " + strings.Trim(fmt.Sprint(r.on.ReleaseOn), "[]") + " gives back"
	}
	switch {
	case r.withActions.MFAAction != "":
		cell += "; MFA token for `" + r.withActions.MFAAction + "`"
	case len(r.withActions.Scopes) > 0 && len(r.usual.Scopes) == 0:
		cell += " or `" + r.actionsBelow.MFAAction + "` is listed"
	}
	return cell
}
