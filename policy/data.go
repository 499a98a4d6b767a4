package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/canon"
)

// maxReadBody is the most that an operation may ask to see of a body.
const maxReadBody = 1 << 20

// maxMaxAge is the longest that an elevated token may be asked to have lived, in seconds.
const maxMaxAge = 24 * 60 * 60

// data is data.stepward: what Go reads of it, and all of it for Rego.
type data struct {
	file         string
	lines        map[string]int // of the routes, by pattern
	all          map[string]any
	routes       []*Route
	headers      []headerName // input_headers, sorted
	environments map[string]Environment
}

// loadData reads one YAML (or JSON) document whose members are the members of data.stepward.
func loadData(file string, text []byte) (*data, []Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, []Problem{{File: file, Line: yamlLine(err), Message: "is not YAML: " + firstLine(err), Remedy: "mend the syntax"}}
	}
	l := &dataLoader{file: file, out: &data{file: file, lines: map[string]int{}, environments: map[string]Environment{}}}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		l.fault(&second, "", "holds more than one document", "keep one")
	}
	root := doc.Content[0]
	if !l.mapping(root, "") {
		return nil, l.problems
	}
	value, err := plain(root)
	if err != nil {
		l.fault(root, "", err.Error(), "use plain YAML without anchors and with text keys")
		return nil, l.problems
	}
	l.out.all, _ = value.(map[string]any)
	l.root(root)
	return l.out, l.problems
}

type dataLoader struct {
	file     string
	out      *data
	problems []Problem
	// What data.operations names, so that an environment cannot speak of something else by a slip of the pen and lose a
	// demand. nil when the policy keeps no operations there.
	operations, actions map[string]bool
}

func (l *dataLoader) fault(n *yaml.Node, field, message, remedy string) {
	l.problems = append(l.problems, Problem{File: l.file, Line: n.Line, Field: field, Message: message, Remedy: remedy})
}

// mapping reports whether n is a mapping without repeated keys.
func (l *dataLoader) mapping(n *yaml.Node, field string) bool {
	if n.Kind != yaml.MappingNode {
		l.fault(n, field, "is not a mapping", "write members as key: value")
		return false
	}
	seen, ok := map[string]bool{}, true
	for k := range pairs(n) {
		if seen[k.Value] {
			l.fault(k, field, fmt.Sprintf("repeats the key %q", k.Value), "keep one of them")
			ok = false
		}
		seen[k.Value] = true
	}
	return ok
}

func pairs(n *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

func (l *dataLoader) root(n *yaml.Node) {
	mount := ""
	for k, v := range pairs(n) {
		switch k.Value {
		case "mount":
			mount = l.mount(v)
		case "operations":
			l.operationsOf(v)
		}
	}
	for k, v := range pairs(n) {
		switch k.Value {
		case "routes":
			l.routes(v, mount)
		case "input_headers":
			l.headers(v)
		case "environments":
			l.environmentsOf(v)
		case "requirement":
			l.fault(k, "requirement", "is the policy's own rule", "rename this member of the data")
		}
	}
	if len(l.out.routes) == 0 && len(l.problems) == 0 {
		l.fault(n, "routes", "has no routes", `write at least one, such as "GET /users": {operation: user.read}`)
	}
}

// operationsOf gathers the names; what an operation's members mean is the policy's own affair.
func (l *dataLoader) operationsOf(n *yaml.Node) {
	if !l.mapping(n, "operations") {
		return
	}
	l.operations, l.actions = map[string]bool{}, map[string]bool{}
	for k, v := range pairs(n) {
		l.operations[k.Value] = true
		field := fmt.Sprintf("operations[%q]", k.Value)
		if !l.mapping(v, field) {
			continue
		}
		for mk, mv := range pairs(v) {
			switch mk.Value {
			case "mfa_action":
				l.actions[mv.Value] = true
			case "always", "session", "form":
				l.boolean(mv, field+"."+mk.Value)
			}
		}
	}
}

func (l *dataLoader) boolean(v *yaml.Node, field string) bool {
	var b bool
	if v.Tag != "!!bool" || v.Decode(&b) != nil {
		l.fault(v, field, "is not true or false", "write true or false (yes and no are text in YAML 1.2)")
	}
	return b
}

func (l *dataLoader) mount(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		l.fault(n, "mount", "is not a path", "write a path such as /api/v0, or leave it out")
		return ""
	}
	if n.Value == "" || n.Value == "/" {
		return ""
	}
	if t, err := canon.ParseTarget(n.Value); err != nil || t.HasQuery || strings.HasSuffix(n.Value, "/") || strings.ContainsAny(n.Value, "{}") {
		l.fault(n, "mount", "is not a canonical path", "write a path such as /api/v0, without a slash at its end")
		return ""
	}
	return n.Value
}

func (l *dataLoader) routes(n *yaml.Node, mount string) {
	if !l.mapping(n, "routes") {
		return
	}
	for k, v := range pairs(n) {
		field := fmt.Sprintf("routes[%q]", k.Value)
		if !l.mapping(v, field) {
			continue
		}
		r := &Route{Pattern: mounted(k.Value, mount)}
		l.out.lines[r.Pattern] = k.Line
		for mk, mv := range pairs(v) {
			l.routeMember(r, mk, mv, field)
		}
		if r.Operation == "" {
			l.fault(k, field, "names no operation", "add operation: NAME")
		}
		l.out.routes = append(l.out.routes, r)
	}
}

func mounted(pattern, mount string) string {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		return mount + pattern
	}
	return method + " " + mount + strings.TrimLeft(path, " ")
}

func (l *dataLoader) routeMember(r *Route, k, v *yaml.Node, field string) {
	field += "." + k.Value
	switch k.Value {
	case "operation":
		if v.Decode(&r.Operation) != nil || !isName(r.Operation) {
			r.Operation = "-"
			l.fault(v, field, "is not a name", "write letters, digits, dots, dashes and underscores, such as wallet.export")
		}
	case "read_body":
		if v.Tag != "!!int" || v.Decode(&r.ReadBody) != nil || r.ReadBody < 1 || r.ReadBody > maxReadBody {
			l.fault(v, field, "is not a number of bytes", fmt.Sprintf("write 1 to %d, or leave it out", maxReadBody))
		}
	case "websocket":
		if v.Tag != "!!bool" || v.Decode(&r.WebSocket) != nil {
			l.fault(v, field, "is not true or false", "write websocket: true, or leave it out")
		}
	default:
		l.fault(k, field, "is not a member of a route", "use operation, read_body or websocket; requirements belong to operations")
	}
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if !isIdentifier(string(rune(c))) && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (l *dataLoader) headers(n *yaml.Node) {
	var names []string
	if n.Decode(&names) != nil {
		l.fault(n, "input_headers", "is not a list of header names", "write a list such as [x-dynamic-platform]")
		return
	}
	for i, name := range names {
		if name == "" || name != strings.ToLower(name) || strings.ContainsAny(name, " :_") {
			l.fault(n.Content[i], fmt.Sprintf("input_headers[%d]", i), "is not a header name in lower case", "write it as x-dynamic-platform")
		}
	}
	slices.Sort(names)
	for _, name := range names {
		l.out.headers = append(l.out.headers, headerName{name, http.CanonicalHeaderKey(name)})
	}
}

func (l *dataLoader) environmentsOf(n *yaml.Node) {
	if !l.mapping(n, "environments") {
		return
	}
	// As in Rego, a listed environment has the default's members where it does not set its own.
	for k, v := range pairs(n) {
		if k.Value == "default" {
			l.environment(k, v, Environment{})
		}
	}
	for k, v := range pairs(n) {
		if k.Value != "default" {
			l.environment(k, v, l.out.environments["default"])
		}
	}
}

func (l *dataLoader) environment(k, v *yaml.Node, e Environment) {
	field := fmt.Sprintf("environments[%q]", k.Value)
	if !l.mapping(v, field) {
		return
	}
	for mk, mv := range pairs(v) {
		l.environmentMember(&e, mk, mv, field)
	}
	l.out.environments[k.Value] = e
}

// environmentMember checks the members that Go reads or that every policy shares; others are the policy's own.
func (l *dataLoader) environmentMember(e *Environment, k, v *yaml.Node, field string) {
	field += "." + k.Value
	switch k.Value {
	case "mode":
		if v.Value != "enforce" && v.Value != "shadow" {
			l.fault(v, field, "is neither enforce nor shadow", "write mode: enforce or mode: shadow")
		}
		e.Shadow = v.Value == "shadow"
	case "locked":
		e.Locked = l.boolean(v, field)
	case "minimum_api_version":
		if _, err := apiversion.Parse(v.Value); err != nil {
			l.fault(v, field, "is not a dated version", `write it as "2026_04_01"`)
		}
	case "mfa_actions":
		l.actionsIn(v, field)
	case "step_up", "max_age", "token":
		l.overrides(k.Value, v, field)
	case "minimum_sdk", "options":
	default:
		l.fault(k, field, "is not a member of an environment",
			"use mode, locked, minimum_api_version, mfa_actions, step_up, max_age, token, minimum_sdk, or options for members of your own")
	}
}

func (l *dataLoader) actionsIn(v *yaml.Node, field string) {
	if v.Kind != yaml.SequenceNode {
		l.fault(v, field, "is not a list", "write a list such as [wallet.waas.export]")
		return
	}
	for _, item := range v.Content {
		if l.actions != nil && !l.actions[item.Value] {
			l.fault(item, field, fmt.Sprintf("names %q, which is no operation's mfa_action", item.Value), "name one of "+known(l.actions))
		}
	}
}

// overrides checks what an environment says of single operations.
func (l *dataLoader) overrides(member string, v *yaml.Node, field string) {
	if !l.mapping(v, field) {
		return
	}
	for k, value := range pairs(v) {
		if l.operations != nil && !l.operations[k.Value] {
			l.fault(k, field, fmt.Sprintf("names %q, which is no operation", k.Value), "name one of the members of operations")
		}
		at := field + "." + k.Value
		switch member {
		case "step_up":
			l.boolean(value, at)
		case "max_age":
			var seconds int
			if value.Tag != "!!int" || value.Decode(&seconds) != nil || seconds < 1 || seconds > maxMaxAge {
				l.fault(value, at, "is not a number of seconds", fmt.Sprintf("write 1 to %d", maxMaxAge))
			}
		case "token":
			if use := TokenUse(value.Value); use != SingleUse && use != TimeBound {
				l.fault(value, at, "is neither single_use nor time_bound", "write one of them")
			}
		}
	}
}

func known(names map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(names)), ", ") }

// plain turns a YAML node into the values that OPA's store holds. Anchors and non-text keys are refused.
func plain(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for k, v := range pairs(n) {
			if k.Kind != yaml.ScalarNode || k.Value == "<<" {
				return nil, fmt.Errorf("line %d: key is not plain text", k.Line)
			}
			value, err := plain(v)
			if err != nil {
				return nil, err
			}
			m[k.Value] = value
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			value, err := plain(item)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case yaml.ScalarNode:
		return scalar(n)
	}
	return nil, fmt.Errorf("line %d: anchors and aliases are not supported", n.Line)
}

func scalar(n *yaml.Node) (any, error) {
	switch n.Tag {
	case "!!str", "!!timestamp": // an unquoted date is the text that was written
		return n.Value, nil
	case "!!int":
		var i int64
		err := n.Decode(&i) // 2026_04_01 unquoted would be the number 20260401: YAML ignores underscores
		if strings.Contains(n.Value, "_") {
			return nil, fmt.Errorf("line %d: %s is read as a number: put it in quotes", n.Line, n.Value)
		}
		return i, err
	case "!!null":
		return nil, nil
	case "!!bool", "!!float":
		var v any
		err := n.Decode(&v)
		return v, err
	}
	return nil, fmt.Errorf("line %d: type %s is not supported", n.Line, n.Tag)
}

func yamlLine(err error) int {
	var line int
	if i := strings.Index(err.Error(), "line "); i >= 0 {
		_, _ = fmt.Sscanf(err.Error()[i:], "line %d", &line) // no line is line 0
	}
	return line
}

func firstLine(err error) string {
	text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), "\n")
	return text
}
