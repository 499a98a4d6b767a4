package policy_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/canon"
	"github.com/stepward/stepward/policy"
)

// shape is a pattern as design.md section 4 describes it, matched one by one: slow, and plain enough to be believed.
type shape struct {
	route    *policy.Route
	method   string
	segments []string
}

func shapes(routes []*policy.Route) []shape {
	var out []shape
	for _, r := range routes {
		method, path, ok := strings.Cut(r.Pattern, " ")
		if !ok {
			method, path = "", r.Pattern
		}
		out = append(out, shape{r, method, strings.Split(strings.TrimLeft(path, " ")[1:], "/")})
	}
	return out
}

// rank orders what a segment of a pattern may be: a literal beats a wildcard, and that beats the rest.
func rank(segment string, last bool) int {
	switch {
	case last && (segment == "" || strings.HasSuffix(segment, "...}")):
		return 2
	case strings.HasPrefix(segment, "{") && segment != "{$}":
		return 1
	}
	return 0
}

// takes reports whether the pattern takes the path's segments. Folded, both are read without regard to case, escapes and a
// slash at the end.
func (s shape) takes(segments []string, folded bool) bool {
	for i, want := range s.segments {
		last := i == len(s.segments)-1
		switch r := rank(want, last); {
		case r == 2:
			return i < len(segments) || folded
		case i == len(segments):
			return false
		case r == 1 && segments[i] == "" && !folded, r == 0 && want == "{$}" && segments[i] != "",
			r == 0 && want != "{$}" && !folded && segments[i] != want, r == 0 && folded && segments[i] != foldText(want):
			return false
		}
	}
	return len(segments) == len(s.segments)
}

func foldText(s string) string { return strings.ToLower(canon.Unescape(s)) }

// compare is negative where s beats t: literal before wildcard at the leftmost difference.
func (s shape) compare(t shape) int {
	for i := range min(len(s.segments), len(t.segments)) {
		a, b := rank(s.segments[i], i == len(s.segments)-1), rank(t.segments[i], i == len(t.segments)-1)
		if c := cmp.Compare(a, b); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(s.segments), len(t.segments)) // only folded: what ends beats the rest
}

// answers is how well the pattern's method fits: 0 is not at all.
func (s shape) answers(method string) int {
	switch s.method {
	case method:
		return 3
	case "":
		return 1
	}
	if method == "HEAD" && s.method == "GET" {
		return 2
	}
	return 0
}

// folds leaves out the slash that folding does.
func (s shape) folds() shape {
	if last := len(s.segments) - 1; s.segments[last] == "{$}" {
		s.segments = s.segments[:last]
	}
	return s
}

// best is the route for a request among all that take it; two of which none beats the other are an error.
func best(t *testing.T, all []shape, method, path string, folded bool) *policy.Route {
	t.Helper()
	segments := strings.Split(path[1:], "/")
	if folded {
		bare := strings.TrimSuffix(path[1:], "/")
		if segments = nil; bare != "" {
			segments = strings.Split(bare, "/")
		}
		for i := range segments {
			segments[i] = foldText(segments[i])
		}
	}
	var found []shape
	for _, s := range all {
		if folded {
			s = s.folds()
		}
		if s.answers(method) > 0 && s.takes(segments, folded) {
			found = append(found, s)
		}
	}
	order := func(a, b shape) int { return cmp.Or(a.compare(b), b.answers(method)-a.answers(method)) }
	slices.SortFunc(found, order)
	if len(found) == 0 {
		return nil
	}
	if len(found) > 1 && order(found[0], found[1]) == 0 {
		t.Errorf("%s %s: %q and %q stand together and are equally good", method, path, found[0].route.Pattern, found[1].route.Pattern)
	}
	return found[0].route
}

// agrees compares the table with the plain matcher.
func agrees(t *testing.T, s *policy.Snapshot, method, path string) {
	t.Helper()
	all := shapes(s.Routes())
	exact, folded := best(t, all, method, path, false), best(t, all, method, path, true)
	var m policy.Match
	s.Match(method, path, &m)
	want := exact
	if exact != folded {
		want = nil
	}
	if m.Route != want || m.Ambiguous != (exact != folded) {
		t.Errorf("%s %s: route %s, ambiguous %v; want exactly %s, folded %s", method, path, name(m.Route), m.Ambiguous, name(exact), name(folded))
	}
	var allow []string
	for _, method := range []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"} {
		if best(t, all, method, path, false) != nil {
			allow = append(allow, method)
		}
	}
	if m.Route == nil && !m.Ambiguous && !slices.Equal(m.Allow, allow) {
		t.Errorf("%s %s: allows %v, want %v", method, path, m.Allow, allow)
	}
	if s.HasPath(path) != (len(allow) > 0) {
		t.Errorf("%s: has a path %v, allows %v", path, s.HasPath(path), allow)
	}
	for _, p := range m.Params {
		if p.Name != "" && !strings.Contains(m.Route.Pattern, "{"+p.Name) {
			t.Errorf("%s: parameter %q of %q", path, p.Name, m.Route.Pattern)
		}
	}
}

func name(r *policy.Route) string {
	if r == nil {
		return "none"
	}
	return r.Pattern
}

// Whatever patterns stand together, the tree finds what reading them one by one finds.
func FuzzRouteTable(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 1, 1, 3, 1, 2, 1, 4, 0, 0, 1, 3, 1, 1})
	f.Add([]byte("\x08\x01\x02\x03\x04\x05\x01\x02\x03\x09\x01\x02\x01\x01\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := choices(data)
		var patterns []string
		for range c.next(10) + 1 {
			p := pick(&c, "GET ", "POST ", "HEAD ", "", "GET  ")
			for range c.next(4) {
				p += "/" + pick(&c, "a", "A", "{x}", "{y}", "b", "%C3%84", "+", "x.y")
			}
			p += pick(&c, "/a", "/{x}", "/{r...}", "/{$}", "/", "/b", "/A", "/{z}")
			patterns = append(patterns, p)
		}
		s, refused := policy.Table(patterns)
		for _, r := range s.Routes() {
			isServeMuxPattern(t, r.Pattern)
		}
		for p, err := range refused {
			if !strings.Contains(err.Error(), "conflicts with") && !strings.Contains(err.Error(), "occurs twice") {
				t.Errorf("%q: %v", p, err)
			}
		}
		for range 8 {
			path := ""
			for range c.next(6) + 1 {
				path += "/" + pick(&c, "a", "A", "b", "B", "c", "", "%2B", "+", "%C3%84", "%c3%84", "X.Y")
			}
			agrees(t, s, pick(&c, "GET", "POST", "HEAD", "PUT", "get"), path)
		}
		matchThemselves(t, s)
		if routes := s.Routes(); len(routes) > 1 {
			i := c.next(len(routes))
			j := (i + 1 + c.next(len(routes)-1)) % len(routes)
			two, _ := policy.Table([]string{routes[i].Pattern, routes[j].Pattern})
			reachable(t, two, routes[i].Pattern)
			reachable(t, two, routes[j].Pattern)
		}
	})
}

// isServeMuxPattern requires that ServeMux takes the pattern too, where it stands alone.
func isServeMuxPattern(t *testing.T, pattern string) {
	t.Helper()
	defer func() {
		if fault := recover(); fault != nil {
			t.Errorf("ServeMux: %v", fault)
		}
	}()
	http.NewServeMux().Handle(pattern, http.NotFoundHandler())
}

// reachable requires that of two routes neither is for nobody: there is a path that means it and not the other one.
func reachable(t *testing.T, s *policy.Snapshot, pattern string) {
	t.Helper()
	for _, r := range shapes(s.Routes()) {
		if r.route.Pattern != pattern {
			continue
		}
		for _, method := range []string{cmp.Or(r.method, "PUT"), "GET"} {
			for _, rest := range []string{"", "zz~0", "zz~0/zz~0/zz~0/zz~0/zz~0"} {
				path := r.path(rest)
				var m policy.Match
				if s.Match(method, path, &m); m.Route == r.route {
					return
				}
			}
		}
		t.Errorf("no path means %q among %v", pattern, described(s))
	}
}

// path is one that the pattern takes.
func (s shape) path(rest string) string {
	path := ""
	for i, segment := range s.segments {
		switch rank(segment, i == len(s.segments)-1) {
		case 1:
			segment = "zz~0"
		case 2:
			segment = rest
		}
		if segment == "{$}" {
			segment = ""
		}
		path += "/" + segment
	}
	return path
}

// matchThemselves asks for every route with a path made of its own pattern.
func matchThemselves(t *testing.T, s *policy.Snapshot) {
	t.Helper()
	all := shapes(s.Routes())
	for _, r := range all {
		path := r.path("zz~0")
		if target, err := canon.ParseTarget(path); err != nil || target.Path != path {
			t.Errorf("%q: its path %q is not canonical: %v", r.route.Pattern, path, err)
		}
		if !r.takes(strings.Split(path[1:], "/"), false) {
			t.Errorf("%q does not match %q", r.route.Pattern, path)
		}
		method := cmp.Or(r.method, "PUT")
		var m policy.Match
		s.Match(method, path, &m)
		if m.Route != r.route && !m.Ambiguous && (m.Route == nil || shapes([]*policy.Route{m.Route})[0].compare(r) >= 0) {
			t.Errorf("%s %s: route %s, want %q or one that is nearer", method, path, name(m.Route), r.route.Pattern)
		}
		agrees(t, s, method, path)
	}
}

// FuzzData: no panic, and data without a problem says the same when it is written as JSON, and its routes match themselves.
func FuzzData(f *testing.F) {
	for _, text := range []string{
		"", "---", "...", "a", "[]", "? a", "routes: {}", oneRoute, trickyData, oneRoute + "---\n", "&a [*a]", "routes: &r {GET /: {operation: a}}\nx: *r",
		"mount: /api\nroutes:\n  \"GET /{a}/{b...}\": {operation: a, read_body: 1, websocket: true}\ninput_headers: [x-a]\n",
		oneRoute + "a: [1, 0x10, 1.5, 1e3, .inf, ~, true, 2026-04-01, \"\\u0000\", !!str 5, !!int \"5\", !!bool yes, !!null x, !!float 1]\n",
		oneRoute + "operations: {a: {scopes: [a, [b, c]], token: single_use, max_age: 300, release_on: [202], options: {x: 1}}}\nenvironments: {default: {mode: shadow, locked: true}, e: {max_age: {a: 5}, minimum_sdk: {W: \"1.0.0\"}}}\n",
		oneRoute + "environments: {e: {minimum_api_version: \"2026_01_01\", sdk_minimums: off, announced: {minimum_api_version: 2026-04-01, deprecation: 2026-12-01, sunset: \"2027-01-01T00:00:00+01:00\", link: \"https://a\"}}}\n" +
			"known_gaps: [{sdk: ClientSDK, below: \"1.0.0\", note: x, routes: [GET /a]}]\n",
		`{"routes": {"GET /a": {"operation": "a"}}, "x": {"": null, "<<": 1, "~": [[]]}}`, "routes:\n  GET /a: {operation: a}\n  ? [x]\n  : y\n",
		"%YAML 1.1\n---\n" + oneRoute, "\xef\xbb\xbf" + oneRoute, "\xff\xfer\x00", "!!map {routes: !!map {GET /: !!map {operation: !!str a}}}", "routes: {GET /a: {operation: a}, GET /a/: {operation: b}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, problems := policy.Data("data.yaml", text)
		if len(problems) > 0 {
			for _, p := range problems {
				if p.Message == "" || strings.Contains(p.String(), "\n") && !bytes.ContainsAny(text, "\"\r\n|>") {
					t.Errorf("problem %q", p)
				}
			}
			return
		}
		if len(s.Routes()) == 0 {
			t.Fatal("data without routes is accepted")
		}
		for _, r := range s.Routes() {
			if r.Operation == "" || r.ReadBody < 0 {
				t.Errorf("route %+v", r)
			}
		}
		matchThemselves(t, s)
		again, err := json.Marshal(s.Plain())
		if err != nil {
			t.Fatalf("not JSON: %v", err)
		}
		if longKey(s.Plain()) {
			return // YAML has no keys of more than 1024 bytes
		}
		s2, problems := policy.Data("data.json", again)
		if len(problems) > 0 {
			t.Fatalf("as JSON %s: %v", again, problems)
		}
		third, _ := json.Marshal(s2.Plain())
		if !bytes.Equal(again, third) {
			t.Errorf("as JSON\n%s\nit says\n%s", again, third)
		}
		if !reflect.DeepEqual(described(s), described(s2)) || !reflect.DeepEqual(s.InputHeaders(), s2.InputHeaders()) ||
			!reflect.DeepEqual(s.Environments(), s2.Environments()) {
			t.Errorf("as JSON it says something else:\n%v\n%v", described(s), described(s2))
		}
	})
}

func longKey(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			if len(k) > 150 || longKey(item) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, longKey)
	}
	return false
}

func described(s *policy.Snapshot) []string {
	var lines []string
	for _, r := range s.Routes() {
		lines = append(lines, fmt.Sprintf("%+v", *r))
	}
	slices.Sort(lines)
	return lines
}

// FuzzRequirement: no panic; an accepted requirement says all that was written, and nothing that contradicts itself.
func FuzzRequirement(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"operation": "a", "session": true}`, `{"operation": "a", "session": false, "deny": {"code": "a", "message": "b"}}`,
		`{"operation": "a", "session": true, "scopes": ["a", ["b", "c"]], "token": "single_use", "max_age": 300, "device": "any", "minimum_api_version": "2026_04_01",
		  "minimum_sdk": {"WalletKit": "4.76.0"}, "methods": ["totp"], "release_on": [202], "deny": {"code": "a", "message": ""}}`,
		`{"operation": "a", "session": true, "advise_sdk": {"WalletKit": "4.76.0-a+b"}, "announced": {"minimum_api_version": "2026-04-01", "deprecation": "2026-12-01",
		  "sunset": "2027-01-01T00:00:00.5+01:00", "link": "https://a.example/x?y#z"}}`,
		`{"operation": "a", "session": true, "announced": {"minimum_api_version": "2026_04_01", "deprecation": "2026-12-01T09:00:00Z"}}`,
		`{"operation": "a", "session": true, "mfa_action": "b", "mfa_required": true, "scopes": ["c"], "token": "single_use"}`,
		`{"operation": "a", "session": true, "mfa_action": "b"}`, `{"operation": "a", "session": true, "mfa_required": false}`, `{"operation": "a", "session": true, "Scopes": []}`, `{"operation": "a", "session": true, "scopes": [[]]}`,
		`{"operation": "a", "session": true, "max_age": 1e2}`, `{"operation": "a", "session": true, "max_age": -0}`, `{"operation": "a", "session": 1}`,
		`{"operation": "a", "session": true, "minimum_api_version": "2026-04-01"}`, `{"operation": "a", "session": true, "release_on": null}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var plain any
		if d.Decode(&plain) != nil {
			return
		}
		if _, err := d.Token(); err != io.EOF {
			return
		}
		q, err := policy.Decode(plain)
		if err != nil {
			if q != nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("requirement %+v beside error %q", q, err)
			}
			return
		}
		members, ok := plain.(map[string]any)
		if !ok {
			t.Fatalf("%s is accepted", text)
		}
		if got, want := written(q, members), canonical(members); got != want {
			t.Errorf("%s\nread   %s\nwanted %s", text, got, want)
		}
		if q.Operation == "" || !q.Session && (len(q.Scopes) > 0 || q.MFAAction != "" || q.Device == policy.DeviceRegistered) ||
			q.MFAAction == "" && q.UnenrolledPass || q.Token != policy.AnyUse && len(q.Scopes) == 0 {
			t.Errorf("%s contradicts itself: %+v", text, q)
		}
		for _, more := range []string{"", "Scopes", "scope", "allow", "operation "} {
			members[more] = true
			if _, err := policy.Decode(members); err == nil {
				t.Errorf("%s with the member %q is accepted", text, more)
			}
			delete(members, more)
		}
		for _, needed := range []string{"operation", "session"} {
			v := members[needed]
			delete(members, needed)
			if _, err := policy.Decode(members); err == nil {
				t.Errorf("%s without %s is accepted", text, needed)
			}
			members[needed] = v
		}
	})
}

// written is a requirement as a policy would write it, with the members that were there.
func written(q *policy.Requirement, members map[string]any) string {
	deny := map[string]any{}
	if q.Deny != nil {
		deny["code"] = q.Deny.Code
		if object, ok := members["deny"].(map[string]any); ok && object["message"] != nil {
			deny["message"] = q.Deny.Message
		}
	}
	scopes := []any{}
	list, _ := members["scopes"].([]any)
	for i, choice := range q.Scopes {
		if _, nested := list[i].([]any); nested {
			scopes = append(scopes, choice)
		} else {
			scopes = append(scopes, choice[0])
		}
	}
	all := map[string]any{
		"operation": q.Operation, "session": q.Session, "scopes": scopes, "token": q.Token, "max_age": int(q.MaxAge.Seconds()),
		"device":              map[policy.DeviceRule]string{policy.DeviceRegistered: "registered", policy.DeviceAny: "any"}[q.Device],
		"minimum_api_version": q.MinimumAPIVersion, "minimum_sdk": q.MinimumSDK, "mfa_action": q.MFAAction,
		"advise_sdk": q.AdviseSDK, "announced": announcement(q.Announced, members["announced"]),
		"mfa_required": q.MFAAction != "" && !q.UnenrolledPass,
		"methods":      append([]string{}, q.Methods...), "release_on": append([]int{}, q.ReleaseOn...), "deny": deny,
	}
	said := map[string]any{}
	for name := range members {
		said[name] = all[name]
	}
	text, _ := json.Marshal(said)
	return string(text)
}

// announcement is one as a policy would write it, in one spelling.
func announcement(a *policy.Announcement, as any) any {
	members, ok := as.(map[string]any)
	if a == nil || !ok {
		return nil
	}
	all := map[string]any{
		"minimum_api_version": a.Version, "deprecation": a.Deprecation.Format(time.RFC3339Nano), "sunset": a.Sunset.Format(time.RFC3339Nano), "link": a.Link,
	}
	said := map[string]any{}
	for name := range members {
		said[name] = all[name]
	}
	return said
}

// canonical spells the things that have more than one spelling.
func canonical(members map[string]any) string {
	out := map[string]any{}
	for name, v := range members {
		if s, ok := v.(string); ok && name == "minimum_api_version" {
			v = strings.ReplaceAll(s, "-", "_")
		}
		if name == "announced" {
			v = canonicalAnnouncement(v)
		}
		out[name] = v
	}
	text, _ := json.Marshal(out)
	return string(text)
}

func canonicalAnnouncement(v any) any {
	members, ok := v.(map[string]any)
	if !ok {
		return v
	}
	out := map[string]any{}
	for name, v := range members {
		s, _ := v.(string)
		switch name {
		case "minimum_api_version":
			v = strings.ReplaceAll(s, "-", "_")
		case "deprecation", "sunset":
			at, err := time.Parse(time.DateOnly, s)
			if err != nil {
				at, _ = time.Parse(time.RFC3339, s)
			}
			v = at.UTC().Format(time.RFC3339Nano)
		}
		out[name] = v
	}
	return out
}
