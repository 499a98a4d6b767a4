package policy

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// unreachable finds headers and wildcards that rules ask for and no request can have. The schema cannot know them, and a rule
// that refuses on a misspelt one refuses nobody.
func (s *sources) unreachable(compiler *ast.Compiler) Problems {
	headers, params := map[string]bool{}, map[string]bool{}
	for _, name := range s.data.headers {
		headers[name.lower] = true
	}
	for _, r := range s.data.routes {
		p, _ := parsePattern(r.Pattern) // its problem is in the list already
		for _, seg := range p.segments {
			params[seg.text] = true
		}
	}
	var problems Problems
	fault := func(at *ast.Location, field, message, remedy string) {
		p := Problem{File: ".", Field: field, Message: message, Remedy: remedy}
		if at != nil {
			p.File, p.Line = at.File, at.Row
		}
		problems = append(problems, p)
	}
	references(compiler, s.modules, func(p []string, at *ast.Location) {
		switch {
		case len(p) > 2 && p[0] == "request" && p[1] == "headers" && !headers[p[2]]:
			fault(at, fmt.Sprintf("input.request.headers[%q]", p[2]), "is never there: data.stepward.input_headers does not name it",
				"add it to input_headers, in lower case in both places")
		case len(p) > 1 && p[0] == "params" && !params[p[1]]:
			fault(at, "input.params."+p[1], "is never there: no route has a wildcard {"+p[1]+"}", "write the name as a route's pattern does")
		}
	})
	return problems
}
