package policy

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestResult is one Rego test.
type TestResult struct {
	File     string
	Line     int
	Name     string
	Passed   bool
	Message  string // why it did not pass
	Duration time.Duration
}

// FileCoverage is how much of one policy file the tests reached.
type FileCoverage struct {
	File    string
	Percent float64
	Missed  []int // lines
}

// TestReport is the outcome of a run.
type TestReport struct {
	Results  []TestResult
	Coverage []FileCoverage // of the policy's own files, not of the tests
}

// Passed reports whether at least one test ran and all of them passed.
func (r *TestReport) Passed() bool {
	return len(r.Results) > 0 && !slices.ContainsFunc(r.Results, func(t TestResult) bool { return !t.Passed })
}

// Test runs the *_test.rego files beside a policy, with the policy's own data and capabilities. filter is a regular
// expression on test names, "" for all. The error is a Problems when the files do not compile.
func Test(ctx context.Context, fsys fs.FS, filter string) (*TestReport, error) {
	s, problems := read(fsys)
	if len(problems) > 0 {
		return nil, sorted(problems)
	}
	modules, problems := s.parsedTests()
	if len(problems) > 0 {
		return nil, sorted(problems)
	}
	maps.Copy(modules, s.modules)
	store := s.store()
	txn, err := store.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		return nil, fmt.Errorf("policy: test: %w", err)
	}
	defer store.Abort(ctx, txn)
	coverage := cover.New()
	// Tests are not type-checked against the input's schema: they make inputs of their own.
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithDefaultRegoVersion(ast.RegoV1)
	results, err := tester.NewRunner().SetCompiler(compiler).SetStore(store).SetModules(modules).SetCoverageQueryTracer(coverage).
		RaiseBuiltinErrors(true).SetTimeout(10*time.Second).Filter(filter).RunTests(ctx, txn)
	if err != nil {
		return nil, astProblems(".", err)
	}
	report := &TestReport{}
	for r := range results {
		report.Results = append(report.Results, testResult(r))
	}
	sort.Slice(report.Results, func(i, j int) bool {
		a, b := report.Results[i], report.Results[j]
		return a.File < b.File || a.File == b.File && a.Line < b.Line
	})
	files := coverage.Report(s.modules).Files
	for _, name := range slices.Sorted(maps.Keys(s.modules)) {
		report.Coverage = append(report.Coverage, fileCoverage(name, files[name]))
	}
	return report, nil
}

func testResult(r *tester.Result) TestResult {
	out := TestResult{Name: r.Name, Passed: !r.Fail && !r.Skip && r.Error == nil, Duration: r.Duration}
	if r.Location != nil {
		out.File, out.Line = r.Location.File, r.Location.Row
	}
	switch {
	case r.Error != nil:
		out.Message = r.Error.Error()
	case r.Skip:
		out.Message = "skipped: a skipped test is not a passed one"
	case r.FailedAt != nil && r.FailedAt.Location != nil:
		out.Message = fmt.Sprintf("line %d is not true: %s", r.FailedAt.Location.Row, r.FailedAt.Location.Text)
	case r.Fail:
		out.Message = "is not true"
	}
	return out
}

func fileCoverage(name string, f *cover.FileReport) FileCoverage {
	out := FileCoverage{File: name}
	if f == nil {
		return out
	}
	out.Percent = f.Coverage
	for _, r := range f.NotCovered {
		for line := r.Start.Row; line <= r.End.Row; line++ {
			out.Missed = append(out.Missed, line)
		}
	}
	out.Missed = slices.Compact(out.Missed)
	return out
}
