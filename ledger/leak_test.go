package ledger_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stepward/stepward/ledger"
)

// TestCloseLeavesNothingBehind looks for goroutines of ours by name, since other tests' may come and go.
func TestCloseLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{"memory:", "bolt:" + filepath.Join(dir, "ledger.db")} {
		s := open(t, address, ledger.Options{Capacity: 10})
		if n := goroutines(); n != 1 {
			t.Errorf("%s: got %d goroutines while open, want 1", address, n)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: close: %v", address, err)
		}
		if n := goroutines(); n != 0 {
			t.Errorf("%s: got %d goroutines after close, want none", address, n)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("got %v, %v, want the ledger file alone", files, err)
	}
}

func goroutines() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "created by github.com/stepward/stepward/ledger.New")
}
