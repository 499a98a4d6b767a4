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

// Data reads a data file alone: its routes can be matched, and nothing be required.
func Data(file string, text []byte) (*Snapshot, Problems) {
	s := &Snapshot{}
	var problems Problems
	s.data, problems = loadData(file, text, nil)
	return s, append(problems, s.addRoutes()...)
}

// DataWith reads a data file with what was synced.
func DataWith(text []byte, synced map[string]Synced) Problems {
	_, problems := loadData("data.yaml", text, synced)
	return problems
}

// Plain is all of data.stepward.
func (s *Snapshot) Plain() map[string]any { return s.data.all }

// Environments is what the data says to Go of the environments it lists.
func (s *Snapshot) Environments() map[string]Environment { return s.data.environments }

// Decode reads a requirement.
func Decode(plain any) (*Requirement, error) { return decode(plain) }

// Table is a route table of the patterns that can stand together, taken in their order; the others are told with the reason.
func Table(patterns []string) (s *Snapshot, refused map[string]error) {
	s, refused = &Snapshot{}, map[string]error{}
	var kept []string
	for _, p := range patterns {
		var t table
		for _, earlier := range kept {
			if err := t.add(&Route{Pattern: earlier}); err != nil {
				panic(err) // it was accepted before
			}
		}
		if err := t.add(&Route{Pattern: p}); err != nil {
			refused[p] = err
			continue
		}
		kept, s.table = append(kept, p), t
	}
	return s, refused
}
