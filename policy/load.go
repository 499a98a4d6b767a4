package policy

import (
	"cmp"
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
	"strings"
	"sync"

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
	synced   map[string]Synced
	revision string
}

// source is one file as it was read.
type source struct {
	name string
	text []byte
}

// gather reads every *.rego file and the one data.yaml (or data.json) below the root of fsys; other files are ignored.
func gather(fsys fs.FS) (found []source, revision string, err error) {
	digest := sha256.New()
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
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
		if path.Ext(name) != ".rego" && name != "data.yaml" && name != "data.yml" && name != "data.json" {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(digest, "%d:%s%d:", len(name), name, len(text))
		digest.Write(text)
		found = append(found, source{name, text})
		return nil
	})
	return found, hex.EncodeToString(digest.Sum(nil))[:16], err
}

// maxGathers is how often files are read that change meanwhile.
const maxGathers = 8

// gatherWhole reads until two readings agree: a ConfigMap is swapped whole but read file by file, and half of one policy with
// half of another is neither.
func gatherWhole(fsys fs.FS) (found []source, revision string, err error) {
	before := ""
	for range maxGathers {
		found, revision, err = gather(fsys)
		if revision == before {
			return found, revision, err
		}
		before = revision
	}
	return nil, revision, errors.New("changes while it is read")
}

// read parses the files of a policy folder.
func read(fsys fs.FS) (*sources, Problems) {
	found, revision, err := gatherWhole(fsys)
	return parseFiles(files{found, revision}, err, nil)
}

// parseFiles parses files of which err says whether all could be read, with what was synced under their data.
func parseFiles(from files, err error, synced map[string]Synced) (*sources, Problems) {
	s := &sources{modules: map[string]*ast.Module{}, tests: map[string]string{}, revision: revisionOf(from.revision, synced), synced: synced}
	var problems Problems
	for _, f := range from.found {
		problems = append(problems, s.file(f.name, f.text)...)
	}
	switch {
	case err != nil:
		problems = append(problems, Problem{File: ".", Message: err.Error(), Remedy: "name a readable directory with *.rego files and data.yaml"})
	case len(s.modules) == 0 && !slices.ContainsFunc(problems, inRego):
		problems = append(problems, Problem{File: ".", Message: "has no *.rego files", Remedy: "copy the shipped policy from rego/ and begin there"})
	}
	if s.data == nil && err == nil {
		problems = append(problems, Problem{File: "data.yaml", Message: "is missing", Remedy: "write the routes there"})
	}
	return s, problems
}

func inRego(p Problem) bool { return path.Ext(p.File) == ".rego" }

func (s *sources) file(name string, text []byte) Problems {
	if path.Ext(name) != ".rego" {
		if s.data != nil {
			return Problems{{File: name, Message: "is a second data file", Remedy: "keep one data.yaml"}}
		}
		var problems Problems
		s.data, problems = loadData(name, text, s.synced)
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
			p.Message += details(e.Details.Lines())
		}
		problems = append(problems, p)
	}
	return problems
}

// details puts on one line what OPA draws on several, without the caret that points at a column.
func details(lines []string) string {
	var kept []string
	for _, line := range lines {
		if line = strings.Trim(line, " \t"); strings.Trim(line, "^") != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		return ""
	}
	return " (" + strings.Join(kept, ", ") + ")"
}

func remedyFor(e *ast.Error) string {
	switch {
	case strings.Contains(e.Message, "undefined ref: input"):
		return "use a member of the input's schema (docs/writing-policy.md)"
	case strings.Contains(e.Message, "undefined function"):
		return "name a function that exists; policies have no clock, network or random source"
	case strings.HasPrefix(e.Message, "conflicting rule for data path"):
		return "rename the rule, or the member of the data file"
	case e.Code == ast.ParseErr:
		return "mend the syntax (Rego v1)"
	}
	return ""
}

// forbidden are builtins that OPA does not call nondeterministic although they depend on more than their arguments: on the
// clock, on files and hosts that a JSON Schema refers to, or on who listens.
var forbidden = []string{
	"crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options", "io.jwt.decode_verify",
	"json.match_schema", "json.verify_schema", "opa.runtime", "print", "rego.parse_module", "trace",
}

// capabilities are OPA's without clock, network, randomness and runtime.
var capabilities = sync.OnceValue(func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		return b.Nondeterministic || slices.Contains(forbidden, b.Name) || strings.HasPrefix(b.Name, "net.lookup") || strings.HasPrefix(b.Name, "providers.aws")
	})
	c.AllowNet = []string{}
	return c
})

func schemas() (*ast.SchemaSet, error) {
	var schema any
	if err := json.Unmarshal(inputSchema, &schema); err != nil {
		return nil, fmt.Errorf("policy: input schema: %w", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, schema)
	return set, nil
}

// compile type-checks the modules against the input's schema, and refuses a rule that a member of the data would hide or be
// hidden by.
func (s *sources) compile() (*ast.Compiler, Problems) {
	set, err := schemas()
	if err != nil {
		return nil, Problems{{File: "input.schema.json", Message: err.Error()}}
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithSchemas(set).WithUseTypeCheckAnnotations(true).
		WithStrict(true).WithDefaultRegoVersion(ast.RegoV1).SetErrorLimit(-1).WithPathConflictsCheck(s.holds)
	compiler.Compile(s.modules)
	if compiler.Failed() {
		return nil, astProblems(".", compiler.Errors)
	}
	if len(compiler.GetRulesExact(ast.MustParseRef(query))) == 0 {
		return nil, Problems{{File: ".", Message: "no rule " + query, Remedy: "write package stepward with a rule named requirement"}}
	}
	return compiler, nil
}

// holds reports whether the data has a value at the path below data.
func (s *sources) holds(path []string) (bool, error) {
	if s.data == nil || len(path) == 0 || path[0] != "stepward" {
		return false, nil
	}
	var v any = s.data.all
	for _, name := range path[1:] {
		object, ok := v.(map[string]any)
		if !ok {
			return false, nil
		}
		if v, ok = object[name]; !ok {
			return false, nil
		}
	}
	return true, nil
}

func (s *sources) store() storage.Store {
	return inmem.NewFromObjectWithOpts(map[string]any{"stepward": s.data.all}, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(true))
}

// load makes a snapshot of a folder, or says everything that is wrong with it: of files that can be read in spite of their
// faults, or beside faulty ones, as much as they say.
func load(ctx context.Context, c *Config) (*Snapshot, error) {
	found, revision, err := gatherWhole(c.FS)
	return build(ctx, c, files{found, revision}, err)
}

// build is load for files that have been read, as far as err lets them.
func build(ctx context.Context, c *Config, from files, err error) (*Snapshot, error) {
	s, problems := parseFiles(from, err, c.Synced)
	snap := &Snapshot{files: from, revision: s.revision, data: s.data, timeout: c.EvalTimeout}
	if s.data != nil {
		problems = append(problems, snap.addRoutes()...)
		if c.Scopes != nil {
			problems = append(problems, s.data.foreign(c.Scopes)...)
		}
	}
	if len(s.modules) > 0 && !slices.ContainsFunc(problems, inRego) {
		compiler, more := s.compile()
		if problems = append(problems, more...); compiler != nil && s.data != nil {
			problems = append(problems, s.unreachable(compiler)...)
		}
		if len(problems) == 0 {
			problems = snap.prepare(ctx, s, compiler, c)
		}
	}
	if len(problems) > 0 {
		return nil, sorted(problems)
	}
	return snap, nil
}

func (s *Snapshot) addRoutes() Problems {
	var problems Problems
	for _, r := range s.data.routes {
		if err := s.table.add(r); err != nil {
			problems = append(problems, s.data.problem(r, err.Error(), "change or remove the route"))
		}
	}
	return problems
}

func (s *Snapshot) prepare(ctx context.Context, from *sources, compiler *ast.Compiler, c *Config) Problems {
	prepared, err := rego.New(rego.Query(query), rego.Compiler(compiler), rego.Store(from.store()), rego.Capabilities(capabilities()),
		rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return astProblems(".", err)
	}
	s.prepared = prepared
	s.reads = readable(compiler, from.modules)
	switch {
	case c.ShowAll:
		s.reads = everything
	case !c.DisableCache && deterministic(compiler):
		s.cache = newCache(c.CacheSize)
	}
	problems := s.probe(ctx)
	s.onCache = c.OnCache
	return problems
}

// sorted brings problems into an order that does not change from one reading of the same files to the next.
func sorted(ps Problems) Problems {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, strings.Compare(a.Field, b.Field),
			strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}
