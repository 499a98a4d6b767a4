package ledger_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stepward/stepward/ledger"
)

// TestCloseLeavesNothingBehind relies on its bubble, which fails the test if a goroutine is left.
func TestCloseLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{"memory:", "bolt:" + filepath.Join(dir, "ledger.db")} {
		t.Run(address[:4], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, address, ledger.Options{Capacity: 10})
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		})
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("got %v, %v, want the ledger file alone", files, err)
	}
}
