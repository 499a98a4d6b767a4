package policy

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"net/url"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
)

// reads lists the parts of the input that a compiled policy can read, as paths below input, shortest first and without
// paths below one another. A path that ends early (a dynamic or whole reference) stands for everything below it.
//
// The requirement cache is sound because a policy is shown exactly these parts (value) and the key holds all of them
// (appendKey), whether the list is complete or not. A part that were missing here would be absent for the policy, so the
// list is taken twice: OPA's dependency analysis and every reference in every rule. The second alone would do; a reference
// that only the first finds would be added all the same.
type reads [][]string

// everything is what an engine without a cache shows.
var everything = reads{nil}

func readable(compiler *ast.Compiler, modules map[string]*ast.Module) reads {
	var found reads
	references(compiler, modules, func(p []string, _ *ast.Location) { found = append(found, p) })
	if base, err := dependencies.Base(compiler, ast.MustParseBody(query)); err == nil {
		for _, ref := range base {
			if p, ok := inputPath(ref); ok {
				found = append(found, p)
			}
		}
	} else {
		found = append(found, nil) // everything
	}
	return found.minimal()
}

// references calls f with every path below input that any rule names.
func references(compiler *ast.Compiler, modules map[string]*ast.Module, f func(p []string, at *ast.Location)) {
	for name := range modules {
		// Not ast.WalkTerms: it also visits the head of every reference, and then each rule would read the whole input.
		var at *ast.Location
		var visitor *ast.GenericVisitor
		visitor = ast.NewGenericVisitor(func(x any) bool {
			switch x := x.(type) {
			case *ast.Rule:
				at = x.Location
			case *ast.Expr:
				at = cmp.Or(x.Location, at)
			case *ast.Term:
				at = cmp.Or(x.Location, at)
			case ast.Ref:
				if p, ok := inputPath(x); ok {
					f(p, at)
				}
				for i, term := range x { // references within the reference
					if _, isName := term.Value.(ast.Var); i > 0 || !isName {
						visitor.Walk(term)
					}
				}
				return true
			case ast.Var:
				if x.Equal(ast.InputRootDocument.Value) { // the bare word input
					f(nil, at)
				}
			}
			return false
		})
		visitor.Walk(compiler.Modules[name])
	}
}

// inputPath is the constant beginning of a reference below input.
func inputPath(ref ast.Ref) (p []string, ok bool) {
	if len(ref) == 0 || !ref[0].Equal(ast.InputRootDocument) {
		return nil, false
	}
	for _, term := range ref.ConstantPrefix()[1:] {
		text, isText := term.Value.(ast.String)
		if !isText {
			break
		}
		p = append(p, string(text))
	}
	return p, true
}

func (rs reads) minimal() reads {
	sort.Slice(rs, func(i, j int) bool {
		if len(rs[i]) != len(rs[j]) {
			return len(rs[i]) < len(rs[j])
		}
		return slices.Compare(rs[i], rs[j]) < 0
	})
	var kept reads
	for _, p := range rs {
		if !kept.cover(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

func (rs reads) cover(p []string) bool {
	return slices.ContainsFunc(rs, func(q []string) bool { return len(q) <= len(p) && slices.Equal(q, p[:len(q)]) })
}

// under reports whether anything at or below the path, or above it, is read.
func (rs reads) under(p ...string) bool {
	return slices.ContainsFunc(rs, func(q []string) bool {
		n := min(len(p), len(q))
		return slices.Equal(p[:n], q[:n])
	})
}

// below is what is read below the member of the given name; everything, if the member itself is.
func (rs reads) below(name string) reads {
	var found reads
	for _, p := range rs {
		switch {
		case len(p) == 0:
			return everything
		case p[0] == name:
			found = append(found, p[1:])
		}
	}
	return found
}

// project is what of a JSON value lies at the paths. ok is false where nothing does: then no reference finds anything.
func (rs reads) project(v any) (projected any, ok bool) {
	if rs.cover(nil) {
		return v, true
	}
	object, isObject := v.(map[string]any)
	if !isObject {
		return nil, false
	}
	m := map[string]any{}
	for _, p := range rs {
		if member, there := object[p[0]]; there {
			if member, there = rs.below(p[0]).project(member); there {
				m[p[0]] = member
			}
		}
	}
	return m, true
}

// deterministic reports whether no rule names a builtin that may answer differently for the same input. Capabilities
// already exclude them; this is the second lock.
func deterministic(compiler *ast.Compiler) bool {
	ok := true
	named := func(name string) {
		if b, known := ast.BuiltinMap[name]; known && b.Nondeterministic {
			ok = false
		}
	}
	for _, m := range compiler.Modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.IsCall() {
				named(e.Operator().String())
			}
			return false
		})
		ast.WalkWiths(m, func(w *ast.With) bool { // one function in another's place
			named(w.Value.String())
			return false
		})
	}
	return ok
}

// appendKey appends an encoding of every readable part of the input from which it could be rebuilt, so that equal keys
// mean equal evaluations. Without session and body it allocates nothing.
func (rs reads) appendKey(b []byte, in *Input, headers []headerName) []byte {
	for _, p := range rs {
		b = appendRead(b, in, headers, p)
	}
	return b
}

func appendRead(b []byte, in *Input, headers []headerName, p []string) []byte {
	if len(p) == 0 {
		for _, member := range [...]string{"route", "operation", "params", "request", "environment", "client", "session", "device"} {
			b = appendRead(b, in, headers, []string{member})
		}
		return b
	}
	switch p[0] {
	case "route":
		return appendString(b, in.route())
	case "operation":
		return appendString(b, in.operation())
	case "params":
		b = binary.AppendUvarint(b, uint64(len(in.params())))
		for _, q := range in.params() {
			b = appendString(b, q.Name)
			if len(p) == 1 || p[1] == q.Name {
				b = appendString(b, q.Value)
			}
		}
		return b
	case "request":
		return appendRequest(b, in, headers, p[1:])
	case "environment":
		return appendString(b, in.Environment)
	case "client":
		return appendString(appendString(appendString(b, in.Client.APIVersion), in.Client.SDK), in.Client.SDKVersion)
	case "device":
		return appendString(appendString(b, string(in.Device.state())), in.Device.ID)
	case "session":
		return appendSession(b, in.Session, p[1:])
	}
	return b
}

func appendRequest(b []byte, in *Input, headers []headerName, p []string) []byte {
	member := func(name string) bool { return len(p) == 0 || p[0] == name }
	if member("method") {
		b = appendString(b, in.Method)
	}
	if member("path") {
		b = appendString(b, in.Path)
	}
	if member("host") {
		b = appendString(b, in.Host)
	}
	if member("query") {
		b = appendQuery(b, in.RawQuery, p)
	}
	if member("headers") {
		for _, name := range headers {
			if len(p) < 2 || p[1] == name.lower {
				values := in.Header[name.canonical]
				b = binary.AppendUvarint(b, uint64(len(values)))
				for _, v := range values {
					b = appendString(b, v)
				}
			}
		}
	}
	if member("body") {
		var below []string
		if len(p) > 1 {
			below = p[1:]
		}
		b = appendAt(b, in.Body, in.Body != nil, below)
	}
	return b
}

// appendQuery appends the query, or of a single parameter the values as they are written.
func appendQuery(b []byte, raw string, p []string) []byte {
	if len(p) < 2 {
		return appendString(b, raw)
	}
	for raw != "" {
		var parameter string
		parameter, raw, _ = strings.Cut(raw, "&")
		name, value, _ := strings.Cut(parameter, "=")
		if isParameter(name, p[1]) {
			b = appendString(append(b, '+'), value)
		}
	}
	return append(b, '-')
}

// isParameter reports whether a query spells name so, as url.ParseQuery reads it.
func isParameter(spelled, name string) bool {
	if !strings.ContainsAny(spelled, "%+") {
		return spelled == name
	}
	read, err := url.QueryUnescape(spelled)
	return err != nil || read == name // what cannot be read may be anything; package canon refuses it
}

func appendSession(b []byte, session map[string]any, p []string) []byte {
	if session == nil {
		return append(b, '-')
	}
	if len(p) == 0 {
		return appendValue(append(b, '+'), session)
	}
	v, ok := session[p[0]]
	return appendAt(append(b, '+'), v, ok, p[1:])
}

// appendAt appends the value found by following p from v, or a mark that there is none.
func appendAt(b []byte, v any, ok bool, p []string) []byte {
	for _, name := range p {
		object, isObject := v.(map[string]any)
		if ok = ok && isObject; !ok {
			break
		}
		v, ok = object[name]
	}
	if !ok {
		return append(b, '-')
	}
	return appendValue(append(b, '+'), v)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendString(append(b, 's'), v)
	case bool:
		if v {
			return append(b, 't')
		}
		return append(b, 'f')
	case nil:
		return append(b, 'n')
	case []any:
		b = binary.AppendUvarint(append(b, 'a'), uint64(len(v)))
		for _, item := range v {
			b = appendValue(b, item)
		}
		return b
	case map[string]any:
		b = binary.AppendUvarint(append(b, 'o'), uint64(len(v)))
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			b = appendValue(appendString(b, name), v[name])
		}
		return b
	case json.Number:
		return appendString(append(b, '#'), v.String())
	}
	// Neither a verified claim nor a decoded body has other types. Not its JSON: OPA's values tell more apart, such as texts
	// that are not UTF-8.
	value, err := ast.InterfaceToValue(v)
	if err != nil {
		return append(b, '?') // evaluating it fails as well, and failures are not remembered
	}
	return appendString(append(b, 'v'), value.String())
}

// value builds the input that the policy sees: only its readable parts, absent ones left out.
func (rs reads) value(in *Input, headers []headerName) (ast.Value, error) {
	root := ast.NewObject()
	put := func(name string, v any) error {
		value, err := ast.InterfaceToValue(v)
		if err == nil {
			root.Insert(ast.InternedTerm(name), ast.NewTerm(value))
		}
		return err
	}
	var err error
	set := func(name string, of func() any) {
		if err == nil && rs.under(name) {
			err = put(name, of())
		}
	}
	set("route", func() any { return in.route() })
	set("operation", func() any { return in.operation() })
	set("params", func() any {
		m := map[string]any{}
		for _, p := range in.params() {
			if rs.under("params", p.Name) {
				m[p.Name] = p.Value
			}
		}
		return m
	})
	set("request", func() any { return rs.below("request").request(in, headers) })
	set("environment", func() any { return map[string]any{"id": in.Environment} })
	set("client", func() any {
		return map[string]any{"api_version": in.Client.APIVersion, "sdk": in.Client.SDK, "sdk_version": in.Client.SDKVersion}
	})
	set("device", func() any { return map[string]any{"state": string(in.Device.state()), "id": in.Device.ID} })
	if in.Session != nil {
		// A projection of thirty claims to two saves the larger part of a miss.
		set("session", func() any { session, _ := rs.below("session").project(in.Session); return session })
	}
	return root, err
}

// request is the member of that name, of which the receiver is what is read.
func (rs reads) request(in *Input, headers []headerName) map[string]any {
	m := map[string]any{}
	for name, text := range map[string]string{"method": in.Method, "path": in.Path, "host": in.Host} {
		if rs.under(name) {
			m[name] = text
		}
	}
	if rs.under("query") {
		query := queryOf(in.RawQuery)
		for name := range query {
			if !rs.under("query", name) {
				delete(query, name)
			}
		}
		m["query"] = query
	}
	if rs.under("headers") {
		h := map[string]any{}
		for _, name := range headers {
			if values := in.Header[name.canonical]; len(values) > 0 && rs.under("headers", name.lower) {
				h[name.lower] = anyList(values)
			}
		}
		m["headers"] = h
	}
	if in.Body != nil && rs.under("body") {
		if body, ok := rs.below("body").project(in.Body); ok {
			m["body"] = body
		}
	}
	return m
}

// queryOf decodes a canonical query, which holds no semicolons and no bad escapes; of another what is good, so that no
// parameter depends on the others.
func queryOf(raw string) map[string]any {
	values, _ := url.ParseQuery(raw) // its error is about parameters that it leaves out
	m := make(map[string]any, len(values))
	for name, list := range values {
		m[name] = anyList(list)
	}
	return m
}

func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func (in *Input) route() string {
	if in.Match == nil || in.Match.Route == nil {
		return ""
	}
	return in.Match.Route.Pattern
}

func (in *Input) operation() string {
	if in.Match == nil || in.Match.Route == nil {
		return ""
	}
	return in.Match.Route.Operation
}

func (in *Input) params() []Param {
	if in.Match == nil {
		return nil
	}
	return in.Match.Params
}

func (d Device) state() DeviceState {
	if d.State == "" {
		return DeviceUnknown
	}
	return d.State
}

// headerName is a header that the policy may read, in its two spellings.
type headerName struct{ lower, canonical string }
