package policy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/policy"
)

// folder is a policy folder that can be exchanged while it is read.
type folder struct{ atomic.Pointer[fstest.MapFS] }

func (f *folder) Open(name string) (fs.File, error) { return f.Load().Open(name) }

func newFolder(fsys fstest.MapFS) *folder {
	f := &folder{}
	f.Store(&fsys)
	return f
}

// generation is a policy whose route, operation and rule all carry the same number.
func generation(n int) fstest.MapFS {
	rule := fmt.Sprintf("package stepward\n\nrequirement := {\"operation\": sprintf(\"%%s.rule%d\", [input.operation]), \"session\": false}\n", n)
	return files(rule, fmt.Sprintf("routes:\n  \"GET /{id}\": {operation: data%d}\n  GET /only%d: {operation: data%d}\n", n, n, n))
}

func TestABadPolicyKeepsTheLastGoodOne(t *testing.T) {
	f := newFolder(generation(1))
	var told []string
	var e *policy.Engine
	e, err := policy.New(context.Background(), policy.Config{FS: f, OnReload: func(revision string, err error) {
		told = append(told, fmt.Sprintf("%v %v", revision == e.Snapshot().Revision(), err != nil))
		_ = e.LastError() // may be asked from here
	}})
	if err != nil {
		t.Fatal(err)
	}
	good := e.Snapshot()
	for _, c := range []struct {
		name string
		fsys fstest.MapFS
	}{
		{"a syntax error", files("package stepward\n\nrequirement := {", oneRoute)},
		{"a misspelt input", files("package stepward\n\nrequirement := {} if input.request.methd", oneRoute)},
		{"bad data", files(anyRule, "routes: []\n")},
		{"a failing probe", files("package stepward\n\nrequirement := {}", oneRoute)},
		{"an empty folder", fstest.MapFS{}},
	} {
		f.Store(&c.fsys)
		first := e.Reload(context.Background())
		if first == nil || e.Snapshot() != good {
			t.Fatalf("%s: error %v, snapshot changed %v", c.name, first, e.Snapshot() != good)
		}
		if again := e.Reload(context.Background()); again.Error() != first.Error() || e.LastError().Error() != first.Error() {
			t.Errorf("%s: the error changes from\n%v\nto\n%v", c.name, first, again)
		}
	}
	next := generation(2)
	f.Store(&next)
	if err := e.Reload(context.Background()); err != nil || e.LastError() != nil || e.Snapshot() == good {
		t.Errorf("error %v, last error %v", err, e.LastError())
	}
	if got, want := strings.Join(told, ", "), strings.Repeat("true true, ", 10)+"true false"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

func TestAFolderThatGoesAwayKeepsThePolicy(t *testing.T) {
	var gone atomic.Bool
	f := newFolder(generation(1))
	e, err := policy.New(context.Background(), policy.Config{FS: opener(func(name string) (fs.File, error) {
		if gone.Load() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("stale handle")}
		}
		return f.Open(name)
	})})
	if err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	err = e.Reload(context.Background())
	if err == nil || err.Error() != ".: open .: stale handle; name a readable directory with *.rego files and data.yaml" || e.Snapshot() == nil {
		t.Errorf("error %v, snapshot %v", err, e.Snapshot())
	}
}

type opener func(name string) (fs.File, error)

func (f opener) Open(name string) (fs.File, error) { return f(name) }

// A request sees one policy from its route to its requirement, whatever happens meanwhile.
func TestReloadSwapsWhole(t *testing.T) {
	f := newFolder(generation(0))
	e, err := policy.New(context.Background(), policy.Config{FS: f, CacheSize: 8, EvalTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var m policy.Match
			for i := 0; !done.Load(); i++ {
				snap := e.Snapshot()
				snap.Match("GET", fmt.Sprintf("/x%d", i%20), &m)
				q, err := snap.Require(context.Background(), &policy.Input{Match: &m})
				if err != nil {
					t.Error(err)
					return
				}
				want := m.Route.Operation + strings.Replace(m.Route.Operation, "data", ".rule", 1)
				if q.Operation != want {
					t.Errorf("operation %q of route %q: policies are mixed", q.Operation, m.Route.Operation)
					return
				}
			}
		})
	}
	for n := range 60 {
		next := generation(n)
		if n%3 == 2 { // a bad one in between
			next = files("package stepward\n\nrequirement := {}", oneRoute)
		}
		f.Store(&next)
		if err := e.Reload(context.Background()); (err != nil) != (n%3 == 2) {
			t.Errorf("generation %d: %v", n, err)
		}
	}
	done.Store(true)
	wg.Wait()
}

// A ConfigMap is swapped whole, but between two of its files it may be.
func TestFilesOfTwoPoliciesAreNoPolicy(t *testing.T) {
	f := newFolder(generation(1))
	var opened atomic.Int64
	swapping := opener(func(name string) (fs.File, error) {
		if name == "requirement.rego" && opened.Add(1) == 1 { // data.yaml has been read
			next := generation(2)
			f.Store(&next)
		}
		return f.Open(name)
	})
	e, err := policy.New(context.Background(), policy.Config{FS: swapping})
	if err != nil {
		t.Fatal(err)
	}
	if got := require(t, e.Snapshot(), &policy.Input{}).Operation; got != "data2.rule2" {
		t.Errorf("operation %q, want data2.rule2", got)
	}
	if want := load(t, generation(2)).Revision(); e.Snapshot().Revision() != want {
		t.Errorf("revision %s, want %s", e.Snapshot().Revision(), want)
	}
	restless := opener(func(name string) (fs.File, error) {
		if name == "requirement.rego" {
			next := generation(int(opened.Add(1)))
			f.Store(&next)
		}
		return f.Open(name)
	})
	want := ".: changes while it is read; name a readable directory with *.rego files and data.yaml"
	if _, err := policy.New(context.Background(), policy.Config{FS: restless}); err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// Kubernetes mounts each file as a symlink through ..data, and swaps that.
func TestAConfigMapIsReadThroughItsSymlinks(t *testing.T) {
	dir := t.TempDir()
	mount := func(n int) {
		t.Helper()
		hidden := fmt.Sprintf("..2026_%d", n)
		if err := os.Mkdir(filepath.Join(dir, hidden), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, f := range generation(n) {
			if err := os.WriteFile(filepath.Join(dir, hidden, name), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && n == 1 {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(hidden, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount(1)
	e, err := policy.New(context.Background(), policy.Config{FS: os.DirFS(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Snapshot().Revision(), load(t, generation(1)).Revision(); got != want {
		t.Errorf("revision %s, want %s: something else was read", got, want)
	}
	mount(2)
	if err := e.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := require(t, e.Snapshot(), &policy.Input{}).Operation; got != "data2.rule2" {
		t.Errorf("operation %q, want data2.rule2", got)
	}
}

func TestWithoutAPolicyNothingIsAllowed(t *testing.T) {
	var none *policy.Engine
	for _, e := range []*policy.Engine{none, {}} {
		snap := e.Snapshot()
		m := policy.Match{Params: []policy.Param{{Name: "a", Value: "b"}}}
		if snap.Match("GET", "/", &m); m.Route != nil || len(m.Params) > 0 || snap.HasPath("/") {
			t.Error("a snapshot of nothing has routes")
		}
		if q, err := snap.Require(context.Background(), &policy.Input{}); q != nil || err == nil {
			t.Errorf("requirement %v, error %v", q, err)
		}
		if snap.Revision() != "" || snap.Cached() || snap.Routes() != nil || snap.InputHeaders() != nil || snap.Environment("a") != (policy.Environment{}) {
			t.Error("a snapshot of nothing says something")
		}
	}
	if err := (&policy.Engine{}).Reload(context.Background()); err == nil {
		t.Error("the zero engine reloads")
	}
	for _, c := range []policy.Config{{}, {FS: generation(1), CacheSize: -1}} {
		if _, err := policy.New(context.Background(), c); err == nil {
			t.Errorf("config %+v is accepted", c)
		}
	}
}

func TestTheRevisionIsOfTheContent(t *testing.T) {
	revision := func(fsys fstest.MapFS) string { return load(t, fsys).Revision() }
	base := revision(generation(1))
	if again := revision(generation(1)); again != base || len(base) != 16 {
		t.Errorf("revisions %q and %q of the same files", base, again)
	}
	renamed := generation(1)
	renamed["other.rego"] = renamed["requirement.rego"]
	delete(renamed, "requirement.rego")
	tested := generation(1)
	tested["a_test.rego"] = &fstest.MapFile{Data: []byte("package a_test\n")}
	noted := generation(1)
	noted["README.md"] = &fstest.MapFile{Data: []byte("notes")}
	for name, fsys := range map[string]fstest.MapFS{"other rules": generation(2), "a renamed file": renamed, "a new test": tested} {
		if revision(fsys) == base {
			t.Errorf("%s: the revision stays", name)
		}
	}
	if revision(noted) != base {
		t.Error("a file that is not read changes the revision")
	}
}

func TestEnvironments(t *testing.T) {
	snap := load(t, files(anyRule, oneRoute+"environments:\n  live: {locked: true}\n  open: {mode: enforce, locked: false}\n  default: {mode: shadow}\n"))
	for id, want := range map[string]policy.Environment{
		"live": {Shadow: true, Locked: true}, "open": {}, "default": {Shadow: true}, "unknown": {Shadow: true}, "": {Shadow: true},
	} {
		if got := snap.Environment(id); got != want {
			t.Errorf("%q: %+v, want %+v", id, got, want)
		}
	}
}
