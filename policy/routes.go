package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stepward/stepward/internal/canon"
)

// table finds the route of a request in time independent of how many routes there are.
//
// It reads net/http.ServeMux's pattern syntax but is not one: ServeMux refuses Dynamic's routes as conflicting, redirects,
// cleans paths, and answers GET patterns for HEAD. Here a literal beats a wildcard at the leftmost difference, only equal
// shapes conflict, and nothing is cleaned or redirected. Every path is looked up twice, as it is and folded as a backend
// reads it that ignores case, one trailing slash or needless escapes; two answers make the request ambiguous.
type table struct {
	exact, folded node
	routes        []*Route
}

// node is one segment of the tree.
type node struct {
	literal map[string]*node
	wild    *node
	leaf    leaf // the path may end here
	rest    leaf // a final {name...} takes whatever follows, also nothing
}

// leaf holds the routes of one shape, at most one for each method; "" takes every method. A list: there are few, and a map
// would be more memory to fetch.
type leaf []*target

type target struct {
	method string
	route  *Route
	names  []string // of the wildcards, from left to right
	shape  string   // the pattern without method and names
}

// pattern is a parsed route pattern.
type pattern struct {
	method   string
	segments []segment
}

type segment struct {
	text string // the literal, or the wildcard's name
	kind segmentKind
}

type segmentKind uint8

const (
	literalSegment segmentKind = iota
	wildSegment
	restSegment
	endSegment // {$}: the path ends with a slash
)

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// parsePattern reads "[METHOD ]/path" with segments that are literals, {name}, a final {name...}, a final {$}, or a final
// slash, which means {...}.
func parsePattern(s string) (pattern, error) {
	method, path, ok := strings.Cut(s, " ")
	if !ok {
		method, path = "", s
	}
	if method != "" && !slices.Contains(methods, method) {
		return pattern{}, fmt.Errorf("method %q: want one of %s, or none for all", method, strings.Join(methods, ", "))
	}
	path = strings.TrimLeft(path, " ")
	if !strings.HasPrefix(path, "/") {
		return pattern{}, fmt.Errorf("path %q: want a path that begins with a slash (hosts are not matched)", path)
	}
	p := pattern{method: method}
	parts := strings.Split(path[1:], "/")
	seen := map[string]bool{}
	for i, part := range parts {
		seg, err := parseSegment(part, i == len(parts)-1)
		if err != nil {
			return pattern{}, err
		}
		if named := seg.kind == wildSegment || seg.kind == restSegment; named && seg.text != "" {
			if seen[seg.text] {
				return pattern{}, fmt.Errorf("wildcard {%s} occurs twice", seg.text)
			}
			seen[seg.text] = true
		}
		p.segments = append(p.segments, seg)
	}
	return p, nil
}

func parseSegment(part string, last bool) (segment, error) {
	switch {
	case part == "" && last:
		return segment{kind: restSegment}, nil
	case part == "":
		return segment{}, fmt.Errorf("empty segment")
	case part == "{$}" && last:
		return segment{kind: endSegment}, nil
	case strings.HasPrefix(part, "{") && strings.HasSuffix(part, "}"):
		name := part[1 : len(part)-1]
		if rest, ok := strings.CutSuffix(name, "..."); ok && last && isIdentifier(rest) {
			return segment{rest, restSegment}, nil
		}
		if !isIdentifier(name) {
			return segment{}, fmt.Errorf("wildcard %s: want {name}, or {name...} or {$} at the end", part)
		}
		return segment{name, wildSegment}, nil
	case strings.ContainsAny(part, "{}"):
		return segment{}, fmt.Errorf("segment %q: a wildcard must be a whole segment", part)
	}
	if _, err := canon.ParseTarget("/" + part); err != nil {
		return segment{}, fmt.Errorf("segment %q can never match: %w", part, err)
	}
	return segment{part, literalSegment}, nil
}

func isIdentifier(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// add puts a route into both trees. Equal shapes conflict where their methods are equal, and shapes that differ only in case
// or a trailing slash where any request could mean either. A table that refused a route must not be used.
func (t *table) add(r *Route) error {
	p, err := parsePattern(r.Pattern)
	if err != nil {
		return err
	}
	r.Method = p.method
	tgt := &target{method: p.method, route: r}
	for _, s := range p.segments {
		switch s.kind {
		case literalSegment:
			tgt.shape += "/" + s.text
		case wildSegment:
			tgt.names, tgt.shape = append(tgt.names, s.text), tgt.shape+"/{}"
		case restSegment:
			tgt.names, tgt.shape = append(tgt.names, s.text), tgt.shape+"/{...}"
		case endSegment:
			tgt.shape += "/"
		}
	}
	if err := t.exact.add(p, tgt, false); err != nil {
		return err
	}
	if err := t.folded.add(p, tgt, true); err != nil {
		return err
	}
	t.routes = append(t.routes, r)
	return nil
}

func (n *node) add(p pattern, tgt *target, fold bool) error {
	for _, s := range p.segments {
		switch s.kind {
		case literalSegment:
			n = n.child(s.text, fold)
		case wildSegment:
			if n.wild == nil {
				n.wild = &node{}
			}
			n = n.wild
		case restSegment:
			return n.rest.put(tgt)
		case endSegment:
			if !fold {
				n = n.child("", false)
			}
		}
	}
	return n.leaf.put(tgt)
}

func (n *node) child(text string, fold bool) *node {
	if fold {
		text = foldSegment(text)
	}
	if n.literal == nil {
		n.literal = map[string]*node{}
	}
	if n.literal[text] == nil {
		n.literal[text] = &node{}
	}
	return n.literal[text]
}

func (l *leaf) put(tgt *target) error {
	for _, other := range *l {
		if other.method == tgt.method || other.shape != tgt.shape && overlap(other.method, tgt.method) {
			return fmt.Errorf("conflicts with %q: both match the same requests", other.route.Pattern)
		}
	}
	*l = append(*l, tgt)
	return nil
}

// overlap reports whether a request can be meant by both methods of patterns.
func overlap(a, b string) bool {
	return a == b || a == "" || b == "" || a == "GET" && b == "HEAD" || a == "HEAD" && b == "GET"
}

// foldSegment is a segment as a lenient backend reads it.
func foldSegment(s string) string { return string(appendFolded(nil, s)) }

// appendFolded appends the segment decoded once and in lower case.
func appendFolded(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if decoded := canon.Unescape(s[i:min(i+3, len(s))]); len(decoded) == 1 {
				c, i = decoded[0], i+2
			}
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// match fills m for one method and canonical path, reusing the room of m.Params.
func (t *table) match(method, path string, m *Match) {
	*m = Match{Params: m.Params[:0]}
	exact := t.exact.find(method, path[1:], true, &m.Params)
	bare := strings.TrimSuffix(path[1:], "/")
	folded := t.folded.findFolded(method, bare, bare != "")
	switch {
	case exact != folded && (exact == nil || folded == nil || exact.route != folded.route):
		m.Params, m.Ambiguous = m.Params[:0], true
	case exact != nil:
		m.Route = exact.route
		for i := range m.Params {
			m.Params[i] = Param{Name: exact.names[i], Value: canon.Unescape(m.Params[i].Value)}
		}
	default:
		m.Params, m.Allow = m.Params[:0], t.allow(path)
	}
}

// allow lists the methods for which the path has routes, sorted.
func (t *table) allow(path string) []string {
	var found []string
	var ignored []Param
	for _, method := range methods {
		if t.exact.find(method, path[1:], true, &ignored) != nil {
			found = append(found, method)
		}
	}
	slices.Sort(found)
	return found
}

func (l leaf) pick(method string) *target {
	var get, all *target
	for _, tgt := range l {
		switch tgt.method {
		case method:
			return tgt
		case "":
			all = tgt
		case "GET":
			get = tgt
		}
	}
	if get != nil && method == "HEAD" {
		return get
	}
	return all
}

// find walks the exact tree. path is what is left, without its leading slash; more says that a segment follows, which may
// be empty.
func (n *node) find(method, path string, more bool, params *[]Param) *target {
	if !more {
		return n.leaf.pick(method)
	}
	seg, rest, further := strings.Cut(path, "/")
	if child := n.literal[seg]; child != nil {
		if tgt := child.find(method, rest, further, params); tgt != nil {
			return tgt
		}
	}
	mark := len(*params)
	if n.wild != nil && seg != "" {
		*params = append(*params, Param{Value: seg})
		if tgt := n.wild.find(method, rest, further, params); tgt != nil {
			return tgt
		}
		*params = (*params)[:mark]
	}
	if tgt := n.rest.pick(method); tgt != nil {
		*params = append(*params, Param{Value: path})
		return tgt
	}
	return nil
}

// findFolded walks the folded tree, in which a trailing slash is nothing.
func (n *node) findFolded(method, path string, more bool) *target {
	if !more {
		if tgt := n.leaf.pick(method); tgt != nil {
			return tgt
		}
		return n.rest.pick(method)
	}
	seg, rest, further := strings.Cut(path, "/")
	var room [96]byte
	if child := n.literal[string(appendFolded(room[:0], seg))]; child != nil {
		if tgt := child.findFolded(method, rest, further); tgt != nil {
			return tgt
		}
	}
	if n.wild != nil {
		if tgt := n.wild.findFolded(method, rest, further); tgt != nil {
			return tgt
		}
	}
	return n.rest.pick(method)
}
