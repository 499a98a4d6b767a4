package policy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

const exportPath = "/api/v0/sdk/3f0c1de2-8e7a-4a53-9d57-6f4f1cbe0a11/waas/8a1b7c52-0f4e-4f0e-9f5c-2d1f6f0a7e33/privateKey/export"

func shippedSnapshot(tb testing.TB, c policy.Config) *policy.Snapshot {
	tb.Helper()
	c.FS = rego.FS
	e, err := policy.New(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	return e.Snapshot()
}

// exportInput is what the gate fills for a private key export by a user who is signed in.
func exportInput(s *policy.Snapshot, m *policy.Match) *policy.Input {
	s.Match("POST", exportPath, m)
	return &policy.Input{
		Match: m, Method: "POST", Path: exportPath, Host: "api.example", Environment: "3f0c1de2-8e7a-4a53-9d57-6f4f1cbe0a11",
		Client: policy.Client{SDK: "WalletKit", SDKVersion: "4.76.0"},
		Session: map[string]any{
			"sub": "user-1", "scope": "user:basic", "sid": "s-1", "email": "a@example.com",
			"environment_id": "3f0c1de2-8e7a-4a53-9d57-6f4f1cbe0a11",
		},
		Device: policy.Device{State: policy.Registered, ID: "d-1"},
	}
}

func BenchmarkRequire(b *testing.B) {
	for _, row := range []struct {
		name string
		off  bool
	}{{"cached", false}, {"uncached", true}} {
		b.Run(row.name, func(b *testing.B) {
			s := shippedSnapshot(b, policy.Config{DisableCache: row.off})
			var m policy.Match
			in := exportInput(s, &m)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Require(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			s := manyRoutes(b, n)
			var m policy.Match
			path := fmt.Sprintf("/api/v0/sdk/e/section%d/w-1/export", n-1)
			b.ReportAllocs()
			for b.Loop() {
				if s.Match("POST", path, &m); m.Route == nil {
					b.Fatal("no route")
				}
			}
		})
	}
}

// manyRoutes is a policy with n routes that differ in a literal in their midst.
func manyRoutes(tb testing.TB, n int) *policy.Snapshot {
	tb.Helper()
	var data strings.Builder
	data.WriteString("mount: /api/v0\nroutes:\n")
	for i := range n {
		fmt.Fprintf(&data, "  \"POST /sdk/{environmentId}/section%d/{walletId}/export\": {operation: wallet.export}\n", i)
	}
	files := fstest.MapFS{
		"data.yaml":   &fstest.MapFile{Data: []byte(data.String())},
		"policy.rego": &fstest.MapFile{Data: []byte("package stepward\n\nrequirement := {\"operation\": \"x\", \"session\": false}\n")},
	}
	e, err := policy.New(context.Background(), policy.Config{FS: files})
	if err != nil {
		tb.Fatal(err)
	}
	return e.Snapshot()
}
