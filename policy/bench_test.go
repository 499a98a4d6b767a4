package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

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

// BenchmarkRequire: remembered answers, ones that are not yet, and no cache at all.
func BenchmarkRequire(b *testing.B) {
	for _, row := range []struct {
		name string
		c    policy.Config
	}{{"cached", policy.Config{}}, {"missed", policy.Config{CacheSize: 1}}, {"uncached", policy.Config{DisableCache: true}}} {
		b.Run(row.name, func(b *testing.B) {
			s := shippedSnapshot(b, row.c)
			var m policy.Match
			in := exportInput(s, &m)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if row.name == "missed" {
					in.Environment = [...]string{"a", "b"}[i%2]
				}
				if _, err := s.Require(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRoutes asks policies of 10 and of 10,000 routes in turns and reports by how much the second is dearer. At most 1.2
// is wanted where the work is the same ("one", "missed"). "all" visits every route in turn and measures the processor's caches,
// which 10,000 routes do not fit into: some microseconds more.
func BenchmarkRoutes(b *testing.B) {
	few, many := routing{s: manyRoutes(b, 10, 0), n: 10}, routing{s: manyRoutes(b, 10_000, 0), n: 10_000}
	fewMissed, manyMissed := routing{s: manyRoutes(b, 10, 1), n: 10}, routing{s: manyRoutes(b, 10_000, 1), n: 10_000}
	for _, row := range []struct {
		name      string
		few, many routing
		ask       func(r *routing, i int) error
	}{
		{"match one", few, many, func(r *routing, _ int) error { return r.match(r.n / 2) }},
		{"match all", few, many, func(r *routing, i int) error { return r.match(i * 7919 % r.n) }},
		{"require one", few, many, func(r *routing, _ int) error { return r.require(r.n/2, 0) }},
		{"require missed", fewMissed, manyMissed, func(r *routing, i int) error { return r.require(r.n/2, i) }},
	} {
		b.Run(row.name, func(b *testing.B) {
			const turn = 64
			var took [2]time.Duration
			i := 0
			for b.Loop() {
				for k, r := range []*routing{&row.few, &row.many} {
					began := time.Now()
					for j := range turn {
						if err := row.ask(r, i+j); err != nil {
							b.Fatal(err)
						}
					}
					took[k] += time.Since(began)
				}
				i += turn
			}
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(i), "ns/few")
			b.ReportMetric(float64(took[1].Nanoseconds())/float64(i), "ns/many")
			b.ReportMetric(0, "ns/op")
		})
	}
}

type routing struct {
	s     *policy.Snapshot
	n     int
	m     policy.Match
	in    policy.Input
	paths []string
}

func (r *routing) match(i int) error {
	if r.paths == nil {
		for i := range r.n {
			r.paths = append(r.paths, fmt.Sprintf("/api/v0/sdk/e/section%d/w-1/export", i))
		}
	}
	if r.s.Match("POST", r.paths[i], &r.m); r.m.Route == nil {
		return errors.New("no route")
	}
	return nil
}

var environments = [...]string{"a", "b"}

func (r *routing) require(i, environment int) error {
	if err := r.match(i); err != nil {
		return err
	}
	r.in = policy.Input{Match: &r.m, Method: "POST", Environment: environments[environment%2]}
	_, err := r.s.Require(context.Background(), &r.in)
	return err
}

// manyRoutes is the shipped policy with n routes of its own, which differ in a literal in their midst.
func manyRoutes(tb testing.TB, n, cacheSize int) *policy.Snapshot {
	tb.Helper()
	shipped, err := rego.FS.ReadFile("data.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	before, _, _ := strings.Cut(string(shipped), "\nroutes:\n")
	data := []byte(before + "\nroutes:\n")
	for i := range n {
		data = fmt.Appendf(data, "  \"POST /sdk/{environmentId}/section%d/{walletId}/export\": {operation: wallet.export}\n", i)
	}
	files := fstest.MapFS{"data.yaml": &fstest.MapFile{Data: data}}
	for _, name := range []string{"clients.rego", "environment.rego", "proof.rego", "redirect.rego", "requirement.rego"} {
		text, err := rego.FS.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: text}
	}
	e, err := policy.New(context.Background(), policy.Config{FS: files, CacheSize: cacheSize})
	if err != nil {
		tb.Fatal(err)
	}
	return e.Snapshot()
}
