package policy

import "github.com/open-policy-agent/opa/v1/ast"

// Reads lists the paths below input that the compiled policy can read.
func (s *Snapshot) Reads() [][]string { return s.reads }

// Remembered is how many requirements the cache holds.
func (s *Snapshot) Remembered() int { return s.cache.entries.Len() }

// Forget empties the cache.
func (s *Snapshot) Forget() { s.cache.entries.Purge() }

// Deterministic judges rules that may call every builtin of OPA's.
func Deterministic(rules string) bool {
	return deterministic(ast.MustCompileModules(map[string]string{"a.rego": rules}))
}

// Builtins names what a policy may call.
func Builtins() []string {
	var names []string
	for _, b := range capabilities().Builtins {
		names = append(names, b.Name)
	}
	return names
}
