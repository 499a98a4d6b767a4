package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file. No text in it ever comes from the environment, only from the file.
type Problem struct { //nolint:errname // a Problem is read by people and never branched on
	File   string
	Line   int    // from 1; 0 when the file could not be read at all
	Column int    // from 1, in characters; 0 with Line 0
	Field  string // path of the field, such as session.audience[0]; "" for the file as a whole
	Fault  string // what is wrong
	Remedy string // what to write instead
}

// Error renders the problem on one line: file:line:column: field: fault; remedy.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Fault)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// String is Error.
func (p Problem) String() string { return p.Error() }

// Problems are all that is wrong with a file, in the order of its lines. An error of Load, Parse and CheckFiles is always
// a Problems with at least one member.
type Problems []Problem //nolint:errname // as Problem

// Error renders one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes each Problem reachable for errors.As.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// err sorts the problems; none is nil, not an empty Problems.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ps
}
