package policy_test

import (
	"context"
	"testing"

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
		t.Logf("%s %.0f%% missed %v", f.File, f.Percent, f.Missed)
		if f.Percent < 90 {
			t.Errorf("%s: only %.0f%% of the rules are tested; lines %v are not", f.File, f.Percent, f.Missed)
		}
	}
	if !report.Passed() || len(report.Results) < 15 {
		t.Errorf("%d tests, passed %v", len(report.Results), report.Passed())
	}
}
