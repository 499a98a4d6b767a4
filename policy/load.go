package policy

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

//go:embed input.schema.json
var inputSchema []byte

// InputSchema is the JSON Schema of input, against which policies are type-checked.
func InputSchema() []byte { return slices.Clone(inputSchema) }

const query = "data.stepward.requirement"

// sources are the files of one policy directory.
type sources struct {
	modules  map[string]*ast.Module // without tests
	tests    map[string]string      // their text: a broken test must not keep a sound policy from loading
	data     *data
	revision string
}

// read parses every *.rego file and the one data.yaml (or data.json) below the root of fsys; other files are ignored.
func read(fsys fs.FS) (*sources, Problems) {
	s := &sources{modules: map[string]*ast.Module{}, tests: map[string]string{}}
	var problems Problems
	digest := sha256.New()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(path.Base(name), "."): // ConfigMap's ..data and editors' droppings
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		ext := path.Ext(name)
		if ext != ".rego" && name != "data.yaml" && name != "data.yml" && name != "data.json" {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(digest, "%d:%s%d:", len(name), name, len(text))
		digest.Write(text)
		problems = append(problems, s.file(name, text)...)
		return nil
	})
	if err != nil {
		problems = append(problems, Problem{File: ".", Message: err.Error(), Remedy: "name a readable directory with *.rego files and data.yaml"})
	}
	if len(s.modules) == 0 && len(problems) == 0 {
		problems = append(problems, Problem{File: ".", Message: "has no *.rego files", Remedy: "copy the shipped policy from rego/ and begin there"})
	}
	if s.data == nil && len(problems) == 0 {
		problems = append(problems, Problem{File: "data.yaml", Message: "is missing", Remedy: "write the routes there"})
	}
	s.revision = hex.EncodeToString(digest.Sum(nil))[:16]
	return s, problems
}

func (s *sources) file(name string, text []byte) Problems {
	if path.Ext(name) != ".rego" {
		if s.data != nil {
			return Problems{{File: name, Message: "is a second data file", Remedy: "keep one data.yaml"}}
		}
		var problems []Problem
		s.data, problems = loadData(name, text)
		return problems
	}
	if strings.HasSuffix(name, "_test.rego") {
		s.tests[name] = string(text)
		return nil
	}
	module, err := parse(name, string(text))
	if err != nil {
		return astProblems(name, err)
	}
	s.modules[name] = module
	return nil
}

func parse(name, text string) (*ast.Module, error) {
	return ast.ParseModuleWithOpts(name, text, ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1, Capabilities: capabilities()})
}

// parsedTests parses the tests too.
func (s *sources) parsedTests() (map[string]*ast.Module, Problems) {
	modules := map[string]*ast.Module{}
	var problems Problems
	for name, text := range s.tests {
		module, err := parse(name, text)
		if err != nil {
			problems = append(problems, astProblems(name, err)...)
			continue
		}
		modules[name] = module
	}
	return modules, problems
}

func astProblems(file string, err error) Problems {
	var list ast.Errors
	if !errors.As(err, &list) {
		return Problems{{File: file, Message: err.Error()}}
	}
	var problems Problems
	for _, e := range list {
		p := Problem{File: file, Message: e.Message, Remedy: remedyFor(e)}
		if e.Location != nil {
			p.File, p.Line = e.Location.File, e.Location.Row
		}
		if e.Details != nil {
			p.Message += " (" + strings.Join(e.Details.Lines(), " ") + ")"
		}
		problems = append(problems, p)
	}
	return problems
}

func remedyFor(e *ast.Error) string {
	switch {
	case strings.Contains(e.Message, "undefined ref: input"):
		return "use a member of the input's schema (docs/writing-policy.md)"
	case strings.Contains(e.Message, "undefined function"):
		return "policies have no clock, network or random source: pass what you need in the data"
	case e.Code == ast.ParseErr:
		return "mend the syntax (Rego v1)"
	}
	return ""
}

// forbidden are the builtins that would make a decision depend on more than its input.
var forbidden = []string{"http.send", "opa.runtime", "rego.parse_module", "trace", "print"}

// capabilities are OPA's without clock, network, randomness and runtime.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		return b.Nondeterministic || slices.Contains(forbidden, b.Name) || strings.HasPrefix(b.Name, "net.lookup") || strings.HasPrefix(b.Name, "providers.aws")
	})
	c.AllowNet = []string{}
	return c
}

func schemas() (*ast.SchemaSet, error) {
	var schema any
	if err := json.Unmarshal(inputSchema, &schema); err != nil {
		return nil, fmt.Errorf("policy: input schema: %w", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, schema)
	return set, nil
}

// compile type-checks the modules against the input's schema.
func compile(modules map[string]*ast.Module) (*ast.Compiler, Problems) {
	set, err := schemas()
	if err != nil {
		return nil, Problems{{File: "input.schema.json", Message: err.Error()}}
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithSchemas(set).WithUseTypeCheckAnnotations(true).
		WithStrict(true).WithDefaultRegoVersion(ast.RegoV1)
	compiler.Compile(modules)
	if compiler.Failed() {
		return nil, astProblems(".", compiler.Errors)
	}
	if len(compiler.GetRulesExact(ast.MustParseRef(query))) == 0 {
		return nil, Problems{{File: ".", Message: "no rule " + query, Remedy: "write package stepward with a rule named requirement"}}
	}
	return compiler, nil
}

func (s *sources) store() storage.Store {
	return inmem.NewFromObjectWithOpts(map[string]any{"stepward": s.data.all}, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(true))
}

// build makes a snapshot of what was read, without probing it.
func build(ctx context.Context, s *sources, c *Config) (*Snapshot, Problems) {
	var problems Problems
	snap := &Snapshot{revision: s.revision, data: s.data, timeout: c.EvalTimeout}
	for _, r := range s.data.routes {
		if err := snap.table.add(r); err != nil {
			problems = append(problems, Problem{File: s.data.file, Line: s.data.lines[r.Pattern], Field: fmt.Sprintf("routes[%q]", r.Pattern), Message: err.Error(), Remedy: "change or remove one of the routes"})
		}
	}
	compiler, more := compile(s.modules)
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, problems
	}
	prepared, err := rego.New(rego.Query(query), rego.Compiler(compiler), rego.Store(s.store()), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return nil, astProblems(".", err)
	}
	snap.prepared = prepared
	snap.reads = readable(compiler, s.modules)
	if !c.DisableCache && deterministic(compiler) {
		snap.cache = newCache(c.CacheSize)
	}
	return snap, nil
}

func sortProblems(ps Problems) {
	sort.SliceStable(ps, func(i, j int) bool {
		if ps[i].File != ps[j].File {
			return ps[i].File < ps[j].File
		}
		return ps[i].Line < ps[j].Line
	})
}
