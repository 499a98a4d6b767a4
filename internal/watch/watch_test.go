package watch_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/watch"
)

// watched is a Watcher that counts.
type watched struct {
	*watch.Watcher
	t       *testing.T
	changes int
	errs    []error
	now     time.Time
}

func start(t *testing.T, paths ...string) *watched {
	t.Helper()
	w := &watched{t: t, now: time.Now()}
	var err error
	w.Watcher, err = watch.New(watch.Config{
		Paths:    paths,
		OnChange: func(context.Context) { w.changes++ },
		OnError:  func(err error) { w.errs = append(w.errs, err) },
		Now:      func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// expect polls once.
func (w *watched) expect(changed bool, when string) {
	w.t.Helper()
	before := w.changes
	if got := w.Check(w.t.Context()); got != changed {
		w.t.Fatalf("%s: Check() = %v, want %v (errors %v)", when, got, changed, w.errs)
	}
	if told := w.changes - before; told != map[bool]int{true: 1}[changed] {
		w.t.Fatalf("%s: OnChange was called %d times", when, told)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "jwks.json")
	write(t, name, "one")
	w := start(t, name)
	w.expect(false, "nothing happened")
	write(t, name, "two")
	w.expect(true, "same size, same second")
	w.expect(false, "told already")
	write(t, name, "two")
	w.expect(false, "written again with the same content")
	must(t, os.Chtimes(name, time.Time{}, time.Now().Add(time.Hour)))
	w.expect(false, "touched")
}

func TestAnEditorThatRenames(t *testing.T) {
	name := filepath.Join(t.TempDir(), "data.yaml")
	write(t, name, "one")
	w := start(t, name)
	write(t, name+".tmp", "two")
	must(t, os.Rename(name+".tmp", name))
	w.expect(true, "renamed over")
}

func TestAMissingFileIsNoChange(t *testing.T) {
	name := filepath.Join(t.TempDir(), "jwks.json")
	write(t, name, "one")
	w := start(t, name)
	must(t, os.Remove(name))
	for range 3 {
		w.expect(false, "gone")
	}
	if len(w.errs) != 1 || !strings.Contains(w.errs[0].Error(), name) {
		t.Errorf("told %v, want one error that names the file", w.errs)
	}
	write(t, name, "one")
	w.expect(false, "back as it was")
	must(t, os.Remove(name))
	w.expect(false, "gone again")
	if len(w.errs) != 2 {
		t.Errorf("told %v, want the second disappearance told too", w.errs)
	}
	write(t, name, "two")
	w.expect(true, "back with other content")
}

func TestAFileThatComesLater(t *testing.T) {
	name := filepath.Join(t.TempDir(), "late")
	w := start(t, name)
	if len(w.errs) != 1 {
		t.Errorf("told %v, want that it is missing", w.errs)
	}
	write(t, name, "x")
	w.expect(true, "came")
}

func TestATree(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.rego"), "a")
	write(t, filepath.Join(dir, "sub", "b.rego"), "b")
	w := start(t, dir)
	w.expect(false, "nothing happened")
	write(t, filepath.Join(dir, "sub", "deep", "c.rego"), "c")
	w.expect(true, "a new file in a new directory")
	write(t, filepath.Join(dir, "sub", "b.rego"), "B")
	w.expect(true, "a file below changed")
	must(t, os.Remove(filepath.Join(dir, "a.rego")))
	w.expect(false, "one poll without a file may be an editor's rename")
	w.expect(true, "two polls without it are a removal")
	w.expect(false, "told already")
}

func TestARenameBetweenTwoPollsLosesNoFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "deny.rego")
	write(t, name, "deny")
	w := start(t, dir)
	must(t, os.Rename(name, filepath.Join(t.TempDir(), "backup")))
	w.expect(false, "moved away")
	write(t, name, "deny")
	w.expect(false, "back as it was")
	must(t, os.Remove(name))
	w.expect(false, "the count of missing polls began anew")
}

func TestABrokenPathDoesNotHideTheOthers(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "a")
	write(t, filepath.Join(dir, "b"), "b")
	w := start(t, filepath.Join(dir, "nowhere"), dir)
	must(t, os.Remove(filepath.Join(dir, "a")))
	w.expect(false, "one poll")
	w.expect(true, "a removal beside a missing path")
}

// TestAConfigMapSwap lays out a volume as kubelet does: files are symlinks into ..data, which is a symlink to a directory
// with a date in its name; an update renames a new ..data over the old one and removes the old directory.
func TestAConfigMapSwap(t *testing.T) {
	volume := t.TempDir()
	write(t, filepath.Join(volume, "..2026_11_24_10_00_00.1", "data.yaml"), "one")
	must(t, os.Symlink("..2026_11_24_10_00_00.1", filepath.Join(volume, "..data")))
	must(t, os.Symlink(filepath.Join("..data", "data.yaml"), filepath.Join(volume, "data.yaml")))

	watchers := map[string]*watched{"volume": start(t, volume), "file": start(t, filepath.Join(volume, "data.yaml"))}
	for name, w := range watchers {
		w.expect(false, name+": nothing happened")
	}

	write(t, filepath.Join(volume, "..2026_11_24_10_01_00.2", "data.yaml"), "two")
	must(t, os.Symlink("..2026_11_24_10_01_00.2", filepath.Join(volume, "..data_tmp")))
	must(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	must(t, os.RemoveAll(filepath.Join(volume, "..2026_11_24_10_00_00.1")))

	for name, w := range watchers {
		w.expect(true, name+": swapped")
		w.expect(false, name+": told already")
		if len(w.errs) != 0 {
			t.Errorf("%s: told %v, want no error", name, w.errs)
		}
	}
}

func TestASwapToTheSameContentIsNoChange(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "1", "f"), "same")
	write(t, filepath.Join(root, "2", "f"), "same")
	current := filepath.Join(root, "current")
	must(t, os.Symlink("1", current))
	w := start(t, current)
	must(t, os.Symlink("2", current+".tmp"))
	must(t, os.Rename(current+".tmp", current))
	w.expect(false, "release 2 is release 1")
}

// TestAStampThatLies: a copy that keeps size and time is found later, not never.
func TestAStampThatLies(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	old := time.Now().Add(-time.Hour)
	write(t, name, "one")
	must(t, os.Chtimes(name, old, old))
	w := start(t, name)
	write(t, name, "two")
	must(t, os.Chtimes(name, old, old))
	w.expect(false, "size, inode and time are equal: the cheap check believes them")
	for range 40 {
		if w.Check(t.Context()) {
			return
		}
	}
	t.Error("the change was never found")
}

func TestAPipeDoesNotBlock(t *testing.T) {
	w := start(t, os.DevNull)
	if len(w.errs) != 1 {
		t.Errorf("told %v, want that it is no file", w.errs)
	}
}

func TestRunPollsUntilItsContextEnds(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	write(t, name, "one")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := make(chan struct{}, 1)
	w, err := watch.New(watch.Config{Paths: []string{name}, Interval: time.Millisecond, OnChange: func(context.Context) {
		changed <- struct{}{}
	}})
	must(t, err)
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	write(t, name, "two")
	<-changed
	cancel()
	<-done
}

func TestNewRefuses(t *testing.T) {
	nop := func(context.Context) {}
	for name, cfg := range map[string]watch.Config{
		"no paths":            {OnChange: nop},
		"no listener":         {Paths: []string{"/"}},
		"a negative interval": {Paths: []string{"/"}, OnChange: nop, Interval: -1},
	} {
		if _, err := watch.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
