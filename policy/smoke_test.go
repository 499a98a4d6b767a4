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
