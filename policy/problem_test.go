package policy_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

// problems loads a policy and returns what is wrong with it, one line each.
func problems(t testing.TB, fsys fstest.MapFS) []string {
	t.Helper()
	_, err := policy.New(context.Background(), policy.Config{FS: fsys, EvalTimeout: time.Minute})
	if err == nil {
		return nil
	}
	var list policy.Problems
	if !errors.As(err, &list) {
		t.Fatalf("error %T %v, want a Problems", err, err)
	}
	return strings.Split(list.Error(), "\n")
}

// same compares lists of lines.
func same(t testing.TB, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got:\n%s\nwant:\n%s", g, w)
	}
}

const oneRoute = "routes:\n  GET /a: {operation: a}\n"

func TestFaultsOfTheDataFile(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"nothing", "", "data.yaml: is empty; write the routes there"},
		{"only a comment", "# soon\n", "data.yaml: is empty; write the routes there"},
		{"bad syntax", "routes: {\n", `data.yaml:1: is not YAML: line 1: did not find expected node content; mend the syntax`},
		{"a list", "- a\n", "data.yaml:1: is not a mapping; write members as key: value"},
		{"two documents", oneRoute + "---\na: 1\n", "data.yaml:3: holds more than one document; keep one"},
		{"no routes", "mount: /api\n", `data.yaml:1: routes: has no routes; write at least one, such as "GET /users": {operation: user.read}`},
		{"empty routes", "routes: {}\n", `data.yaml:1: routes: has no routes; write at least one, such as "GET /users": {operation: user.read}`},
		{"a key twice", oneRoute + "a: 1\na: 2\n", `data.yaml:4: repeats the key "a"; keep one of them`},
		{"a key twice far below", oneRoute + "a: {b: [{c: 1, c: 2}]}\n", `data.yaml:3: a.b[0]: repeats the key "c"; keep one of them`},
		{"a route twice", oneRoute + "  GET /a: {operation: b}\n",
			`data.yaml:3: routes: repeats the key "GET /a"; keep one of them` + "\n" +
				`data.yaml:3: routes["GET /a"]: conflicts with "GET /a": both match the same requests; change or remove the route`},
		{"an alias", oneRoute + "a: &x 1\nb: *x\n", "data.yaml:4: b: is an alias; write the value out; anchors and aliases are not supported"},
		{"a merge", oneRoute + "a: &x {c: 1}\nb: {<<: *x}\n",
			"data.yaml:4: b: has a key that is not plain text; write a plain key; merging with << is not supported"},
		{"a date without quotes", oneRoute + "a: 2026_04_01\n", `data.yaml:3: a: 2026_04_01 is read as a number; put it in quotes: "2026_04_01"`},
		{"a number with an underscore", oneRoute + "a: 1_0.5\n", `data.yaml:3: a: 1_0.5 is read as a number; put it in quotes: "1_0.5"`},
		{"infinity", oneRoute + "a: .inf\n", "data.yaml:3: a: is not a number that JSON has; write a finite number"},
		{"no number", oneRoute + "a: .nan\n", "data.yaml:3: a: is not a number that JSON has; write a finite number"},
		{"too great a number", oneRoute + "a: 18446744073709551615\n", "data.yaml:3: a: is not a whole number of 64 bits; put it in quotes, or write a smaller one"},
		{"a tag", oneRoute + "a: !!binary aGk=\n", "data.yaml:3: a: has the tag !!binary; use plain text, numbers, true, false or null"},
		{"a mount with a slash at its end", "mount: /api/\n" + oneRoute,
			"data.yaml:1: mount: is not a canonical path; write a path such as /api/v0, without a slash at its end, or leave it out"},
		{"a mount with a wildcard", "mount: /{a}\n" + oneRoute,
			"data.yaml:1: mount: is not a canonical path; write a path such as /api/v0, without a slash at its end, or leave it out"},
		{"a mount that is a list", "mount: [a]\n" + oneRoute,
			"data.yaml:1: mount: is not a canonical path; write a path such as /api/v0, without a slash at its end, or leave it out"},
		{"a route without operation", "routes:\n  GET /a: {}\n", `data.yaml:2: routes["GET /a"]: names no operation; add operation: NAME`},
		{"a route that is text", "routes:\n  GET /a: a\n", `data.yaml:2: routes["GET /a"]: is not a mapping; write members as key: value`},
		{"an operation that is no name", "routes:\n  GET /a: {operation: a b}\n",
			`data.yaml:2: routes["GET /a"].operation: is not a name; write letters, digits, dots, dashes and underscores, such as wallet.export`},
		{"an unknown member of a route", "routes:\n  GET /a: {operation: a, scopes: [b]}\n",
			`data.yaml:2: routes["GET /a"].scopes: is not a member of a route; use operation, read_body or websocket; requirements belong to operations`},
		{"too large a body", "routes:\n  GET /a: {operation: a, read_body: 1048577}\n",
			`data.yaml:2: routes["GET /a"].read_body: is not a number of bytes; write 1 to 1048576, or leave it out`},
		{"a websocket said in words", "routes:\n  GET /a: {operation: a, websocket: yes}\n",
			`data.yaml:2: routes["GET /a"].websocket: is not true or false; write true or false (yes and no are text in YAML 1.2)`},
		{"a pattern that matches nothing", "routes:\n  GET /a/../b: {operation: a}\n",
			`data.yaml:2: routes["GET /a/../b"]: segment ".." can never match: canon: path has a dot segment; change or remove the route`},
		{"conflicting patterns", "mount: /api\nroutes:\n  \"GET /{a}\": {operation: a}\n  \"GET /{b}\": {operation: a}\n",
			`data.yaml:4: routes["GET /{b}"]: conflicts with "GET /api/{a}": both match the same requests; change or remove the route`},
		{"a header in capitals", oneRoute + "input_headers: [X-A]\n", "data.yaml:3: input_headers[0]: is not a header name in lower case; write it as x-dynamic-platform"},
		{"a header with an underscore", oneRoute + "input_headers: [x_a]\n", "data.yaml:3: input_headers[0]: is not a header name in lower case; write it as x-dynamic-platform"},
		{"a credential", oneRoute + "input_headers:\n- cookie\n", "data.yaml:4: input_headers[0]: cookie is a credential; read the verified claims in input.session"},
		{"a header twice", oneRoute + "input_headers: [x-a, x-a]\n", "data.yaml:3: input_headers[1]: repeats x-a; keep one of them"},
		{"headers in a mapping", oneRoute + "input_headers: {x-a: 1}\n", "data.yaml:3: input_headers: is not a list of header names; write a list such as [x-dynamic-platform]"},
	} {
		t.Run(c.name, func(t *testing.T) { same(t, problems(t, files(anyRule, c.data)), c.want) })
	}
}

func TestFaultsOfEnvironmentsAndOperations(t *testing.T) {
	operations := "operations: {a: {mfa_action: act}, b: {}}\n"
	for _, c := range []struct{ name, data, want string }{
		{"an unknown member", "environments: {default: {mod: shadow}}",
			`environments["default"].mod: is not a member of an environment; use mode, locked, minimum_api_version, mfa_actions, mfa_required, step_up, max_age, token, minimum_sdk, sdk_minimums, announced, requested_scopes, device_registration, device_cookie, device_proof, redirect_origins, or options for members of your own`},
		{"a mode that is none", "environments: {default: {mode: off}}", `environments["default"].mode: is neither enforce nor shadow; write mode: enforce or mode: shadow`},
		{"locked by a word", "environments: {default: {locked: \"true\"}}",
			`environments["default"].locked: is not true or false; write true or false (yes and no are text in YAML 1.2)`},
		{"a version that is none", "environments: {e 1: {minimum_api_version: \"2026_13_01\"}}",
			`environments["e 1"].minimum_api_version: is not a dated version; write it as "2026_04_01", in quotes`},
		{"a release that is none", "environments: {e: {minimum_sdk: {WalletKit: newest}}}",
			`environments["e"].minimum_sdk.WalletKit: is not a release; write it as "4.76.0", in quotes`},
		{"a release without quotes", "environments: {e: {minimum_sdk: {WalletKit: 4.7}}}",
			`environments["e"].minimum_sdk.WalletKit: is not a release; write it as "4.76.0", in quotes`},
		{"a minimum for no SDK", "environments: {e: {minimum_sdk: {\"React Native\": \"4.76.0\"}}}",
			`environments["e"].minimum_sdk["React Native"]: is no SDK's name; write it as the SDK sends it, such as WalletKit or ClientSDK`},
		{"a minimum for an SDK with its slash", "environments: {e: {minimum_sdk: {WalletKit/4: \"4.76.0\"}}}",
			`environments["e"].minimum_sdk["WalletKit/4"]: is no SDK's name; write it as the SDK sends it, such as WalletKit or ClientSDK`},
		{"minimums in a mode that is none", "environments: {e: {sdk_minimums: warn}}",
			`environments["e"].sdk_minimums: is none of off, advise and enforce; write sdk_minimums: advise, or another of them`},
		{"minimums switched off by false", "environments: {e: {sdk_minimums: false}}",
			`environments["e"].sdk_minimums: is none of off, advise and enforce; write sdk_minimums: advise, or another of them`},
		{"an announcement in text", "environments: {e: {announced: soon}}", `environments["e"].announced: is not a mapping; write members as key: value`},
		{"an announcement of the version in force", `environments: {e: {announced: {minimum_api_version: "2026-04-01", deprecation: 2026-12-01}, minimum_api_version: "2026_04_01"}}`,
			`environments["e"].announced.minimum_api_version: is not right; write a version above the one in force, 2026_04_01`},
		{"an announcement of the default's version", `environments: {e: {announced: {minimum_api_version: "2026_04_01", deprecation: 2026-12-01}}, default: {minimum_api_version: "2026_04_01"}}`,
			`environments["e"].announced.minimum_api_version: is not right; write a version above the one in force, 2026_04_01`},
		{"an announcement without a day", `environments: {e: {announced: {minimum_api_version: "2026_04_01"}}}`,
			`environments["e"].announced.deprecation: is not right; write a date such as 2026-12-01, or a time such as 2026-12-01T09:00:00Z`},
		{"a day that no calendar has", `environments: {e: {announced: {minimum_api_version: "2026_04_01", deprecation: "2026-11-31"}}}`,
			`environments["e"].announced.deprecation: is not right; write a date such as 2026-12-01, or a time such as 2026-12-01T09:00:00Z`},
		{"a sunset before its deprecation", `environments: {e: {announced: {minimum_api_version: "2026_04_01", deprecation: "2026-12-01", sunset: "2026-11-30T23:59:59Z"}}}`,
			`environments["e"].announced.sunset: is not right; write a time that is not before deprecation`},
		{"a link without TLS", `environments: {e: {announced: {minimum_api_version: "2026_04_01", deprecation: "2026-12-01", link: "http://a.example/"}}}`,
			`environments["e"].announced.link: is not right; write an absolute https URL of at most 300 characters`},
		{"a link that ends its brackets", `environments: {e: {announced: {minimum_api_version: "2026_04_01", deprecation: "2026-12-01", link: "https://a.example/>;x"}}}`,
			`environments["e"].announced.link: is not right; write an absolute https URL of at most 300 characters`},
		{"a word that no announcement has", `environments: {e: {announced: {minimum_api_version: "2026_04_01", deprecation: "2026-12-01", until: "2027-01-01"}}}`,
			`environments["e"].announced.until: is not right; write minimum_api_version, deprecation, sunset and link, and no other member`},
		{"gaps in a mapping", "known_gaps: {ClientSDK: a}", "known_gaps: is not a list; write a list of {sdk, routes, note, below}"},
		{"a gap in text", "known_gaps: [ClientSDK]", "known_gaps[0]: is not a mapping; write members as key: value"},
		{"a gap of nobody", "known_gaps: [{routes: [GET /a], note: x}]", "known_gaps[0]: is not whole; name sdk, note, and routes as a list"},
		{"a gap nowhere", "known_gaps: [{sdk: ClientSDK, routes: [], note: x}]", "known_gaps[0]: is not whole; name sdk, note, and routes as a list"},
		{"a gap on no route", "known_gaps: [{sdk: ClientSDK, routes: [GET /a, GET /b], note: x}]",
			"known_gaps[0].routes[1]: is no route; write one of the members of routes, letter by letter"},
		{"a gap twice", "known_gaps: [{sdk: C, routes: [GET /a], note: x}, {sdk: D, routes: [GET /a], note: x}, {sdk: C, routes: [GET /a], note: y}]",
			"known_gaps[2].routes[0]: has a gap of C already; keep one of them"},
		{"a gap without an end", "known_gaps: [{sdk: C, routes: [GET /a], note: x, below: 1.32}]",
			`known_gaps[0].below: is not a release; write it as "1.32.0", in quotes: the first release without the gap`},
		{"a gap that exempts", "known_gaps: [{sdk: C, routes: [GET /a], note: x, allow: true}]",
			"known_gaps[0].allow: is not a member of a known gap; use sdk, routes, note or below"},
		{"a note of two lines", `known_gaps: [{sdk: C, routes: [GET /a], note: "x\ny"}]`, "known_gaps[0].note: is not a short text; write one line of at most 400 bytes"},
		{"a note that is too long", "known_gaps: [{sdk: C, routes: [GET /a], note: " + strings.Repeat("x", 401) + "}]",
			"known_gaps[0].note: is not a short text; write one line of at most 400 bytes"},
		{"an action of no operation", "environments: {e: {mfa_actions: [act, acct]}}",
			`environments["e"].mfa_actions[1]: "acct" is no operation's mfa_action; write one of act`},
		{"actions that are no list", "environments: {e: {mfa_actions: act}}",
			`environments["e"].mfa_actions: is not a list; write a list such as [wallet.waas.export]`},
		{"step-up for an unknown operation", "environments: {e: {step_up: {c: true}}}",
			`environments["e"].step_up.c: is no operation; write one of the members of operations`},
		{"step-up by a word", "environments: {e: {step_up: {a: on}}}",
			`environments["e"].step_up.a: is not true or false; write true or false (yes and no are text in YAML 1.2)`},
		{"a lifetime of nothing", "environments: {e: {max_age: {a: 0}}}", `environments["e"].max_age.a: is not right; write 1 to 86400 seconds`},
		{"a lifetime in words", "environments: {e: {max_age: {a: 5m}}}", `environments["e"].max_age.a: is not right; write a whole number up to 86400`},
		{"an unknown use", "environments: {e: {token: {a: once}}}", `environments["e"].token.a: is not right; write single_use or time_bound`},
		{"scopes to ask for under another name", "environments: {e: {requested_scope: {}}}", `environments["e"].requested_scope: is not a member of an environment; ` +
			`use mode, locked, minimum_api_version, mfa_actions, mfa_required, step_up, max_age, token, minimum_sdk, sdk_minimums, announced, requested_scopes, device_registration, device_cookie, device_proof, redirect_origins, or options for members of your own`},
		{"scopes to ask for in a list", "environments: {e: {requested_scopes: [a]}}", `environments["e"].requested_scopes: is not a mapping; write members as key: value`},
		{"an unknown list of them", "environments: {e: {requested_scopes: {allowed: [a]}}}",
			`environments["e"].requested_scopes.allowed: is not a list of scopes that may be asked for; use allow or refuse`},
		{"one of them that is text", "environments: {e: {requested_scopes: {allow: a}}}",
			`environments["e"].requested_scopes.allow: is not a list; write a list such as ["wallet:sign", "credential:*"]`},
		{"a pattern in the midst", "environments: {e: {requested_scopes: {refuse: [a, \"console:*:update\"]}}}",
			`environments["e"].requested_scopes.refuse[1]: is neither a scope nor the beginning of some; write it as "wallet:sign", "wallet:*" or "*"`},
		{"two scopes in one", "environments: {e: {requested_scopes: {allow: [a b]}}}",
			`environments["e"].requested_scopes.allow[0]: is neither a scope nor the beginning of some; write it as "wallet:sign", "wallet:*" or "*"`},
		{"a cookie mode in words", "environments: {e: {device_cookie: yes}}",
			`environments["e"].device_cookie: is not true or false; write true or false (yes and no are text in YAML 1.2)`},
		{"device registration in words", "environments: {e: {device_registration: on}}",
			`environments["e"].device_registration: is not true or false; write true or false (yes and no are text in YAML 1.2)`},
		{"a proof for everything", "environments: {e: {device_proof: true}}",
			`environments["e"].device_proof: is not a list; write a list such as [device.register, device.revoke]`},
		{"a proof for an unknown operation", "environments: {e: {device_proof: [a, c]}}",
			`environments["e"].device_proof[1]: is no operation; write one of the members of operations`},
		{"one redirect origin", "environments: {e: {redirect_origins: \"https://app.example\"}}",
			`environments["e"].redirect_origins: is not a list; write a list such as ["https://app.example", "myapp://"]`},
		{"an environment that is text", "environments: {e: shadow}", `environments["e"]: is not a mapping; write members as key: value`},
		{"environments in a list", "environments: [e]", "environments: is not a mapping; write members as key: value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, problems(t, files(anyRule, oneRoute+operations+c.data+"\n")), "data.yaml:4: "+c.want)
		})
	}
	for _, c := range []struct{ name, operation, want string }{
		{"an unknown member", "{allways: true}",
			".allways: is not a member of an operation; use always, by_default, scopes, token, max_age, device, mfa_action, release_on, session, form, deny, recheck, redirects, or options for members of your own"},
		{"always by a word", "{always: \"true\"}", ".always: is not true or false; write true or false (yes and no are text in YAML 1.2)"},
		{"scopes that are text", "{scopes: x}", ".scopes: is not right; write a list"},
		{"a scope with a space", "{scopes: [a b]}", ".scopes: is not right; write scope tokens (RFC 6749 section 3.3), or non-empty lists of them"},
		{"an empty choice", "{scopes: [[]]}", ".scopes: is not right; write scope tokens (RFC 6749 section 3.3), or non-empty lists of them"},
		{"a token without scopes", "{token: single_use}", ".token: is not right; write scopes beside token"},
		{"scopes without a session", "{session: false, scopes: [a]}", ".scopes: is not right; write session: true beside scopes"},
		{"an action without a session", "{session: false, mfa_action: a}", ".mfa_action: is not right; write session: true beside mfa_action"},
		{"a device without a session", "{session: false, device: registered}", ".device: is not right; write session: true beside device: registered"},
		{"a question about no session", "{session: false, recheck: true}", ".recheck: is not right; write session: true beside recheck"},
		{"a question in words", "{recheck: always}", ".recheck: is not right; write true or false"},
		{"redirects in words", "{redirects: yes}", ".redirects: is not true or false; write true or false (yes and no are text in YAML 1.2)"},
		{"an unknown device rule", "{device: some}", ".device: is not right; write registered or any"},
		{"a status of failure", "{release_on: [500]}", ".release_on: is not right; write a whole number up to 499"},
		{"by default in words", "{by_default: yes}", ".by_default: is not true or false; write true or false (yes and no are text in YAML 1.2)"},
		{"a lifetime whose scopes are lost", "{max_age: 300, mfa_action: a}", ".max_age: is not right; write scopes beside max_age"},
		{"a denial in words", "{deny: closed}", ".deny: is not right; write an object with code and message"},
		{"a denial without a code", "{deny: {message: x}}", ".deny.code: is not right; write a name such as region_blocked"},
		{"an unknown member of a denial", "{deny: {code: x, reason: y}}", ".deny.reason: is not right; write code and message, and no other member"},
		{"a denial that asks for something", "{deny: {code: x}, scopes: [a]}", ".deny: is not right; write either deny or what is to be brought"},
		{"a session in words", "{session: no}", ".session: is not right; write true or false"},
		{"text", "x", ": is not a mapping; write members as key: value"},
	} {
		t.Run("operation: "+c.name, func(t *testing.T) {
			same(t, problems(t, files(anyRule, oneRoute+"operations:\n  a.b: "+c.operation+"\n")), `data.yaml:4: operations["a.b"]`+c.want)
		})
	}
}

func TestFaultsOfWhatTheBodyDecides(t *testing.T) {
	const lists = "requested_scopes: {allow: [\"*\"], refuse: []}\n"
	for _, c := range []struct{ name, data, want string }{
		{"a list", lists + "by_body: [a]", "data.yaml:5: by_body: is not a mapping; write members as key: value"},
		{"text", lists + "by_body: {x: a}", `data.yaml:5: by_body["x"]: is not a mapping; write members as key: value`},
		{"nothing", lists + "by_body: {x: {}}", `data.yaml:5: by_body["x"]: has no otherwise; name the operation that it is when nothing else holds`},
		{"an unknown role", lists + "by_body: {x: {otherwise: a, request_scopes: a}}",
			`data.yaml:5: by_body["x"].request_scopes: is not a member of by_body; use otherwise, requests_scopes or business_account`},
		{"an unknown operation", lists + "by_body: {x: {otherwise: b}}", `data.yaml:5: by_body["x"].otherwise: is no operation; write one of the members of operations`},
		{"an operation of the same name", lists + "by_body: {a: {otherwise: a}}",
			`data.yaml:2: routes["GET /a"]: does not show the body that decides a; add read_body: 65536` + "\n" +
				`data.yaml:5: by_body["a"]: is one of the operations too; give one of them another name`},
		{"no lists", "by_body: {x: {otherwise: a}}",
			`data.yaml:1: requested_scopes: is missing beside by_body; write {allow: ["*"], refuse: ["console:*"]}: nothing may be asked for without it`},
		{"lists that are empty", "requested_scopes: {}", "data.yaml:4: requested_scopes.allow: is missing; write a list, [] for none\n" +
			"data.yaml:4: requested_scopes.refuse: is missing; write a list, [] for none"},
		{"a misspelt list", "requested_scopes: {allow: [], refused: []}", "data.yaml:4: requested_scopes.refuse: is missing; write a list, [] for none\n" +
			"data.yaml:4: requested_scopes.refused: is not a list of scopes that may be asked for; use allow or refuse"},
		{"a number among them", "requested_scopes: {allow: [1], refuse: []}",
			`data.yaml:4: requested_scopes.allow[0]: is neither a scope nor the beginning of some; write it as "wallet:sign", "wallet:*" or "*"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, problems(t, files(anyRule, oneRoute+"operations: {a: {}}\n"+c.data+"\n")), strings.Split(c.want, "\n")...)
		})
	}
}

func TestFaultsOfRules(t *testing.T) {
	const head = "package stepward\n\n"
	for _, c := range []struct{ name, rule, want string }{
		{"bad syntax", head + "requirement := 1 if }\n", "requirement.rego:3: unexpected } token"},
		{"no requirement", head + "other := 1\n", ".: no rule data.stepward.requirement; write package stepward with a rule named requirement"},
		{"another package", "package stepword\n\nrequirement := {}\n", ".: no rule data.stepward.requirement"},
		{"a misspelt member", head + "requirement := {} if input.request.methd == \"GET\"\n",
			`requirement.rego:3: undefined ref: input.request.methd (`},
		{"a wrong type", head + "requirement := {} if input.operation == 1\n", "requirement.rego:3: match error"},
		{"an unsafe variable", head + "requirement := {} if x\n", "requirement.rego:3: var x is unsafe"},
		{"an unused variable", head + "requirement := {} if { x := 1 }\n", "requirement.rego:3: assigned var x unused"},
		{"a header that is not passed on", head + "requirement := {} if input.request.headers[\"x-b\"]\n",
			`requirement.rego:3: input.request.headers["x-b"]: is never there: data.stepward.input_headers does not name it; add it`},
		{"a header in capitals", head + "requirement := {} if input.request.headers[\"X-A\"]\n", `requirement.rego:3: input.request.headers["X-A"]: is never there`},
		{"a wildcard of no route", head + "requirement := {} if input.params.idd == \"x\"\n",
			`requirement.rego:3: input.params.idd: is never there: no route has a wildcard {idd}; write the name as a route's pattern does`},
		{"a rule that the data has too", head + "requirement := {}\n\nmine := 1\n",
			"requirement.rego:5: conflicting rule for data path stepward/mine found; rename the rule, or the member of the data file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := "routes:\n  \"GET /{id}\": {operation: a}\ninput_headers: [x-a]\nmine: 2\n"
			got := problems(t, files(c.rule, data))
			if len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
				t.Errorf("got %q, want one problem that begins with %q", got, c.want)
			}
		})
	}
}

// OPA's type checker takes an object whose schema names members for one that has no others.
func TestClaimsOfEveryNameCanBeRead(t *testing.T) {
	rule := "package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": true, \"device\": device}\n\ndefault device := \"registered\"\n\n" +
		"device := \"any\" if \"support\" in input.session.roles\n"
	s := load(t, files(rule, oneRoute))
	if q := require(t, s, &policy.Input{Session: map[string]any{"roles": []any{"support"}}}); q.Device != policy.DeviceAny {
		t.Error("the claim roles is not seen")
	}
}

// What depends on the clock, on chance or on the world is not there, by whatever name.
func TestRulesHaveNoClockNetworkOrChance(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1"}).status_code == 200`, `time.now_ns() > 0`, `opa.runtime().env.HOME`,
		`rand.intn("a", 5) == 1`, `uuid.rfc4122("a")`, `net.lookup_ip_addr("localhost")`, `trace("x")`,
		`io.jwt.decode_verify("", {"secret": "x"})[0]`, `io.jwt.encode_sign({}, {}, {})`,
		`crypto.x509.parse_and_verify_certificates("")[0]`, `crypto.x509.parse_and_verify_certificates_with_options("", {})[0]`, `json.match_schema({}, {"$ref": "http://127.0.0.1/"})[0]`,
		`json.verify_schema({"$ref": "file:///etc/passwd"})[0]`, `rego.parse_module("a", "package a")`,
	} {
		name, _, _ := strings.Cut(call, "(")
		t.Run(name, func(t *testing.T) {
			rule := "package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": false} if " + call + "\n"
			same(t, problems(t, files(rule, oneRoute)), "requirement.rego:3: undefined function "+name+
				"; name a function that exists; policies have no clock, network or random source")
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	fsys := fstest.MapFS{
		"data.yaml": {Data: []byte("mount: api\nroutes:\n  GET /a: {operation: a}\n  GET /A: {operation: a}\n  GET /c: {operations: a}\n" +
			"environments: {default: {mode: on}}\n")},
		"a.rego": {Data: []byte("package stepward\n\nrequirement := 1 if input.request.methd\n")},
		"b.rego": {Data: []byte("package stepward\n\nx if input.sesion.sub\n\ny if input.client.sdk == 1\n")},
	}
	got := problems(t, fsys)
	var where []string
	for _, line := range got {
		place, _, _ := strings.Cut(line, ": ")
		where = append(where, place)
	}
	same(t, where, "a.rego:3", "b.rego:3", "b.rego:5", "data.yaml:1", "data.yaml:4", "data.yaml:5", "data.yaml:5", "data.yaml:6")
	for range 20 {
		same(t, problems(t, fsys), got...)
	}
}

func TestMoreThanTenCompilerErrors(t *testing.T) {
	rule := "package stepward\n\nrequirement := 1\n" + strings.Repeat("x if input.nothing\n", 40)
	if got := problems(t, files(rule, oneRoute)); len(got) != 40 {
		t.Errorf("%d problems, want 40", len(got))
	}
}

func TestFolders(t *testing.T) {
	rule, data := &fstest.MapFile{Data: []byte(anyRule)}, &fstest.MapFile{Data: []byte(oneRoute)}
	bad := &fstest.MapFile{Data: []byte("package\n")}
	for _, c := range []struct {
		name string
		fsys fstest.MapFS
		want string
	}{
		{"an empty folder", fstest.MapFS{}, ".: has no *.rego files; copy the shipped policy from rego/ and begin there\n" +
			"data.yaml: is missing; write the routes there"},
		{"no data", fstest.MapFS{"a.rego": rule}, "data.yaml: is missing; write the routes there"},
		{"no rules", fstest.MapFS{"data.yaml": data}, ".: has no *.rego files; copy the shipped policy from rego/ and begin there"},
		{"two data files", fstest.MapFS{"a.rego": rule, "data.json": {Data: []byte(`{"routes": {"GET /a": {"operation": "a"}}}`)}, "data.yaml": data},
			"data.yaml: is a second data file; keep one data.yaml"},
		{"data in JSON", fstest.MapFS{"a.rego": rule, "data.json": {Data: []byte(`{"routes": {"GET /a": {"operation": "a"}}}`)}}, ""},
		{"rules in folders", fstest.MapFS{"x/y/a.rego": rule, "data.yaml": data}, ""},
		{"hidden and other files", fstest.MapFS{"a.rego": rule, "data.yaml": data, "..data/a.rego": bad, ".a.rego": bad, "README.md": bad, "x/data.yaml": bad}, ""},
		{"a broken test", fstest.MapFS{"a.rego": rule, "data.yaml": data, "a_test.rego": bad}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := problems(t, c.fsys)
			if c.want == "" {
				same(t, got)
			} else {
				same(t, got, strings.Split(c.want, "\n")...)
			}
		})
	}
}

func TestCheckReadsTheTestsToo(t *testing.T) {
	fsys := files(anyRule, oneRoute+"a: .nan\n")
	fsys["a_test.rego"] = &fstest.MapFile{Data: []byte("package stepward_test\n\ntest_x if {\n")}
	got := policy.Check(context.Background(), policy.Config{FS: fsys})
	if len(got) != 2 || got[0].File != "a_test.rego" || got[1].File != "data.yaml" {
		t.Errorf("got %v, want a problem of the test and one of the data", got)
	}
	if got := policy.Check(context.Background(), policy.Config{FS: rego.FS}); len(got) > 0 {
		t.Errorf("the shipped policy: %v", got)
	}
	if got := policy.Check(context.Background(), policy.Config{}); len(got) != 1 {
		t.Errorf("no folder: %v, want one problem", got)
	}
}

// Origins are compared as text, so one in another spelling would never be met, and one that is a beginning of others would
// be met by strangers'.
func TestRedirectOrigins(t *testing.T) {
	origins := func(origin string) []string {
		return problems(t, files(anyRule, oneRoute+"environments: {e: {redirect_origins: ["+strconv.Quote(origin)+"]}}\n"))
	}
	for _, origin := range []string{
		"https://app.example", "http://localhost:3000", "https://a-b.c_d.example:8443", "https://127.0.0.1:1", "http://[::1]:3000", "https://xn--bcher-kva.example",
		"myapp://", "com.example.app://", "exp+app://",
	} {
		if got := origins(origin); len(got) != 0 {
			t.Errorf("%q: %v", origin, got)
		}
	}
	for _, origin := range []string{
		"", "*", "null", "https://", "http://", "://", "https://app.example/", "https://app.example/a", "https://app.example?x", "https://app.example#", "HTTPS://app.example",
		"https://App.example", "https://app.example:443", "http://app.example:80", "https://app.example:", "https://app.example:0443", "https://app.example.", "https://.example",
		"https://app..example", "https://*.example", "https://user@app.example", "https://app.example:x", "https://app.ex ample", "https://bücher.example", "//app.example",
		"app.example", "https:app.example", "ftp://app.example", "https://app\\.example", "https://[::1", "https://-app.example",
		"javascript://", "data://", "file://", "blob://", "intent://", "MyApp://", "myapp:", "myapp://x", "1app://", "my app://", "wss://",
	} {
		got := origins(origin)
		if len(got) != 1 || !strings.Contains(got[0], "redirect_origins[0]: is neither a web origin nor an app's own scheme") {
			t.Errorf("%q: %v", origin, got)
		}
	}
}
