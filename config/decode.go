package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decoder lays one YAML document over a Config. It goes on after a problem, so that all are found.
type decoder struct {
	dir      string
	env      func(string) (string, bool)
	source   source
	lines    int
	bad      map[string]bool // paths about which something was said
	unknowns int
	problems Problems
}

// field is one key of a section.
type field struct {
	name  string
	index []int
	typ   reflect.Type
	tag   reflect.StructTag
}

// planned are keys of the design that this version cannot honour yet. Saying so is better than "unknown".
var planned = [...]string{"policy.bundle"}

// mostSuggestions bounds the work for a file that is something else altogether.
const mostSuggestions = 100

// isScalar reports whether one scalar of the file fills the type.
func isScalar(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[*url.URL](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[Ledger]():
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice
}

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isScalar(t) }

// fieldsOf lists the keys of a section in the order of its type, inlined ones in their place.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				fields = append(fields, inner)
			}
		case name != "":
			fields = append(fields, field{name: name, index: []int{i}, typ: f.Type, tag: f.Tag})
		}
	}
	return fields
}

func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// document parses the bytes and returns the only document's content, nil when it is empty, and false when there is
// nothing to go on with.
func (d *decoder) document(data []byte) (*yaml.Node, bool) {
	d.lines = bytes.Count(data, []byte("\n")) + 1
	if len(data) > maxFile {
		d.add(1, 1, "", fmt.Sprintf("has %d bytes, more than %d", len(data), maxFile), "remove what is no configuration")
		return nil, false
	}
	var first, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&first); errors.Is(err, io.EOF) {
		return nil, true
	} else if err != nil {
		d.syntax(err)
		return nil, false
	}
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
		return nil, false
	default:
		d.add(second.Line, second.Column, "", "a second document begins here", "write one document, without a --- line in it")
	}
	if len(first.Content) == 0 || isNull(first.Content[0]) {
		return nil, true
	}
	return first.Content[0], true
}

// syntax reports the YAML parser's own complaint, which speaks of the file's text and has no position but a line.
func (d *decoder) syntax(err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, fault, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, text = n, fault
		}
	}
	d.add(line, 1, "", "is not YAML here: "+text, "look for a missing colon, quote or wrong indentation at or above this line")
}

// add appends a problem. The parser counts a line too many at the end of some files.
func (d *decoder) add(line, column int, path, fault, remedy string) {
	d.bad[path] = true
	d.problems = append(d.problems, Problem{
		File: d.source.file, Line: min(max(line, 1), d.lines), Column: max(column, 1), Field: path, Fault: fault, Remedy: remedy,
	})
}

func (d *decoder) fail(n *yaml.Node, path, fault, remedy string) {
	d.add(n.Line, n.Column, path, fault, remedy)
}

func (d *decoder) root(n *yaml.Node, c *Config) {
	d.source.at[""] = place{line: 1, column: 1}
	if n == nil {
		return
	}
	if d.plain(n, "") {
		d.section(n, "", reflect.ValueOf(c).Elem())
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// plain refuses what YAML has beyond mappings, lists and scalars: it makes a file mean something else than it seems to.
func (d *decoder) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		d.fail(n, path, "is an alias (*"+n.Value+")", "write the value itself; for values from outside there is ${NAME}")
	case n.Anchor != "":
		d.fail(n, path, "has an anchor (&"+n.Anchor+")", "remove it; aliases are not supported")
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, path, "has the tag "+quote(n.Tag), "remove it; the type follows from the field")
	case isNull(n):
		d.fail(n, path, "has no value", "write one, or remove the key")
	default:
		return true
	}
	return false
}

// value decodes one node into v.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if !d.plain(n, path) {
		return
	}
	switch t := v.Type(); {
	case isSection(t):
		d.section(n, path, v)
	case t.Kind() == reflect.Slice:
		d.list(n, path, v, tag)
	default:
		d.scalar(n, path, v, tag)
	}
}

func (d *decoder) section(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		what := "a section"
		if path == "" {
			what = "the file"
		}
		d.fail(n, path, "is "+kindOf(n)+", but "+what+" consists of keys", "write it as key: value lines")
		return
	}
	fields := fieldsOf(v.Type())
	seen := make(map[string]int, len(fields))
	for i := 0; i+1 < len(n.Content); i += 2 {
		d.key(n.Content[i], n.Content[i+1], path, v, fields, seen)
	}
}

func (d *decoder) key(key, value *yaml.Node, parent string, v reflect.Value, fields []field, seen map[string]int) {
	if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 {
		d.fail(key, parent, "has a key that is not plain text", "write the key as its bare name")
		return
	}
	if key.ShortTag() == "!!merge" {
		d.fail(key, parent, "has a merge key (<<)", "write the keys themselves; aliases are not supported")
		return
	}
	path := join(parent, bareName(key.Value))
	if line, twice := seen[key.Value]; twice {
		d.fail(key, path, fmt.Sprintf("stands twice, first in line %d", line), "keep one of them")
		return
	}
	seen[key.Value] = key.Line
	for _, f := range fields {
		if f.name == key.Value {
			d.source.at[path] = place{line: key.Line, column: key.Column}
			d.value(value, path, v.FieldByIndex(f.index), f.tag)
			return
		}
	}
	d.unknown(key, parent, path, fields)
}

func (d *decoder) unknown(key *yaml.Node, parent, path string, fields []field) {
	for _, p := range planned {
		if p == path {
			d.fail(key, path, "is not built yet in this version", "remove it")
			return
		}
	}
	remedy := "remove it; docs/configuration.md lists the keys"
	if d.unknowns++; d.unknowns <= mostSuggestions {
		if near := suggest(key.Value, parent, fields); near != "" {
			remedy = "did you mean " + near + "?"
		}
	}
	d.fail(key, path, "is not a key", remedy)
}

// list decodes a sequence; for Strings one scalar is a list of one. The default is replaced, not added to.
func (d *decoder) list(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	element := v.Type().Elem()
	if n.Kind == yaml.ScalarNode && v.Type() == reflect.TypeFor[Strings]() {
		one := reflect.New(element).Elem()
		d.scalar(n, path, one, tag)
		v.Set(reflect.Append(reflect.Zero(v.Type()), one))
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "is "+kindOf(n)+", but must be a list", "write it as [a, b], also for a single one")
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		d.source.at[at] = place{line: item.Line, column: item.Column}
		d.value(item, at, items.Index(i), tag)
	}
	v.Set(items)
	d.repeated(n, path, items)
}

// repeated refuses a text that stands twice in a list: one of them was meant to be something else.
func (d *decoder) repeated(n *yaml.Node, path string, items reflect.Value) {
	if items.Type().Elem().Kind() != reflect.String {
		return
	}
	seen := make(map[string]bool)
	for i := range items.Len() {
		at := path + "[" + strconv.Itoa(i) + "]"
		text := items.Index(i).String()
		if seen[text] && !d.bad[at] {
			d.fail(n.Content[i], at, "stands twice in the list", "keep one of them")
		}
		seen[text] = true
	}
}

// scalar decodes one scalar. A value from the environment is always text, read as the field wants it.
func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, path, "is "+kindOf(n)+", but must be a single value", "write "+example(v.Type(), tag))
		return
	}
	text, expanded, fault, remedy := expand(n.Value, d.env)
	d.source.at[path] = place{line: n.Line, column: n.Column, text: n.Value, expanded: expanded}
	if fault == "" {
		fault, remedy = d.set(n, text, expanded, v, tag)
	}
	if fault != "" {
		d.fail(n, path, fault, remedy)
	}
}

// set parses text into v and returns what is wrong. Faults quote n.Value, which stands in the file, never text.
func (d *decoder) set(n *yaml.Node, text string, expanded bool, v reflect.Value, tag reflect.StructTag) (fault, remedy string) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return "has control characters or is not UTF-8", "write printable text on one line"
	}
	numeric := v.CanInt() && v.Type() != reflect.TypeFor[time.Duration]()
	if !expanded && !numeric && v.Kind() != reflect.Bool && n.ShortTag() != "!!str" && !isZeroDuration(text, v) {
		return "is " + kindOf(n) + ", but must be text",
			"write " + example(v.Type(), tag) + ", in quotes where YAML would read it otherwise"
	}
	fault, remedy = d.assign(text, v, tag)
	if fault != "" && remedy == "" {
		remedy = "write " + example(v.Type(), tag)
	}
	if fault != "" && !carriesSecrets(v.Type()) {
		fault = quote(n.Value) + " " + fault
	}
	return fault, remedy
}

// isZeroDuration lets 0 stand without a unit and without quotes.
func isZeroDuration(text string, v reflect.Value) bool {
	return text == "0" && v.Type() == reflect.TypeFor[time.Duration]()
}

// carriesSecrets names the types whose text may hold a password even in the file.
func carriesSecrets(t reflect.Type) bool {
	return t == reflect.TypeFor[*url.URL]() || t == reflect.TypeFor[Ledger]()
}

// assign reads text as v's type wants it and checks its form.
func (d *decoder) assign(text string, v reflect.Value, tag reflect.StructTag) (fault, remedy string) {
	var parsed any
	switch v.Interface().(type) {
	case time.Duration:
		parsed, fault = parseDuration(text, tag)
	case Size:
		parsed, fault = parseBytes(text, tag)
	case int:
		parsed, fault = parseCount(text, tag)
	case bool:
		parsed, fault = parseBool(text)
	case netip.Prefix:
		parsed, fault, remedy = parsePrefix(text)
	case *url.URL:
		parsed, fault, remedy = parseURL(text, tag.Get("form"))
	case Ledger:
		parsed, fault, remedy = d.parseLedger(text)
	default:
		parsed, fault, remedy = d.parseString(text, tag)
	}
	if fault == "" {
		v.Set(reflect.ValueOf(parsed).Convert(v.Type()))
	}
	return fault, remedy
}

// resolve makes a path of the file absolute or relative to the working directory, as the file's own name is.
func (d *decoder) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(d.dir, path)
}

// kindOf says what a node is, as an operator would.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "a single value"
}

// bareName is a key as a path shows it: quoted where it would not be seen as one word.
func bareName(key string) string {
	odd := func(r rune) bool {
		return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '.' || r == '[' || r == '"'
	}
	if key == "" || !utf8.ValidString(key) || strings.ContainsFunc(key, odd) {
		return quote(key)
	}
	return shorten(key)
}

// quote shows text of the file, shortened.
func quote(text string) string { return strconv.Quote(shorten(text)) }

func shorten(text string) string {
	const most = 40
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
