package policy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

// tricky are rules that read the input in ways of which a cache's key could lose sight. Each defines answer, and the
// requirement tells any two answers apart.
var tricky = []struct{ name, rules string }{
	{"the whole input", `answer := input`},
	{"the whole request", `answer := input.request`},
	{"whole members", `answer := [x | some x in [input.params, input.client, input.device, input.environment]]`},
	{"the whole session", `answer := [s | s := input.session]`},
	{"whole headers, query and body", `answer := [x | some x in [[h | h := input.request.headers], [q | q := input.request.query], [b | b := input.request.body]]]`},
	{"a route", `answer := input.route`},
	{"the operation", `answer := input.operation`},
	{"two headers", `answer := [[v | v := input.request.headers["x-a"]], [v | v := input.request.headers["x-b"]]]`},
	{"two claims", `answer := [[v | v := input.session.a], [v | v := input.session.b]]`},
	{"two members of a body", `answer := [[v | v := input.request.body.a], [v | v := input.request.body.b]]`},
	{"single texts", `answer := [input.route, input.operation, input.request.method, input.request.path, input.request.host]`},
	{"the input in a variable", "answer := [x.session | x := input]"},
	{"a member named by a variable", `answer := {k: v | some k in ["session", "device", "nothing"]; v := input[k]}`},
	{"a member named by the input", `answer := {v | v := input[input.request.body.a]}`},
	{"a claim named by a variable", `answer := {k: v | some k in ["sub", "roles"]; v := input.session[k]}`},
	{"a claim named by a parameter", `answer := [v | v := input.session[input.params.id]]`},
	{"object.get", `answer := [object.get(input, ["session", "sub"], "none"), object.get(input, "session", "none")]`},
	{"object.get of the session", `answer := [v | v := object.get(input.session, "sub", "none")]`},
	{"a default for a claim", "default answer := \"none\"\n\nanswer := input.session.sub"},
	{"a comprehension over the input", `answer := {k: v | some k, v in input}`},
	{"keys only", `answer := {k | some k, _ in input.session}`},
	{"how many headers", `answer := [n | n := count(input.request.headers["x-a"])]`},
	{"walk", `answer := [[p, v] | walk(input.session, [p, v])]`},
	{"walk of everything", `answer := {p | walk(input, [p, _])}`},
	{"json.filter", `answer := json.filter(input, ["session/sub", "request/headers/x-a"])`},
	{"a printed input", `answer := sprintf("%v", [object.get(input, "session", null)])`},
	{"a template text", "answer := $\"{input.session.sub} and {input.request.headers[\"x-a\"]}\""},
	{"the first header", `answer := [v | v := input.request.headers["x-a"][0]]`},
	{"the last header", `answer := [v | h := input.request.headers["x-b"]; v := h[count(h) - 1]]`},
	{"any header", `answer := {v | v := input.request.headers[_][_]}`},
	{"a query by name", `answer := {v | v := input.request.query.a[_]}`},
	{"the second of a query", `answer := [v | v := input.request.query.b[1]]`},
	{"two of a query", `answer := [[v | v := input.request.query.a], [v | v := input.request.query.b]]`},
	{"names of the query", `answer := {k | input.request.query[k]}`},
	{"deep in a body", `answer := [v | v := input.request.body.a.b]`},
	{"an element of a body", `answer := [v | v := input.request.body.a[0].b]`},
	{"two depths of a body", `answer := [[v | v := input.request.body.a.b.c], [v | v := input.request.body.b]]`},
	{"a body that is a list", `answer := [v | v := input.request.body[1]]`},
	{"the type of a body", `answer := [v | v := type_name(input.request.body)]`},
	{"whether there is a body", "default answer := false\n\nanswer if input.request.body"},
	{"null and absent", "default answer := \"absent or false\"\n\nanswer := \"null\" if input.session.sub == null\n\nanswer := \"empty\" if input.session.sub == \"\""},
	{"a negated claim", "default answer := false\n\nanswer if not input.session.admin"},
	{"a negated session", "default answer := false\n\nanswer if not input.session"},
	{"a negated header", "default answer := false\n\nanswer if not \"1\" in input.request.headers[\"x-a\"]"},
	{"numbers", "default answer := \"another\"\n\nanswer := \"one\" if input.session.n == 1\n\nanswer := \"more\" if input.session.n > 1"},
	{"arithmetic", `answer := [v | v := input.session.n + input.session.exp]`},
	{"a claim of any type", `answer := [[type_name(v), v] | v := input.session.n]`},
	{"with input as", "answer := [v | v := inner with input as object.union(input, {\"operation\": \"x\"})]\n\ninner := input.session.sub"},
	{"with a member as another", "answer := [v | v := inner with input.session.sub as input.request.method]\n\ninner := [input.session.sub, input.operation]"},
	{"with the session as the body", "answer := [v | v := inner with input.session as input.request.body]\n\ninner := input.session.a"},
	{"with data as a claim", "answer := [v | v := inner with data.stepward.options as input.session.roles]\n\ninner := data.stepward.options"},
	{"with a function", "answer := [v | v := f(1) with f as input.session.n]\n\nf(x) := x + 1"},
	{"a function of the input", "answer := [v | v := f(input)]\n\nf(x) := x.session.sub"},
	{"a function of the session", "answer := [v | v := f(input.session, \"roles\")]\n\nf(x, k) := x[k]"},
	{"a function that reads", "answer := [v | v := f(\"sub\")]\n\nf(k) := input.session[k]"},
	{"a partial set", "answer := roles\n\nroles contains r if some r in input.session.roles"},
	{"a partial object", "answer := members\n\nmembers[k] := v if some k, v in input.request.headers"},
	{"a head that reads", "answer := seen\n\nseen[input.environment.id] := input.request.method"},
	{"a deep head that reads", "answer := seen\n\nseen[input.request.method].x[input.environment.id] := true"},
	{"else", "answer := \"a\" if {\n\tinput.session.sub == \"a\"\n} else := [input.request.method] if {\n\tinput.device.state == \"registered\"\n} else := [v | v := input.session.roles]"},
	{"every", "default answer := false\n\nanswer if {\n\tevery r in input.session.roles { r != input.request.method }\n}"},
	{"an import", "import input.session as me\nimport input.request.headers\n\nanswer := [[v | v := me.sub], [v | v := headers[\"x-a\"]]]"},
	{"data by operation", `answer := [v | v := data.stepward.options[input.operation]]`},
	{"data by a claim", `answer := [v | v := data.stepward.options[input.session.roles[_]]]`},
	{"a rule by a claim", "answer := [v | v := data.stepward.rules[input.session.sub]]\n\nrules.a := input.request.method\n\nrules.b := input.request.host"},
	{"all of data", "answer := data.other\n"},
	{"a literal indexed", `answer := [v | v := [input.session.sub, input.session.n][input.session.i]]`},
	{"an object indexed", `answer := [v | v := {"a": input.session.n, "b": input.request.host}[input.session.sub]]`},
	{"a call indexed", `answer := [v | v := split(input.request.path, "/")[1]]`},
	{"a set of the input", `answer := [v | v := {input.session.sub, input.request.method}]`},
	{"a nested reference", `answer := [v | v := input.request.headers[input.request.query.a[0]][0]]`},
	{"object keys", `answer := {input.operation: {input.request.method: 1}}`},
	{"parameters", `answer := [[v | v := input.params.id], [v | v := input.params.rest]]`},
	{"any parameter", `answer := {v | some v in input.params}`},
	{"unification", "answer := [x | {\"sub\": x, \"n\": 1} = input.session]"},
	{"array unification", "answer := [x | [x, _] = input.session.roles]"},
	{"alternatives", "answer := [x | x := \"a\"; any_of]\n\nany_of if input.session.a\n\nany_of if input.request.body.a"},
	{"versions", `answer := [input.client.api_version, input.client.sdk, input.client.sdk_version]`},
	{"a claim without a type", "default answer := 0\n\nanswer := count(input.session.roles)"},
	{"an error of a builtin", "default answer := 0\n\nanswer := to_number(input.session.n) if input.session.n"},
}

const trickyData = `
routes:
  "POST /w/{id}/k/{key}": {operation: a, read_body: 65536}
  "GET /w/{id}": {operation: b}
  "GET /rest/{rest...}": {operation: c}
  "GET /tree/": {operation: a}
  /any: {operation: d}
input_headers: [x-a, x-b]
options: {a: 1, b: {c: [2]}, sub: x}
`

func trickyPolicy(rules string) fstest.MapFS {
	imports, rest := "", rules
	for strings.HasPrefix(rest, "import ") {
		line, after, _ := strings.Cut(rest, "\n")
		imports, rest = imports+line+"\n", after
	}
	// json.marshal makes no difference between a set and a list, and none is needed: the same rules make both.
	fsys := files("package stepward\n\n"+imports+
		"requirement := {\"operation\": crypto.sha1(json.marshal(object.get({\"x\": answer}, \"x\", 0))), \"session\": false}\n\n"+rest+"\n", trickyData)
	fsys["other.rego"] = &fstest.MapFile{Data: []byte("package other\n\nx if input.session.other\n\ny := [v | v := input.request.query.other]\n")}
	return fsys
}

// pair is one policy twice: as it is used, and without a cache and without a projection of the input.
type pair struct {
	name         string
	cached, full *policy.Snapshot
}

// hits counts answers that were remembered ones.
var hits atomic.Int64

// pairs are compiled once for all tests, for they are many.
var pairs = sync.OnceValues(func() ([]pair, error) {
	out := []pair{{name: "the shipped policy"}}
	fsyss := []fs.FS{rego.FS}
	for _, c := range tricky {
		out = append(out, pair{name: c.name})
		fsyss = append(fsyss, trickyPolicy(c.rules))
	}
	for i, fsys := range fsyss {
		cached, err := policy.New(context.Background(), policy.Config{FS: fsys, EvalTimeout: time.Minute, OnCache: func(hit bool) {
			if hit {
				hits.Add(1)
			}
		}})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", out[i].name, err)
		}
		full, err := policy.New(context.Background(), policy.Config{FS: fsys, EvalTimeout: time.Minute, ShowAll: true})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", out[i].name, err)
		}
		if out[i].cached, out[i].full = cached.Snapshot(), full.Snapshot(); !out[i].cached.Cached() || out[i].full.Cached() {
			return nil, fmt.Errorf("%s: cached %v and %v", out[i].name, out[i].cached.Cached(), out[i].full.Cached())
		}
	}
	return out, nil
})

func allPairs(tb testing.TB) []pair {
	tb.Helper()
	all, err := pairs()
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// same requires one answer of both. Errors are not compared: that there is one is the answer.
func (p pair) same(t *testing.T, in *policy.Input) {
	t.Helper()
	got, gotErr := p.cached.Require(context.Background(), in)
	want, wantErr := p.full.Require(context.Background(), in)
	if (gotErr != nil) != (wantErr != nil) || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %s\ncached   %+v, error %v\nuncached %+v, error %v", p.name, describe(in), got, gotErr, want, wantErr)
	}
}

func describe(in *policy.Input) string {
	route := ""
	if in.Match != nil && in.Match.Route != nil {
		route = in.Match.Route.Pattern
	}
	c := *in
	c.Match = nil // a pointer, which tells nothing
	return fmt.Sprintf("route %q %+v", route, c)
}

// choices turns the fuzzer's bytes into decisions; when they run out the first alternative is taken.
type choices []byte

func (c *choices) next(n int) int {
	if len(*c) == 0 {
		return 0
	}
	v := int((*c)[0]) % n
	*c = (*c)[1:]
	return v
}

func pick[T any](c *choices, from ...T) T { return from[c.next(len(from))] }

// word takes texts that are likely to be mistaken for one another, or for an encoding's marks.
func (c *choices) word() string {
	return pick(c, "a", "", "b", "c", "sub", "session", "1", "null", "-", "+", "a\x00b", "\x01a", "s\x01a", "ab", "x-a", "registered", "é", "id", "other")
}

func (c *choices) value(depth int) any {
	n := 11
	if depth > 3 {
		n = 8
	}
	switch c.next(n) {
	case 0:
		return c.word()
	case 1:
		return nil
	case 2:
		return true
	case 3:
		return false
	case 4:
		return json.Number(pick(c, "1", "0", "-0", "1.0", "1e0", "10e-1", "0.1", "1e300", "123456789012345678901234567890"))
	case 5:
		return []any{}
	case 6:
		return map[string]any{}
	case 7:
		return []any{c.word()}
	case 8:
		return []any{c.value(depth + 1), c.value(depth + 1)}
	default:
		m := map[string]any{}
		for range c.next(4) + 1 {
			m[c.name()] = c.value(depth + 1)
		}
		return m
	}
}

// name takes names that policies ask for.
func (c *choices) name() string {
	return pick(c, "a", "b", "c", "sub", "n", "roles", "admin", "scope", "requestedScopes", "exp", "i", "other", "")
}

func (c *choices) body() any {
	if c.next(3) > 0 {
		return map[string]any{
			"requestedScopes": pick[any](c, []any{"wallet:export"}, []any{}, "wallet:export", nil, []any{""}, []any{json.Number("1")}, c.value(2)),
			c.name():          c.value(0),
		}
	}
	return c.value(0)
}

func (c *choices) session() map[string]any {
	switch c.next(4) {
	case 0:
		return map[string]any{"sub": c.word(), c.name(): c.value(0), "scope": pick[any](c, "user:basic", "userDataForm", "userDataForm device:register", c.value(2))}
	case 1:
		return nil
	case 2:
		return map[string]any{}
	}
	return map[string]any{c.name(): c.value(0), "n": c.value(3)}
}

func (c *choices) match(s *policy.Snapshot) *policy.Match {
	switch c.next(8) {
	case 0:
		return nil
	case 1:
		return &policy.Match{}
	}
	routes := s.Routes()
	r := routes[(c.next(256)<<8|c.next(256))%len(routes)]
	m := &policy.Match{Route: r}
	for _, segment := range strings.Split(r.Pattern, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok && name != "$}" {
			m.Params = append(m.Params, policy.Param{Name: strings.TrimRight(name, ".}"), Value: c.word()})
		}
	}
	if strings.HasSuffix(r.Pattern, "/") {
		m.Params = append(m.Params, policy.Param{Value: c.word()})
	}
	return m
}

func (c *choices) header() http.Header {
	h := http.Header{}
	for range c.next(4) {
		name := pick(c, "X-A", "X-B", "X-C", "Authorization")
		switch c.next(4) {
		case 0:
			h[name] = []string{}
		default:
			h[name] = append(h[name], c.word())
		}
	}
	return h
}

func (c *choices) query() string {
	q := url.Values{}
	for range c.next(4) {
		q.Add(pick(c, "a", "b", "other", ""), c.word())
	}
	return pick(c, q.Encode(), q.Encode()+"&", "a", "a=", "a=%zz", "a;b", "", "%61=1", "a=1&b=%zz", "b=1&a=2&%61=3", "a=1;b=2", "%a=1&a+=2")
}

// change changes one thing about the input.
func (c *choices) change(in *policy.Input, s *policy.Snapshot) {
	switch c.next(16) {
	case 0:
		in.Match = c.match(s)
	case 1:
		in.Method = pick(c, "GET", "POST", "a", "")
	case 2:
		in.Path = "/" + c.word() + "/" + c.word()
	case 3:
		in.RawQuery = c.query()
	case 4:
		in.Host = c.word()
	case 5:
		in.Header = c.header()
	case 6:
		in.Body = c.body()
	case 7:
		in.Environment = pick(c, "", "default", "a", "00000000-0000-4000-8000-000000000000")
	case 8:
		in.Client = policy.Client{APIVersion: pick(c, "", "2026_04_01"), SDK: c.word(), SDKVersion: pick(c, "", "1.0.0", "a")}
	case 9:
		in.Session = c.session()
	case 10:
		in.Device = policy.Device{State: pick(c, policy.Registered, policy.Unregistered, policy.DeviceUnknown, ""), ID: c.word()}
	case 11: // one claim
		session := maps.Clone(in.Session)
		if session == nil {
			session = map[string]any{}
		}
		session[c.name()] = c.value(0)
		in.Session = session
	case 12: // the rest looks for inputs that a careless encoding takes for one another
		if in.Session == nil {
			in.Session = map[string]any{}
		} else if session, ok := c.twin(in.Session).(map[string]any); ok {
			in.Session = session
		} else {
			in.Session = nil
		}
	case 13:
		in.Body = c.twin(in.Body)
	case 14:
		a, b := in.Header["X-A"], in.Header["X-B"]
		in.Header = pick(c, http.Header{"X-A": b, "X-B": a}, http.Header{"X-A": append(slices.Clone(a), b...)}, http.Header{"X-B": append(slices.Clone(a), b...)})
	case 15:
		if in.Match != nil && in.Match.Route != nil {
			in.Match = &policy.Match{Route: pick(c, s.Routes()...), Params: in.Match.Params}
		}
	}
}

// twin is a value that resembles v.
func (c *choices) twin(v any) any {
	switch v := v.(type) {
	case string:
		return pick[any](c, v, []any{v}, json.Number("1"), nil, v+"a", v+"\x00")
	case []any:
		switch {
		case len(v) == 0:
			return pick[any](c, nil, map[string]any{}, "", []any{nil}, false)
		case c.next(2) == 0: // the last one moves into the list before it, or out of it
			list := slices.Clone(v)
			last := list[len(list)-1]
			if inner, ok := last.([]any); ok && len(inner) > 0 {
				list[len(list)-1] = inner[:len(inner)-1]
				return append(list, inner[len(inner)-1])
			}
			list[len(list)-1] = []any{last}
			return list
		}
		list := slices.Clone(v)
		i := c.next(len(list))
		list[i] = c.twin(list[i])
		return list
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		if len(names) == 0 {
			return pick[any](c, nil, []any{}, map[string]any{"": nil})
		}
		m := maps.Clone(v)
		name := names[c.next(len(names))]
		switch c.next(3) {
		case 0:
			m[name] = c.twin(m[name])
		case 1:
			delete(m, name)
		case 2:
			m[c.name()] = m[name]
			delete(m, name)
		}
		return m
	}
	return pick[any](c, nil, false, true, json.Number("0"), json.Number("1"), "null", []any{}, map[string]any{})
}

// What is remembered is what would have been evaluated: random inputs that differ in few places, so that a key that loses
// sight of one of them is found out.
func FuzzCachedRequirementIsTheEvaluatedOne(f *testing.F) {
	all := allPairs(f)
	for i := range all {
		f.Add([]byte{byte(i), 9, 0, 0, 9, 1, 9, 2, 9, 3, 5, 1, 0, 1, 5, 2, 0, 1, 1, 0, 6, 1, 2, 3})
		f.Add([]byte{byte(i), 0, 2, 0, 7, 6, 0, 0, 9, 0, 4, 4, 4, 11, 3, 4, 0, 11, 3, 4, 3, 11, 3, 1, 11, 3, 0, 0})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := choices(data)
		all[c.next(len(all))].sequence(t, &c)
	})
}

// sequence asks for inputs of which each differs from the one before in one place or two. The cache is empty at its
// beginning, so that the bytes alone make a failure.
func (p pair) sequence(t *testing.T, c *choices) {
	t.Helper()
	p.cached.Forget()
	in := &policy.Input{Match: c.match(p.cached)}
	for range 12 {
		p.same(t, in)
		next := *in
		c.change(&next, p.cached)
		if c.next(4) == 0 { // so that one can make up for the other
			c.change(&next, p.cached)
		}
		in = &next
	}
}

// The same without a fuzzer, for every policy alike, and a proof that it compares something: remembered answers.
func TestCachedRequirementIsTheEvaluatedOne(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	before := hits.Load()
	for _, p := range allPairs(t) {
		for range 12 {
			c := make(choices, 300)
			for i := range c {
				c[i] = byte(random.Uint32())
			}
			p.sequence(t, &c)
		}
	}
	if n := hits.Load() - before; n < 1000 {
		t.Errorf("only %d answers were remembered ones", n)
	}
}

// plainValues are all small JSON values over few texts, and lists and objects of them: every pair that a careless encoding
// would take for one another is among them.
func plainValues() []any {
	scalars := []any{nil, true, false, "", "a", "1", "\x01", json.Number("0"), json.Number("1"), json.Number("11")}
	values := slices.Clone(scalars)
	lists := func(of []any) {
		values = append(values, []any{})
		for _, a := range of {
			values = append(values, []any{a})
			for _, b := range of {
				values = append(values, []any{a, b})
			}
		}
	}
	lists(scalars)
	lists([]any{nil, "a", []any{}, []any{"a"}, []any{"a", "a"}, []any{nil}, map[string]any{}, map[string]any{"a": "a"}, map[string]any{"": nil}})
	values = append(values, map[string]any{})
	for _, a := range scalars {
		values = append(values, map[string]any{"": a}, map[string]any{"a": a})
		for _, b := range scalars {
			values = append(values, map[string]any{"": a, "a": b})
		}
	}
	return append(values, map[string]any{"a": map[string]any{"a": "a"}}, map[string]any{"a": map[string]any{}, "b": "a"})
}

// Every input is asked for while all the others are remembered.
func TestNoTwoInputsShareAnAnswerThatIsNotTheirs(t *testing.T) {
	policies := map[string]pair{}
	for _, p := range allPairs(t) {
		policies[p.name] = p
	}
	match := &policy.Match{}
	texts := [][]string{nil, {""}, {"a"}, {"", ""}, {"a", ""}, {"", "a"}, {"a", "a"}, {"\x00"}, {"\x01a"}, {"aa"}, {"a\x01a"}}
	values := plainValues()
	claims := func(f func(session map[string]any)) {
		f(nil)
		f(map[string]any{})
		for _, a := range values {
			f(map[string]any{"a": a})
			f(map[string]any{"n": a})
		}
		few := []any{nil, false, "", "a", []any{}, []any{nil}, []any{"a"}, map[string]any{}, map[string]any{"b": "a"}, map[string]any{"b": map[string]any{"c": nil}}}
		for _, a := range few {
			for _, b := range few {
				f(map[string]any{"a": a, "b": b})
			}
		}
	}
	for _, name := range []string{
		"a claim of any type", "two claims", "the whole session", "object.get of the session", "a default for a claim", "walk", "keys only",
		"null and absent", "a negated session", "whole members", "json.filter",
	} {
		claims(func(session map[string]any) { policies[name].same(t, &policy.Input{Match: match, Session: session}) })
	}
	for _, name := range []string{"two members of a body", "deep in a body", "two depths of a body", "a body that is a list", "whether there is a body", "the type of a body"} {
		for _, v := range values {
			policies[name].same(t, &policy.Input{Match: match, Body: v})
		}
		claims(func(body map[string]any) { policies[name].same(t, &policy.Input{Match: match, Body: any(body)}) })
	}
	for _, name := range []string{"two headers", "any header", "the first header", "whole headers, query and body", "a negated header", "how many headers"} {
		for _, a := range texts {
			for _, b := range texts {
				policies[name].same(t, &policy.Input{Match: match, Header: http.Header{"X-A": a, "X-B": b}})
			}
		}
	}
	for _, name := range []string{"single texts", "the whole request", "whole members", "versions", "the whole input"} {
		words := []string{"", "a", "\x01a", "a\x00", "aa", "\x00"}
		for _, a := range words {
			for _, b := range words {
				for _, c := range words {
					policies[name].same(t, &policy.Input{Match: match, Method: a, Path: b, Host: c})
					policies[name].same(t, &policy.Input{Match: match, Path: a, Host: b, RawQuery: c})
					policies[name].same(t, &policy.Input{Match: match, Client: policy.Client{APIVersion: a, SDK: b, SDKVersion: c}})
					policies[name].same(t, &policy.Input{Match: match, Environment: a, Device: policy.Device{State: policy.DeviceState(b), ID: c}})
				}
			}
		}
	}
	for _, name := range []string{"parameters", "any parameter", "whole members"} {
		for _, list := range [][]policy.Param{
			nil, {{Name: "id"}}, {{Name: "id", Value: "a"}}, {{Name: "i", Value: "da"}}, {{Name: "id", Value: "a"}, {Name: "rest"}},
			{{Name: "rest", Value: "a"}, {Name: "id"}}, {{Name: "id", Value: "\x04rest"}}, {{Name: "id", Value: ""}, {Name: "rest", Value: ""}}, {{Name: "", Value: "id"}},
		} {
			policies[name].same(t, &policy.Input{Match: &policy.Match{Route: policies[name].cached.Routes()[0], Params: list}})
		}
	}
}

// Nothing in a token or a body has such values; a caller that makes them is answered for no other one.
func TestValuesThatJSONDoesNotHave(t *testing.T) {
	for _, p := range allPairs(t) {
		if p.name != "a claim of any type" && p.name != "the whole session" {
			continue
		}
		for _, v := range []any{
			math.NaN(), math.Inf(1), 0.1, float32(0.1), 1, int64(1), uint64(1), 1.0, []string{"\xff"}, []string{"\xfe"}, []string{"\ufffd"}, "\xff", "\xfe",
			map[string]string{"a": "\xff"}, map[string]string{"a": "\xfe"}, func() {}, json.Number("1e999999999999"), json.Number("x"), []int{1}, struct{ A string }{"\xff"},
		} {
			p.same(t, &policy.Input{Session: map[string]any{"n": v}})
		}
	}
}

func TestTheShippedPolicyReadsLittle(t *testing.T) {
	got := fmt.Sprint(shippedSnapshot(t, policy.Config{}).Reads())
	if want := "[[operation] [environment id] [session scope] [request body allowNewMFALinking] [request body businessAccountId] " +
		"[request body jwt] [request body redirectUrl] [request body requestedScopes] [request body state] [request headers origin] " +
		"[request query redirect_uri] [request query state]]"; got != want {
		t.Errorf("reads %s, want %s: every further one makes the cache answer less often", got, want)
	}
}

func TestWhatNobodyReadsIsNoReasonToAskAgain(t *testing.T) {
	var looks []string
	s := shippedSnapshot(t, policy.Config{OnCache: func(hit bool) { looks = append(looks, fmt.Sprint(hit)) }})
	var m policy.Match
	in := exportInput(s, &m)
	for _, change := range []func(){
		func() {}, func() { in.Host, in.RawQuery = "b.example", "a=b" }, func() { in.Session["sub"] = "user-2" }, func() { in.Device.ID = "d-2" },
		func() { m.Params[1].Value = "another wallet" }, func() { in.Body = map[string]any{"a": json.Number("1")} }, func() { in.Environment = "another" },
	} {
		change()
		require(t, s, in)
	}
	if got, want := strings.Join(looks, " "), "false true true true true true false"; got != want {
		t.Errorf("hits %s, want %s", got, want)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	e, err := policy.New(context.Background(), policy.Config{CacheSize: 16, FS: files(
		"package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": input.request.path == \"/0\"}\n", oneRoute)})
	if err != nil {
		t.Fatal(err)
	}
	s := e.Snapshot()
	for range 2 {
		for i := range 100 {
			if q := require(t, s, &policy.Input{Path: fmt.Sprintf("/%d", i)}); q.Session != (i == 0) {
				t.Fatalf("path /%d: session %v", i, q.Session)
			}
			if n := s.Remembered(); n > 16 {
				t.Fatalf("%d requirements are remembered, want at most 16", n)
			}
		}
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	s := load(t, files("package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": true} if not input.client.sdk == \"x\"\n", oneRoute))
	before := s.Remembered()
	if _, err := s.Require(context.Background(), &policy.Input{Client: policy.Client{SDK: "x"}}); err == nil || s.Remembered() != before {
		t.Errorf("error %v, %d remembered, want an error and %d", err, s.Remembered(), before)
	}
}

// Nobody is answered by a policy that is no longer in force.
func TestTheCacheDiesWithItsPolicy(t *testing.T) {
	f := newFolder(generation(1))
	e, err := policy.New(context.Background(), policy.Config{FS: f})
	if err != nil {
		t.Fatal(err)
	}
	old := e.Snapshot()
	ask := func(s *policy.Snapshot) string {
		return require(t, s, &policy.Input{Match: &policy.Match{Route: old.Routes()[0]}}).Operation
	}
	if got := ask(old); got != "data1.rule1" {
		t.Fatalf("operation %q", got)
	}
	next := generation(2)
	f.Store(&next)
	if err := e.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := ask(e.Snapshot()); got != "data1.rule2" {
		t.Errorf("operation %q by the new rules, want data1.rule2", got)
	}
	if got := ask(old); got != "data1.rule1" {
		t.Errorf("operation %q of a request that began before, want data1.rule1", got)
	}
}

// No policy that loads can call such a function, so this is the second lock.
func TestRulesThatAreNotAFunctionOfTheirInputAreNotCached(t *testing.T) {
	for rule, want := range map[string]bool{
		`x := input.session.sub`:                                                       true,
		`x := [y | y := upper(input.session.sub)]`:                                     true,
		`x := time.now_ns()`:                                                           false,
		`x if rand.intn("a", 5) == 1`:                                                  false,
		`x := {y | some y in [1]; z := [w | w := opa.runtime()]; z[0]}`:                false,
		"x if {\n\tfalse\n} else := uuid.rfc4122(\"a\")":                               false,
		`x if every y in [1] { y < time.now_ns() }`:                                    false,
		`x if not time.now_ns() > 1`:                                                   false,
		`f(y) := y + time.now_ns()`:                                                    false,
		"x := y if {\n\ty := input with input as time.now_ns()\n}":                     false,
		"x := y if {\n\ty := upper(\"a\") with upper as g\n}\n\ng(_) := time.now_ns()": false,
		"x := y if {\n\ty := upper(\"a\") with upper as uuid.rfc4122\n}":               false,
	} {
		if got := policy.Deterministic("package a\n\n" + rule + "\n"); got != want {
			t.Errorf("%s: deterministic %v, want %v", rule, got, want)
		}
	}
}

// A new release of OPA brings new functions: look whether they depend on anything but their arguments, then renew the list.
func TestFunctionsThatAPolicyMayCall(t *testing.T) {
	const file = "testdata/builtins.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(policy.Builtins(), "\n") + "\n"
	if got != string(want) {
		t.Errorf("the functions are no longer those of %s:\n%s", file, got)
	}
	for _, word := range []string{"http", "now", "runtime", "lookup", "rand", "uuid.rfc4122", "trace", "decode_verify", "aws"} {
		if strings.Contains(got, word) {
			t.Errorf("a policy may call something with %q in its name", word)
		}
	}
}
