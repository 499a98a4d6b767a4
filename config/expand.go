package config

import "strings"

// expand replaces ${NAME} by the environment's value; "$${" stands for "${" itself, every other "$" for itself. Values are
// not looked at again. It runs on single scalars after parsing, so a value can never add structure.
//
// The fault is "" when all is well. It never holds a value, only names, which stand in the file.
func expand(text string, env func(string) (string, bool)) (expanded string, used bool, fault, remedy string) {
	var out strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			out.WriteString(text)
			return out.String(), used, "", ""
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		out.WriteString(text[:i])
		name, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed || !isVariable(name) {
			return "", true, `has "${" that begins no variable`, `write ${NAME}, or "$${" for the characters themselves`
		}
		value, set := env(name)
		if !set {
			return "", true, "needs the environment variable " + name + ", which is not set", "set it, or write the value here"
		}
		used = true
		out.WriteString(value)
		text = rest
	}
}

func isVariable(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
