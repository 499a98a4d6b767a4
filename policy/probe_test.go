package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/policy"
)

// Every one of these would be a refusal of real users; the probe finds it before it is put in force.
func TestThePolicyIsAskedBeforeItIsPutInForce(t *testing.T) {
	const data = "routes:\n  GET /a: {operation: a}\nenvironments: {default: {}, strict: {}}\n"
	const where = `data.yaml:2: routes["GET /a"]: `
	const remedy = "; make data.stepward.requirement answer for this operation in this environment"
	for _, c := range []struct{ name, rule, want string }{
		{"undefined", `requirement := {"operation": "a", "session": false} if input.operation == "b"`,
			`environment "", without a session: policy: data.stepward.requirement is undefined`},
		{"undefined without a session", `requirement := {"operation": "a", "session": true} if input.session.sub`,
			`environment "", without a session: policy: data.stepward.requirement is undefined`},
		{"undefined with a session", `requirement := {"operation": "a", "session": true} if not input.session`,
			`environment "", with a session: policy: data.stepward.requirement is undefined`},
		{"undefined in one environment", `requirement := {"operation": "a", "session": true} if input.environment.id != "strict"`,
			`environment "strict", without a session: policy: data.stepward.requirement is undefined`},
		{"undefined in an environment nobody has heard of", "requirement := {\"operation\": \"a\", \"session\": true} if input.environment.id in {\"\", \"default\", \"strict\"}",
			`environment "00000000-0000-4000-8000-000000000000", without a session: policy: data.stepward.requirement is undefined`},
		{"two answers", "requirement := {\"operation\": \"a\", \"session\": true}\n\nrequirement := {\"operation\": \"a\", \"session\": false} if input.operation == \"a\"",
			`environment "", without a session: policy: evaluate: requirement.rego:5: eval_conflict_error: ` +
				`rule data.stepward.requirement produced conflicting values: {"operation": "a", "session": true} at requirement.rego:3 ` +
				`{"operation": "a", "session": false} at requirement.rego:5`},
		{"a builtin's error", `requirement := {"operation": "a", "session": to_number(input.operation) == 1}`,
			`environment "", without a session: policy: evaluate: requirement.rego:3: eval_builtin_error: to_number: strconv.ParseFloat: parsing "a": invalid syntax`},
		{"no object", `requirement := "a"`, `environment "", without a session: policy: requirement is not an object`},
		{"nothing in it", `requirement := {}`, `environment "", without a session: policy: requirement.operation: want a name; it must be present`},
		{"no session", `requirement := {"operation": "a"}`, `environment "", without a session: policy: requirement.session: want true or false; it must be present`},
		{"unknown members", `requirement := {"operation": "a", "session": true, "scope": ["a"], "alow": 1}`,
			`environment "", without a session: policy: requirement.alow: want no such member (see docs/writing-policy.md), ` +
				`requirement.scope: want no such member (see docs/writing-policy.md)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, problems(t, files("package stepward\n\n"+c.rule+"\n", data)), where+c.want+remedy)
		})
	}
}

func TestTheRequirementIsDecodedStrictly(t *testing.T) {
	for _, c := range []struct{ name, members, want string }{
		{"scopes without session", `"session": false, "scopes": ["a"]`, "scopes: want session: true beside scopes"},
		{"token without session", `"session": false, "token": "single_use"`, "token: want session: true beside token"},
		{"device without session", `"session": false, "device": "registered"`, "device: want session: true beside device: registered"},
		{"action without session", `"session": false, "mfa_action": "a"`, "mfa_action: want session: true beside mfa_action"},
		{"device proof without session", `"session": false, "device_proof": true`, "device_proof: want session: true beside device_proof"},
		{"recheck without session", `"session": false, "recheck": true`, "recheck: want session: true beside recheck"},
		{"a device proof by a word", `"session": true, "device_proof": "true"`, "device_proof: want true or false"},
		{"token without scopes", `"session": true, "token": "single_use"`, "token: want scopes beside token"},
		{"an MFA that everybody needs, without an action", `"session": true, "mfa_required": true`, "mfa_required: want mfa_action beside mfa_required"},
		{"an MFA required by a word", `"session": true, "mfa_action": "a", "mfa_required": "true"`, "mfa_required: want true or false"},
		{"session by a word", `"session": "true"`, "session: want true or false"},
		{"operation with a space", `"session": true, "operation": "a b"`, "operation: want a name such as wallet.export"},
		{"scopes in a set", `"session": true, "scopes": "a"`, "scopes: want a list"},
		{"a number as scope", `"session": true, "scopes": [1]`, "scopes: want text"},
		{"choices in choices", `"session": true, "scopes": [[["a"]]]`, "scopes: want text"},
		{"an empty choice", `"session": true, "scopes": [[]]`, "scopes: want scope tokens (RFC 6749 section 3.3), or non-empty lists of them"},
		{"a token that is none", `"session": true, "token": "once"`, "token: want single_use or time_bound"},
		{"a fraction of a second", `"session": true, "max_age": 0.5`, "max_age: want a whole number up to 86400"},
		{"no time", `"session": true, "max_age": 0`, "max_age: want 1 to 86400 seconds"},
		{"more than a day", `"session": true, "max_age": 86401`, "max_age: want a whole number up to 86400"},
		{"a device that is none", `"session": true, "device": "known"`, "device: want registered or any"},
		{"a version that is none", `"session": true, "minimum_api_version": "1"`, "minimum_api_version: want a dated version such as 2026_04_01"},
		{"releases in a list", `"session": true, "minimum_sdk": ["1.0.0"]`, "minimum_sdk: want an object of SDK names and releases"},
		{"a release that is none", `"session": true, "minimum_sdk": {"a": "new", "b": 1}`, "minimum_sdk: want releases such as 4.76.0"},
		{"advice in a list", `"session": true, "advise_sdk": ["1.0.0"]`, "advise_sdk: want an object of SDK names and releases"},
		{"advice that is no release", `"session": true, "advise_sdk": {"a": "4.76"}`, "advise_sdk: want releases such as 4.76.0"},
		{"an announcement in text", `"session": true, "announced": "2026_04_01"`, "announced: want an object with minimum_api_version and deprecation, and perhaps sunset and link"},
		{"an announcement of nothing", `"session": true, "announced": {}`, "announced.deprecation: want a date such as 2026-12-01, or a time such as 2026-12-01T09:00:00Z, " +
			"requirement.announced.minimum_api_version: want a dated version such as 2026_04_01"},
		{"an announcement with more", `"session": true, "announced": {"minimum_api_version": "2026_04_01", "deprecation": "2026-12-01", "sunsets": "2027-01-01"}`,
			"announced.sunsets: want minimum_api_version, deprecation, sunset and link, and no other member"},
		{"a sunset before its deprecation", `"session": true, "announced": {"minimum_api_version": "2026_04_01", "deprecation": "2026-12-02", "sunset": "2026-12-02T00:00:00+01:00"}`,
			"announced.sunset: want a time that is not before deprecation"},
		{"an action that is none", `"session": true, "mfa_action": ""`, "mfa_action: want a name such as wallet.waas.sign"},
		{"methods in text", `"session": true, "methods": "totp"`, "methods: want a list"},
		{"too many methods", `"session": true, "methods": numbers.range(1, 65)`, "methods: want at most 64 members"},
		{"a status of failure", `"session": true, "release_on": [502]`, "release_on: want a whole number up to 499"},
		{"a status of waiting", `"session": true, "release_on": [102]`, "release_on: want statuses from 200 to 499: a 5xx says nothing about what was done"},
		{"a refusal in text", `"session": true, "deny": "no"`, "deny: want an object with code and message"},
		{"a refusal without code", `"session": true, "deny": {"message": "no"}`, "deny.code: want a name such as region_blocked"},
		{"a refusal with more", `"session": true, "deny": {"code": "no", "status": 418}`, "deny.status: want code and message, and no other member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule := "package stepward\n\nrequirement := object.union({\"operation\": \"a\"}, {" + c.members + "})\n"
			want := `data.yaml:2: routes["GET /a"]: environment "", without a session: policy: requirement.` + c.want +
				"; make data.stepward.requirement answer for this operation in this environment"
			for range 5 { // members come in no order, messages in one
				same(t, problems(t, files(rule, oneRoute)), want)
			}
		})
	}
}

func TestAWholeRequirement(t *testing.T) {
	rule := `package stepward

requirement := {
	"operation": "a", "session": true, "scopes": ["x", ["y", "z"]], "token": "time_bound", "max_age": 60, "device": "any",
	"minimum_api_version": "2026-04-01", "minimum_sdk": {"WalletKit": "4.76.0"}, "methods": ["totp"], "release_on": [202],
	"deny": {"code": "closed", "message": "We are closed."},
}
`
	q := require(t, load(t, files(rule, oneRoute)), &policy.Input{})
	got := fmt.Sprintf("%s %v %v %s %v %v %s %s %v %v %v", q.Operation, q.Session, q.Scopes, q.Token, q.MaxAge, q.Device == policy.DeviceAny,
		q.MinimumAPIVersion, q.MinimumSDK["WalletKit"], q.Methods, q.ReleaseOn, *q.Deny)
	if want := "a true [[x] [y z]] time_bound 1m0s true 2026_04_01 4.76.0 [totp] [202] {closed We are closed.}"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestARequirementIsNoNovel(t *testing.T) {
	rule := "package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": true, \"deny\": {\"code\": \"b\", \"message\": " +
		"concat(\"\", [\"ten bytes \" | some _ in numbers.range(1, %d)])}}\n"
	if q := require(t, load(t, files(fmt.Sprintf(rule, 819), oneRoute)), &policy.Input{}); len(q.Deny.Message) != 8190 {
		t.Errorf("message of %d bytes, want 8190", len(q.Deny.Message))
	}
	if got := problems(t, files(fmt.Sprintf(rule, 820), oneRoute)); len(got) != 1 || !strings.Contains(got[0], "requirement has 8202 bytes of text, more than 8192") {
		t.Errorf("got %q", got)
	}
}

func TestAbsentDeviceMeansRegisteredWhereThereIsASession(t *testing.T) {
	for session, want := range map[string]policy.DeviceRule{"true": policy.DeviceRegistered, "false": policy.DeviceAny} {
		rule := "package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": " + session + "}\n"
		if got := require(t, load(t, files(rule, oneRoute)), &policy.Input{}).Device; got != want {
			t.Errorf("session %s: device rule %d, want %d", session, got, want)
		}
	}
}

func TestAnOperationThatTheDataDoesNotKnow(t *testing.T) {
	rule := "package stepward\n\nrequirement := {\"operation\": input.operation, \"session\": true} if data.stepward.operations[input.operation]\n"
	data := "operations: {wallet.export: {}}\nroutes:\n  GET /a: {operation: wallet.exprot}\n"
	same(t, problems(t, files(rule, data)), `data.yaml:3: routes["GET /a"]: environment "", without a session: policy: `+
		`data.stepward.requirement is undefined; add "wallet.exprot" to operations, or write the name of one that is there`)
}

func TestManyRoutesThatFailAlikeAreNotAllListed(t *testing.T) {
	var patterns []string
	for i := range 300 {
		patterns = append(patterns, fmt.Sprintf("GET /a%d", i))
	}
	got := problems(t, files("package stepward\n\nrequirement := {}\n", withRoutes(patterns...)))
	if len(got) != 5 || !strings.Contains(got[4], "(and so for 295 more routes)") {
		t.Errorf("%d problems, the last %q", len(got), got[len(got)-1])
	}
}

func TestAnAnswerThatTakesTooLongIsAnError(t *testing.T) {
	rule := "package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": count([x | some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x == y + 1]) == 0}\n"
	var patterns []string
	for i := range 1000 {
		patterns = append(patterns, fmt.Sprintf("GET /a%d", i))
	}
	begin := time.Now()
	_, err := policy.New(context.Background(), policy.Config{FS: files(rule, withRoutes(patterns...)), EvalTimeout: 20 * time.Millisecond})
	if got, ok := errors.AsType[policy.Problems](err); !ok || len(got) != 1 || !strings.Contains(err.Error(), "no answer within 20ms, asked 3 times; make the policy faster, or raise policy.eval_timeout") ||
		time.Since(begin) > 20*time.Second {
		t.Errorf("after %v, want one late answer at once: %v", time.Since(begin), err)
	}
}

// A fault in evaluation must not carry a claim or a body into the logs.
func TestErrorsOfEvaluationQuoteNothingOfTheRequest(t *testing.T) {
	rule := "package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": to_number(object.get(input.session, \"pin\", 1)) == 1} if input.session\n\n" +
		"requirement := {\"operation\": \"a\", \"session\": false} if not input.session\n"
	snap := load(t, files(rule, oneRoute))
	_, err := snap.Require(context.Background(), &policy.Input{Session: map[string]any{"pin": "secret"}})
	if want := "policy: evaluate: requirement.rego:3: eval_builtin_error"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// require asks for a request of the first route.
func require(t testing.TB, s *policy.Snapshot, in *policy.Input) *policy.Requirement {
	t.Helper()
	if in.Match == nil {
		in.Match = &policy.Match{Route: s.Routes()[0]}
	}
	q, err := s.Require(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
