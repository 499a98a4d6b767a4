package policy_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/format"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

func TestTheShippedPolicyLoads(t *testing.T) {
	e, err := policy.New(context.Background(), policy.Config{FS: rego.FS})
	if err != nil {
		t.Fatal(err)
	}
	if !e.Snapshot().Cached() {
		t.Error("the shipped policy is not cached")
	}
}

func TestTheShippedPolicyPassesItsOwnTests(t *testing.T) {
	report, err := policy.Test(context.Background(), rego.FS, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if !r.Passed {
			t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, r.Message)
		}
	}
	for _, f := range report.Coverage {
		if f.Percent < 100 {
			t.Errorf("%s: only %.0f%% of the rules are tested; lines %v are not", f.File, f.Percent, f.Missed)
		}
	}
	if !report.Passed() || len(report.Results) < 15 {
		t.Errorf("%d tests, passed %v", len(report.Results), report.Passed())
	}
}

func TestTheShippedPolicyIsFormattedAndTested(t *testing.T) {
	names, err := fs.Glob(rego.FS, "*.rego")
	if err != nil || len(names) < 6 {
		t.Fatalf("files %v, error %v", names, err)
	}
	for _, name := range names {
		text, err := rego.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := format.Source(name, text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, want) {
			t.Errorf("%s is not as opa fmt writes it:\n%s", name, want)
		}
		rules, isTest := strings.CutSuffix(name, "_test.rego")
		other := rules + ".rego"
		if !isTest {
			other = strings.TrimSuffix(name, ".rego") + "_test.rego"
		}
		if !slices.Contains(names, other) {
			t.Errorf("%s has no %s beside it", name, other)
		}
	}
}

func TestTheReportNamesWhatIsNotTested(t *testing.T) {
	fsys := files("package stepward\n\nrequirement := {\"operation\": \"a\", \"session\": extra}\n\ndefault extra := false\n\nextra if {\n\tinput.operation == \"b\"\n\tinput.route == \"c\"\n}\n", oneRoute)
	fsys["untested.rego"] = &fstest.MapFile{Data: []byte("package other\n\nx := 1\n\ny if x == 2\n")}
	fsys["requirement_test.rego"] = &fstest.MapFile{Data: []byte("package stepward_test\n\nimport data.stepward\n\n" +
		"test_a if stepward.requirement.operation == \"a\"\n\ntest_b if stepward.requirement.operation == \"b\"\n\ntodo_test_c if true\n")}
	report, err := policy.Test(context.Background(), fsys, "")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(report.Passed())
	for _, r := range report.Results {
		got += fmt.Sprintf("\n%s:%d %s %v %s", r.File, r.Line, r.Name, r.Passed, r.Message)
	}
	for _, f := range report.Coverage {
		got += fmt.Sprintf("\n%s %.0f %v", f.File, f.Percent, f.Missed)
	}
	want := `false
requirement_test.rego:5 test_a true 
requirement_test.rego:7 test_b false is not true
requirement_test.rego:9 todo_test_c false skipped: a skipped test is not a passed one
requirement.rego 40 [7 8 9]
untested.rego 0 [3 5]`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
