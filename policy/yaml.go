package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// plain turns a YAML node into the values that OPA's store holds, and faults what two readers of the file could read
// differently: anchors, tags, keys that are not text, repeated keys.
func (l *dataLoader) plain(n *yaml.Node, field string) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for k, v := range pairs(n) {
			at := below(field, k.Value)
			switch _, seen := m[k.Value]; {
			case k.Kind != yaml.ScalarNode || k.Value == "<<":
				l.fault(k, field, "has a key that is not plain text", "write a plain key; merging with << is not supported")
			case seen:
				l.fault(k, field, fmt.Sprintf("repeats the key %q", k.Value), "keep one of them")
			default:
				m[k.Value] = l.plain(v, at)
			}
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			list = append(list, l.plain(item, fmt.Sprintf("%s[%d]", field, i)))
		}
		return list
	case yaml.ScalarNode:
		v, message, remedy := scalar(n)
		if message != "" {
			l.fault(n, field, message, remedy)
		}
		return v
	default:
		l.fault(n, field, "is an alias", "write the value out; anchors and aliases are not supported")
		return nil
	}
}

// below is the path of a member. A key that is no word is quoted, as routes and environments are.
func below(field, key string) string {
	switch {
	case field == "":
		return key
	case field == "routes", field == "environments", field == "operations", field == "by_body", !isIdentifier(key):
		return fmt.Sprintf("%s[%q]", field, key)
	}
	return field + "." + key
}

func scalar(n *yaml.Node) (v any, message, remedy string) {
	if (n.Tag == "!!int" || n.Tag == "!!float") && strings.Contains(n.Value, "_") {
		// 2026_04_01 unquoted would be the number 20260401: YAML ignores underscores.
		return nil, n.Value + " is read as a number", "put it in quotes: " + strconv.Quote(n.Value)
	}
	switch n.Tag {
	case "!!str", "!!timestamp": // an unquoted date is the text that was written
		return n.Value, "", ""
	case "!!int":
		var i int64
		if n.Decode(&i) != nil {
			return nil, "is not a whole number of 64 bits", "put it in quotes, or write a smaller one"
		}
		return json.Number(strconv.FormatInt(i, 10)), "", ""
	case "!!float":
		var f float64
		if n.Decode(&f) != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, "is not a number that JSON has", "write a finite number"
		}
		return f, "", ""
	case "!!bool":
		var b bool
		if n.Decode(&b) != nil {
			return nil, "is not true or false", "write true or false"
		}
		return b, "", ""
	case "!!null":
		return nil, "", ""
	}
	return nil, "has the tag " + n.Tag, "use plain text, numbers, true, false or null"
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

// text is a scalar that YAML reads as text.
func text(n *yaml.Node) (string, bool) {
	return n.Value, n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "!!timestamp")
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
