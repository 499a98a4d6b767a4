//go:build unix

package ledger_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// limitFiles makes writing beyond the given size fail as on a full disk, for the rest of this process.
func limitFiles(bytes string) error {
	if bytes == "" {
		return nil
	}
	var limit syscall.Rlimit
	if _, err := fmt.Sscan(bytes, &limit.Max); err != nil { // Its type is not the same everywhere.
		return err
	}
	limit.Cur = limit.Max
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}

// runUntilFull spends keys in another process until the disk is full. It returns what was granted and the last words.
func runUntilFull(t *testing.T, path string, bytes int) (granted map[int64]bool, last string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childPath+"="+path, childFrom+"=0", childLimit+"="+fmt.Sprint(bytes))
	var words strings.Builder
	child.Stderr = &words
	out, err := child.Output()
	if err == nil {
		t.Fatal("the disk never was full")
	}
	granted = map[int64]bool{}
	for line := range strings.Lines(string(out)) {
		if n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil {
			granted[n] = true
		}
	}
	return granted, words.String()
}

func TestAFullDiskForgetsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	granted, last := runUntilFull(t, path, 300_000)
	if !strings.Contains(last, "too large") || len(granted) == 0 {
		t.Errorf("got %d keys and %q, want some, and the cause", len(granted), last)
	}
	spentAll(t, path, granted)
}

func TestAFileThatCannotBeMadeIsNotLeftBehind(t *testing.T) {
	dir := t.TempDir()
	_, last := runUntilFull(t, filepath.Join(dir, "ledger.db"), 6000)
	if !strings.Contains(last, "ledger.db: open: ") || !strings.Contains(last, "too large") {
		t.Errorf("got %q, want the operation and the cause", last)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("got %v, %v, want no file", files, err)
	}
}
