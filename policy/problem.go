package policy

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a policy, for a person to mend.
type Problem struct {
	File    string
	Line    int    // 0 when the problem has no line
	Field   string // "" for Rego
	Message string
	Remedy  string
}

// String is the problem on one line: file:line: field: message; remedy.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Field != "" {
		fmt.Fprintf(&b, ": %s", p.Field)
	}
	fmt.Fprintf(&b, ": %s", p.Message)
	if p.Remedy != "" {
		fmt.Fprintf(&b, "; %s", p.Remedy)
	}
	return b.String()
}

// Problems is an error that lists all that is wrong, one line each.
type Problems []Problem //nolint:errname // a list that is read by people, and an error on the side

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
