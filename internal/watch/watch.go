// Package watch tells when the content of files changes.
//
// It polls and compares content rather than asking the kernel for events: a Kubernetes ConfigMap is swapped by renaming a
// symlink two levels up, editors write a new file and rename it, and network file systems send no events at all. Polling
// sees all of them alike.
package watch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// DefaultInterval is the time between two polls where Config names none.
const DefaultInterval = 2 * time.Second

// The bounds of what one Watcher looks at. A path that was meant to be a small directory and is "/" must not read a disk.
const (
	maxFiles = 10_000
	maxBytes = 64 << 20 // per file
)

// trustPolls is how often stamps are not believed: every this many polls.
const trustPolls = 30

// Config says what to watch and whom to tell.
type Config struct {
	// Paths are files or directory trees. Symlinks are followed, except that a directory reached by a symlink within a tree
	// is not walked (in a ConfigMap, "..data" and the directory behind it would otherwise be read twice). Required. A path
	// may be missing: that is reported, and it is watched until it comes.
	Paths []string
	// Interval between polls; zero means DefaultInterval.
	Interval time.Duration
	// OnChange is called in Run's (or Check's) goroutine, once for all files that changed in one poll; the next poll waits
	// for it. Its ctx ends with Run. Required.
	OnChange func(ctx context.Context)
	// OnError is told what could not be read, once when it begins and not at every poll. Nil ignores it.
	OnError func(err error)
	// Now is the clock against which the age of files is judged; nil means time.Now.
	Now func() time.Time
}

// Watcher remembers what it saw last. It belongs to one goroutine.
type Watcher struct {
	cfg   Config
	trees []*tree
	polls int
}

// tree is what is known of one configured path.
type tree struct {
	path    string
	files   map[string]file // last content that could be read, by name
	failing bool            // a failure was told
}

// file is what is known of one file.
type file struct {
	stamp   stamp
	sum     [sha256.Size]byte
	missing bool // at the last poll
}

// stamp is the cheap sign that a file may have changed. Its inode part catches renames within one clock tick.
type stamp struct {
	info    fs.FileInfo
	settled bool // the file was older than a clock tick when it was read: an equal stamp proves equal content
}

// New remembers what the paths hold now, so that the first change is one after New. Load what you watch after New: a change
// between the two is then seen.
func New(cfg Config) (*Watcher, error) {
	if len(cfg.Paths) == 0 {
		return nil, errors.New("watch: no paths")
	}
	if cfg.OnChange == nil {
		return nil, errors.New("watch: no OnChange")
	}
	if cfg.Interval < 0 {
		return nil, fmt.Errorf("watch: interval %v is negative", cfg.Interval)
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.OnError == nil {
		cfg.OnError = func(error) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Watcher{cfg: cfg}
	for _, path := range cfg.Paths {
		w.trees = append(w.trees, &tree{path: path, files: map[string]file{}})
	}
	w.scan()
	return w, nil
}

// Run polls until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	ticker := time.NewTicker(w.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.Check(ctx)
		}
	}
}

// Check polls once, calls OnChange if some content changed, and reports whether it did. A new file is a change. So is one
// that has left a tree, once two polls in a row miss it: between an editor's two renames a policy must not be loaded without
// one of its files. A configured path that is missing, or a file that cannot be read, is an error, and no change until it can
// be read with other content. Check must not be called while Run runs.
func (w *Watcher) Check(ctx context.Context) bool {
	if !w.scan() {
		return false
	}
	w.cfg.OnChange(ctx)
	return true
}

// scan reads every path and reports whether some content differs from what is known.
func (w *Watcher) scan() bool {
	// A stamp can lie (cp -p over a file of the same size), so now and then nothing but content counts.
	trust := w.polls%trustPolls != 0
	w.polls++
	changed := false
	for _, t := range w.trees {
		changed = w.scanTree(t, trust) || changed
	}
	return changed
}

func (w *Watcher) scanTree(t *tree, trust bool) bool {
	changed := false
	seen := map[string]bool{}
	err := walk(t.path, func(name string) error {
		seen[name] = true
		differs, err := w.look(t, name, trust)
		changed = changed || differs
		return err
	})
	if err == nil { // everything was listed, so what was not seen is gone
		changed = t.forget(seen) || changed
	}
	if err != nil && !t.failing {
		w.cfg.OnError(err)
	}
	t.failing = err != nil
	return changed
}

// walk calls visit for path if it is a file, else for every file below it. It goes on after an error and returns all.
func walk(path string, visit func(name string) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if info.Mode().IsRegular() {
		return visit(path)
	}
	if !info.IsDir() { // opening a pipe would block
		return fmt.Errorf("watch: %s is neither a file nor a directory", path)
	}
	root, err := filepath.EvalSymlinks(path) // WalkDir does not follow a symlink at its root
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	var errs []error
	files := 0
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("watch: %w", err))
			return nil
		case entry.IsDir():
			return enter(name, root)
		case !isFile(name, entry):
			return nil
		}
		if files++; files > maxFiles {
			return fmt.Errorf("watch: %s holds more than %d files", path, maxFiles)
		}
		if rel, relErr := filepath.Rel(root, name); relErr == nil {
			name = filepath.Join(path, rel) // a swapped root must not look like all new files
		}
		if err := visit(name); err != nil {
			errs = append(errs, err)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// enter skips the directories that kubelet keeps beside "..data": what is in them is reached through the symlinks.
func enter(name, root string) error {
	base := filepath.Base(name)
	if name != root && len(base) > 2 && base[:2] == ".." {
		return filepath.SkipDir
	}
	return nil
}

// isFile reports whether the entry is a file, or a symlink to one or to nothing; the latter is an error when looked at.
func isFile(name string, entry fs.DirEntry) bool {
	if entry.Type().IsRegular() {
		return true
	}
	if entry.Type()&fs.ModeSymlink == 0 {
		return false // sockets, pipes and devices have no content to compare
	}
	info, err := os.Stat(name)
	return err != nil || info.Mode().IsRegular()
}

// look reads one file, unless trust is set and its stamp proves it unchanged, and reports whether its content changed.
func (w *Watcher) look(t *tree, name string, trust bool) (bool, error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, fmt.Errorf("watch: %w", err)
	}
	old, known := t.files[name]
	if known && trust && old.stamp.covers(info) {
		old.missing = false
		t.files[name] = old
		return false, nil
	}
	sum, info, err := digest(name)
	if err != nil {
		return false, err
	}
	// Coarse file clocks tick every 1-10 ms, some file systems every 2 s: a younger file may change again within its tick.
	settled := w.cfg.Now().Sub(info.ModTime()) > 3*time.Second
	t.files[name] = file{stamp: stamp{info: info, settled: settled}, sum: sum}
	return !known || sum != old.sum, nil
}

// forget drops files that two polls in a row did not see, and reports whether there were any.
func (t *tree) forget(seen map[string]bool) bool {
	gone := false
	for name, f := range t.files {
		switch {
		case seen[name]:
		case f.missing:
			delete(t.files, name)
			gone = true
		default:
			f.missing = true
			t.files[name] = f
		}
	}
	return gone
}

// covers reports whether info proves that the content is still the one that was read.
func (s stamp) covers(info fs.FileInfo) bool {
	return s.settled && os.SameFile(s.info, info) && s.info.Size() == info.Size() && s.info.ModTime().Equal(info.ModTime())
}

// digest returns the SHA-256 of the file's content and the file's state from before the content was read.
func digest(name string) (sum [sha256.Size]byte, info fs.FileInfo, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, nil, fmt.Errorf("watch: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return sum, nil, fmt.Errorf("watch: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxBytes+1))
	if err != nil {
		return sum, nil, fmt.Errorf("watch: read %s: %w", name, err)
	}
	if n > maxBytes {
		return sum, nil, fmt.Errorf("watch: %s is larger than %d bytes", name, maxBytes)
	}
	return [sha256.Size]byte(h.Sum(nil)), info, nil
}
