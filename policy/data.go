package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/internal/canon"
)

// maxReadBody is the most that an operation may ask to see of a body.
const maxReadBody = 1 << 20

// maxMaxAge is the longest that an elevated token may be asked to have lived, in seconds.
const maxMaxAge = 24 * 60 * 60

// data is data.stepward: what Go reads of it, and all of it for Rego.
type data struct {
	file         string
	all          map[string]any
	routes       []*Route
	written      map[*Route]written
	headers      []headerName // input_headers, sorted
	environments map[string]Environment
	imitable     map[string]bool // the folded ids of environments: every request of an unlisted one is compared with all
	operations   map[string]bool // nil when the policy keeps none in its data
	byBody       map[string]bool // route operations that the body decides
	scopes       []writtenScope
	sdks         map[string]bool // names of SDKs in minimum_sdk and known_gaps

	unknownActions []string // synced ones that no operation names, sorted
}

// writtenScope is a scope that an operation asks for, and where it stands.
type writtenScope struct {
	name, field string
	line        int
}

// foreign are problems of scopes that are not among the known ones.
func (d *data) foreign(known []string) Problems {
	var problems Problems
	for _, s := range d.scopes {
		if !slices.Contains(known, s.name) {
			problems = append(problems, Problem{
				File: d.file, Line: s.line, Field: s.field, Message: fmt.Sprintf("%q is not among the configuration's elevated.scopes", s.name),
				Remedy: "mend the name, or add it to elevated.scopes: a token that carries nothing else could pass for a session",
			})
		}
	}
	return problems
}

// written is how and where a route stands in the file.
type written struct {
	key  string
	line int
}

// problem speaks of a route.
func (d *data) problem(r *Route, message, remedy string) Problem {
	w := d.written[r]
	return Problem{File: d.file, Line: w.line, Field: below("routes", w.key), Message: message, Remedy: remedy}
}

// loadData reads one YAML (or JSON) document whose members are the members of data.stepward, with what was synced under its
// environments. Data with problems is for finding more of them only.
func loadData(file string, text []byte, synced map[string]Synced) (*data, Problems) {
	l := &dataLoader{out: &data{
		file: file, all: map[string]any{}, written: map[*Route]written{}, environments: map[string]Environment{}, imitable: map[string]bool{},
		sdks: map[string]bool{},
	}}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return l.out, Problems{{File: file, Message: "is empty", Remedy: "write the routes there"}}
	case err != nil:
		return l.out, Problems{{File: file, Line: yamlLine(err), Message: "is not YAML: " + firstLine(err), Remedy: "mend the syntax"}}
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		l.fault(&second, "", "holds more than one document", "keep one")
	}
	root := doc.Content[0]
	l.lay(root, synced)
	if l.mapping(root, "") {
		l.out.all, _ = l.plain(root, "").(map[string]any)
		l.root(root)
	}
	return l.out, l.problems
}

type dataLoader struct {
	out      *data
	problems Problems
	// What operations names as mfa_action, so that an environment cannot lose a demand by a slip of the pen; nil when the
	// policy keeps no operations in its data.
	actions map[string]bool
}

func (l *dataLoader) fault(n *yaml.Node, field, message, remedy string) {
	l.problems = append(l.problems, Problem{File: l.out.file, Line: n.Line, Field: field, Message: message, Remedy: remedy})
}

// mapping reports whether n is a mapping. An alias is none, which plain has said already.
func (l *dataLoader) mapping(n *yaml.Node, field string) bool {
	if n.Kind != yaml.MappingNode && n.Kind != yaml.AliasNode {
		l.fault(n, field, "is not a mapping", "write members as key: value")
	}
	return n.Kind == yaml.MappingNode
}

func (l *dataLoader) boolean(v *yaml.Node, field string) bool {
	var b bool
	if v.Tag != "!!bool" || v.Decode(&b) != nil {
		l.fault(v, field, "is not true or false", "write true or false (yes and no are text in YAML 1.2)")
	}
	return b
}

func (l *dataLoader) root(n *yaml.Node) {
	mount := ""
	for k, v := range pairs(n) {
		switch k.Value {
		case "mount":
			mount = l.mount(v)
		case "operations":
			l.operations(v)
		case "requested_scopes":
			l.requestable(v, k.Value, true)
		}
	}
	for k, v := range pairs(n) {
		if k.Value == "by_body" {
			l.byBody(n, v)
		}
	}
	hasRoutes := false
	for k, v := range pairs(n) {
		switch k.Value {
		case "routes":
			hasRoutes = l.mapping(v, "routes") && len(v.Content) > 0
			l.routes(v, mount)
		case "input_headers":
			l.headers(v)
		case "environments":
			l.environments(v)
		}
	}
	for k, v := range pairs(n) {
		if k.Value == "known_gaps" {
			l.gaps(v)
		}
	}
	if !hasRoutes {
		l.fault(n, "routes", "has no routes", `write at least one, such as "GET /users": {operation: user.read}`)
	}
}

func (l *dataLoader) mount(n *yaml.Node) string {
	mount, ok := text(n)
	if ok && (mount == "" || mount == "/") {
		return ""
	}
	if t, err := canon.ParseTarget(mount); !ok || err != nil || t.HasQuery || strings.HasSuffix(mount, "/") || strings.ContainsAny(mount, "{}") {
		l.fault(n, "mount", "is not a canonical path", "write a path such as /api/v0, without a slash at its end, or leave it out")
		return ""
	}
	return mount
}

func (l *dataLoader) routes(n *yaml.Node, mount string) {
	for k, v := range pairs(n) {
		field := below("routes", k.Value)
		if !l.mapping(v, field) {
			continue
		}
		r := &Route{Pattern: mounted(k.Value, mount)}
		l.out.written[r] = written{k.Value, k.Line}
		named := false
		for mk, mv := range pairs(v) {
			l.routeMember(r, mk, mv, field)
			named = named || mk.Value == "operation"
		}
		if !named {
			l.fault(k, field, "names no operation", "add operation: NAME")
		}
		if l.out.byBody[r.Operation] && r.ReadBody == 0 {
			l.fault(k, field, fmt.Sprintf("does not show the body that decides %s", r.Operation), "add read_body: 65536")
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
	field = below(field, k.Value)
	switch k.Value {
	case "operation":
		name, ok := text(v)
		if r.Operation = name; !ok || !isName(name) {
			l.fault(v, field, "is not a name", "write letters, digits, dots, dashes and underscores, such as wallet.export")
		}
	case "read_body":
		if v.Tag != "!!int" || v.Decode(&r.ReadBody) != nil || r.ReadBody < 1 || r.ReadBody > maxReadBody {
			l.fault(v, field, "is not a number of bytes", fmt.Sprintf("write 1 to %d, or leave it out", maxReadBody))
		}
	case "websocket":
		r.WebSocket = l.boolean(v, field)
	default:
		l.fault(k, field, "is not a member of a route", "use operation, read_body or websocket; requirements belong to operations")
	}
}

// isName reports whether s is fit for metrics, logs and codes: letters, digits, dots, dashes and underscores.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if !isIdentifier(string(rune(c))) && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// credentials are headers that a requirement must not depend on: it speaks of what is needed, not of what was brought.
var credentials = []string{"authorization", "proxy-authorization", "cookie"}

func (l *dataLoader) headers(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		l.fault(n, "input_headers", "is not a list of header names", "write a list such as [x-dynamic-platform]")
		return
	}
	var names []string
	for i, item := range n.Content {
		field := fmt.Sprintf("input_headers[%d]", i)
		name, ok := text(item)
		switch {
		case !ok || !isHeaderName(name):
			l.fault(item, field, "is not a header name in lower case", "write it as x-dynamic-platform")
		case slices.Contains(credentials, name):
			l.fault(item, field, name+" is a credential", "read the verified claims in input.session")
		case slices.Contains(names, name):
			l.fault(item, field, "repeats "+name, "keep one of them")
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		l.out.headers = append(l.out.headers, headerName{name, http.CanonicalHeaderKey(name)})
	}
}

// isHeaderName reports whether s is a field name (RFC 9110 section 5.1) in lower case and without underscores, which
// backends confuse with dashes.
func isHeaderName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}
