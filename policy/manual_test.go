package policy_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

// snippets are the fenced blocks of one language in the manual.
func snippets(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/writing-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for i, part := range strings.Split(string(text), "\n```") {
		if block, ok := strings.CutPrefix(part, language+"\n"); ok && i%2 == 1 {
			found = append(found, block+"\n")
		}
	}
	return found
}

// shippedFiles are the shipped policy, to be changed.
func shippedFiles(t *testing.T) fstest.MapFS {
	t.Helper()
	fsys := fstest.MapFS{}
	for _, name := range []string{"data.yaml", "clients.rego", "environment.rego", "proof.rego", "redirect.rego", "requirement.rego"} {
		text, err := rego.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fsys[name] = &fstest.MapFile{Data: text}
	}
	return fsys
}

// withEnvironments is the shipped policy with other environments.
func withEnvironments(t *testing.T, environments string) fstest.MapFS {
	t.Helper()
	fsys := shippedFiles(t)
	before, rest, _ := strings.Cut(string(fsys["data.yaml"].Data), "\nenvironments:\n")
	_, after, _ := strings.Cut(rest, "\noperations:\n")
	fsys["data.yaml"].Data = []byte(before + "\n" + environments + "\noperations:\n" + after)
	return fsys
}

// asked is what a policy requires for a request by somebody who is signed in.
func asked(t *testing.T, s *policy.Snapshot, environment, method, path string) *policy.Requirement {
	t.Helper()
	var m policy.Match
	if s.Match(method, path, &m); m.Route == nil {
		t.Fatalf("%s %s has no route", method, path)
	}
	return require(t, s, &policy.Input{Match: &m, Method: method, Path: path, Environment: environment, Session: map[string]any{"sub": "a", "scope": "user:basic"}})
}

// What the manual shows works as pasted.
func TestTheManual(t *testing.T) {
	yaml, rules := snippets(t, "yaml"), snippets(t, "rego")
	if len(yaml) != 5 || len(rules) != 2 {
		t.Fatalf("%d snippets of YAML and %d of Rego, want 5 and 2", len(yaml), len(rules))
	}
	t.Run("environments", func(t *testing.T) {
		s := load(t, withEnvironments(t, yaml[1]))
		sign := "/api/v0/sdk/e/waas/w/signMessage"
		if q := asked(t, s, "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11", "POST", sign); len(q.Scopes) != 1 || q.MaxAge != 2*time.Minute {
			t.Errorf("signing there: %+v", q)
		}
		if q := asked(t, s, "another", "POST", sign); len(q.Scopes) > 0 {
			t.Errorf("signing elsewhere: %+v", q)
		}
	})
	t.Run("what Dynamic leaves open", func(t *testing.T) {
		s := load(t, withEnvironments(t, yaml[2]))
		for path, scope := range map[string]string{
			"DELETE /deviceRegistrations": "credential:unlink", "PATCH /waas/w/policy-layer": "wallet:sign", "POST /users/merge": "",
			"POST /waas/w/transactions/broadcast": "",
		} {
			method, path, _ := strings.Cut(path, " ")
			q := asked(t, s, "e", method, "/api/v0/sdk/e"+path)
			if got := scopesOf(q); got != scope {
				t.Errorf("%s %s: %q, want %q", method, path, got, scope)
			}
		}
		for scope, operation := range map[string]string{"wallet:sign": "stepup.verify", "credential:unlink": "stepup.verify", "wallet:export": "stepup.refused"} {
			var m policy.Match
			s.Match("POST", "/api/v0/sdk/e/users/mfa/auth/totp", &m)
			in := &policy.Input{Match: &m, Method: "POST", Environment: "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11", Body: map[string]any{"requestedScopes": []any{scope}}}
			if q := require(t, s, in); q.Operation != operation {
				t.Errorf("asking for %s there: %s, want %s", scope, q.Operation, operation)
			}
		}
	})
	t.Run("a route", func(t *testing.T) {
		fsys := shippedFiles(t)
		text := string(fsys["data.yaml"].Data)
		operations, routes, _ := strings.Cut(yaml[3], "routes:\n")
		operations = strings.TrimPrefix(operations, "operations:\n")
		text = strings.Replace(text, "\noperations:\n", "\noperations:\n"+operations, 1)
		text = strings.Replace(text, "\nroutes:\n", "\nroutes:\n  \"/{rest...}\": {operation: public}\n"+routes, 1)
		fsys["data.yaml"].Data = []byte(text)
		s := load(t, fsys)
		if q := asked(t, s, "e", "POST", "/api/v0/sdk/e/treasury/a/payments"); len(q.Scopes) != 1 || q.Token != policy.SingleUse {
			t.Errorf("the new route: %+v", q)
		}
		if q := asked(t, s, "e", "POST", "/api/v0/anything/else"); q.Session {
			t.Errorf("the rest: %+v", q)
		}
	})
	t.Run("a whole policy", func(t *testing.T) {
		s := load(t, files(rules[0], yaml[4]))
		if q := asked(t, s, "", "POST", "/treasury/a/payments"); len(q.Scopes) != 1 || !q.Session {
			t.Errorf("a payment: %+v", q)
		}
		if q := asked(t, s, "", "GET", "/status"); q.Session {
			t.Errorf("the status: %+v", q)
		}
	})
	t.Run("a test", func(t *testing.T) {
		fsys := shippedFiles(t)
		fsys["export_test.rego"] = &fstest.MapFile{Data: []byte(rules[1])}
		report, err := policy.Test(context.Background(), fsys, "")
		if err != nil || !report.Passed() || len(report.Results) != 1 {
			t.Errorf("report %+v, error %v", report, err)
		}
	})
}

// The manual names every demand that an environment can switch on or off, and no others.
func TestTheManualNamesEveryOption(t *testing.T) {
	text, err := os.ReadFile("../docs/writing-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "**Close what Dynamic leaves open.**")
	options, _, _ := strings.Cut(after, "**Narrow what a step-up may ask for.**")
	operations, _ := shippedSnapshot(t, policy.Config{}).Plain()["operations"].(map[string]any)
	for name, plain := range operations {
		o, _ := plain.(map[string]any)
		optional := o["scopes"] != nil && o["always"] == nil && o["mfa_action"] == nil || o["by_default"] != nil
		if strings.Contains(options, "`"+name+"`") != optional {
			t.Errorf("%s: that it is in the manual's options is %v", name, !optional)
		}
	}
}
