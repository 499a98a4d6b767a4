package policy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/policy"
)

const anyRule = `package stepward

requirement := {"operation": input.operation, "session": false}
`

// files makes a policy of one rule file and one data file.
func files(rule, data string) fstest.MapFS {
	return fstest.MapFS{"requirement.rego": {Data: []byte(rule)}, "data.yaml": {Data: []byte(data)}}
}

func withRoutes(patterns ...string) string {
	var b strings.Builder
	b.WriteString("routes:\n")
	for i, p := range patterns {
		fmt.Fprintf(&b, "  %q: {operation: op%d}\n", p, i)
	}
	return b.String()
}

func load(t testing.TB, fsys fstest.MapFS) *policy.Snapshot {
	t.Helper()
	e, err := policy.New(context.Background(), policy.Config{FS: fsys, EvalTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return e.Snapshot()
}

func TestMatch(t *testing.T) {
	snap := load(t, files(anyRule, withRoutes(
		"GET /users", "POST /users/{id}", "GET /users/me", "/any", "GET /files/{path...}", "GET /slash/{$}", "GET /tree/",
		"GET /users/{id}/keys/{key}", "GET /users/me/keys/{key}/raw", "GET /Camel/Case", "GET /plus+sign",
	)))
	for _, c := range []struct {
		name, method, path string
		want               string // pattern, "405 …", "ambiguous" or ""
		params             string
	}{
		{"a literal", "GET", "/users", "GET /users", ""},
		{"HEAD gets the GET route", "HEAD", "/users", "GET /users", ""},
		{"the wrong method", "DELETE", "/users", "405 GET,HEAD", ""},
		{"every method", "DELETE", "/any", "/any", ""},
		{"a wildcard", "POST", "/users/42", "POST /users/{id}", "id=42"},
		{"an encoded wildcard is decoded once", "POST", "/users/a%20b", "POST /users/{id}", "id=a b"},
		{"a literal beats a wildcard", "GET", "/users/me", "GET /users/me", ""},
		{"but not where only the wildcard has the method", "POST", "/users/me", "POST /users/{id}", "id=me"},
		{"backtracking behind a literal", "GET", "/users/me/keys/k", "GET /users/{id}/keys/{key}", "id=me key=k"},
		{"the deeper literal", "GET", "/users/me/keys/k/raw", "GET /users/me/keys/{key}/raw", "key=k"},
		{"the rest", "GET", "/files/a/b%20c", "GET /files/{path...}", "path=a/b c"},
		{"an empty rest", "GET", "/files/", "GET /files/{path...}", "path="},
		{"a slash where the pattern ends with one", "GET", "/slash/", "GET /slash/{$}", ""},
		{"no slash where the pattern ends with one", "GET", "/slash", "ambiguous", ""},
		{"a subtree", "GET", "/tree/x/y", "GET /tree/", "=x/y"},
		{"nothing", "GET", "/nothing", "", ""},
		{"a trailing slash", "GET", "/users/", "ambiguous", ""},
		{"another case", "GET", "/USERS", "ambiguous", ""},
		{"another case of a mixed literal", "GET", "/camel/case", "ambiguous", ""},
		{"a literal in another case where a wildcard would take it", "POST", "/users/ME", "POST /users/{id}", "id=ME"},
		{"a literal in another case that means another route", "GET", "/users/ME", "ambiguous", ""},
		{"a needless escape of a literal", "GET", "/plus%2Bsign", "ambiguous", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m policy.Match
			snap.Match(c.method, c.path, &m)
			got := ""
			switch {
			case m.Ambiguous:
				got = "ambiguous"
			case m.Route != nil:
				got = m.Route.Pattern
			case len(m.Allow) > 0:
				got = "405 " + strings.Join(m.Allow, ",")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			var params []string
			for _, p := range m.Params {
				params = append(params, p.Name+"="+p.Value)
			}
			if got := strings.Join(params, " "); got != c.params {
				t.Errorf("params %q, want %q", got, c.params)
			}
		})
	}
	if !snap.HasPath("/users") || snap.HasPath("/nothing") {
		t.Error("HasPath disagrees with Match")
	}
}

func TestPatternsThatCannotStandTogether(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns []string
		want     string
	}{
		{"equal shapes", []string{"GET /a/{x}", "GET /a/{y}"}, "conflicts with"},
		{"only case apart", []string{"GET /a", "GET /A"}, "conflicts with"},
		{"only a slash apart", []string{"GET /a", "GET /a/{$}"}, "conflicts with"},
		{"only a slash apart, and one for every method", []string{"/a", "GET /a/{$}"}, "conflicts with"},
		{"only case apart, and HEAD is GET's as well", []string{"GET /a", "HEAD /A"}, "conflicts with"},
		{"a lower-case method", []string{"get /a"}, `method "get"`},
		{"a host", []string{"GET example.com/a"}, "begins with a slash"},
		{"an empty segment", []string{"GET /a//b"}, "empty segment"},
		{"half a wildcard", []string{"GET /a{x}"}, "must be a whole segment"},
		{"a rest in the middle", []string{"GET /{x...}/a"}, "wildcard {x...}"},
		{"a name twice", []string{"GET /{x}/{x}"}, "occurs twice"},
		{"a literal that no canonical path has", []string{"GET /a%2fb"}, "can never match"},
		{"a dot segment", []string{"GET /a/../b"}, "can never match"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := policy.New(context.Background(), policy.Config{FS: files(anyRule, withRoutes(c.patterns...))})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "data.yaml") {
				t.Errorf("error %v, want one that contains %q", err, c.want)
			}
		})
	}
}

func TestPatternsThatServeMuxWouldRefuse(t *testing.T) {
	snap := load(t, files(anyRule, withRoutes("GET /a/{x}/c", "GET /a/b/{y}", "GET /{z}/b/c")))
	var m policy.Match
	snap.Match("GET", "/a/b/c", &m)
	if m.Route == nil || m.Route.Pattern != "GET /a/b/{y}" {
		t.Errorf("matched %+v, want the literal at the leftmost difference", m.Route)
	}
}

func FuzzMatchNeverPanicsAndIsStable(f *testing.F) {
	snap := load(f, files(anyRule, withRoutes("GET /users/{id}", "GET /users/me", "GET /files/{path...}", "/any", "GET /slash/{$}")))
	for _, s := range []string{"/users/me", "/users/%4De", "/files//", "/any/", "/slash"} {
		f.Add("GET", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		if path == "" || path[0] != '/' {
			return
		}
		var a, b policy.Match
		snap.Match(method, path, &a)
		snap.Match(method, path, &b)
		if a.Route != b.Route || a.Ambiguous != b.Ambiguous || !slices.Equal(a.Params, b.Params) {
			t.Errorf("two answers for %q: %+v %+v", path, a, b)
		}
		if a.Route != nil && a.Ambiguous {
			t.Errorf("%q is both matched and ambiguous", path)
		}
	})
}

func TestMatchingAllocatesNothing(t *testing.T) {
	snap := load(t, files(anyRule, withRoutes("POST /sdk/{environmentId}/waas/{walletId}/privateKey/export")))
	m := policy.Match{Params: make([]policy.Param, 0, 4)}
	if n := testing.AllocsPerRun(100, func() { snap.Match("POST", "/sdk/e/waas/w/privateKey/export", &m) }); n > 0 || m.Route == nil {
		t.Errorf("%v allocations, route %v", n, m.Route)
	}
}

func TestEnvironmentsThatImitateAListedOne(t *testing.T) {
	s := load(t, files(anyRule, withRoutes("GET /a")+"environments: {default: {mode: enforce}, Kiosk-1: {}, kiosk-1: {}, plain: {}}\n"))
	for id, want := range map[string]bool{
		"plain": false, "PLAIN": true, "Plain": true, "Kiosk-1": false, "kiosk-1": false, "KIOSK-1": true, "\u212aiosk-1": true, "other": false, "": false,
	} {
		if got := s.ImitatesEnvironment(id); got != want {
			t.Errorf("%q: got %t, want %t", id, got, want)
		}
	}
}
