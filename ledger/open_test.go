package ledger_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stepward/stepward/ledger"
)

func TestAddresses(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, row := range []struct{ address, want string }{
		// want is the file that is made, nothing for memory, or an error that begins with an asterisk.
		{"memory:", ""},
		{"memory://", ""},
		{"bolt://" + dir + "/one.db", "one.db"},
		{"bolt:" + dir + "/two.db", "two.db"},
		{"bolt:three.db", "three.db"},
		{"bolt:./four.db", "four.db"},
		{"", "*is not a ledger's: write memory: or, with a path, bolt:///var/lib/stepward/ledger.db"},
		{"memory", "*is not a ledger's"},
		{"/var/lib/ledger.db", "*is not a ledger's"},
		{"redis://user:secret@host", "*is not a ledger's"},
		{"memory:x", "*write memory: alone"},
		{"memory:?capacity=5", "*write memory: alone"},
		{"bolt:", "*names no file"},
		{"bolt://", "*names a host"},
		{"bolt:///", "*names no file"},
		{"bolt:..", "*names no file"},
		{"bolt:dir/", "*names no file"},
		{"bolt://host/l.db", "*write three slashes"},
		{"bolt:l.db?sync=off", "*write a plain path"},
		{"bolt:l%2edb", "*write a plain path"},
		{"bolt:l.db#x", "*write a plain path"},
	} {
		t.Run(row.address, func(t *testing.T) {
			s, err := ledger.Open(t.Context(), row.address, ledger.Options{Capacity: 1})
			if err == nil {
				defer s.Close()
			}
			if fault, ok := strings.CutPrefix(row.want, "*"); ok {
				if err == nil || !strings.Contains(err.Error(), fault) || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want an error with %q", err, fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, row.want)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestACapacityOutOfRangeIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{"memory:", "bolt:" + filepath.Join(dir, "l.db")} {
		for _, capacity := range []int{0, -1, math.MaxInt32 + 1} {
			s, err := ledger.Open(t.Context(), address, ledger.Options{Capacity: capacity})
			if err == nil || s != nil || !strings.Contains(err.Error(), "from 1 to 2147483647") {
				t.Errorf("%s with capacity %d: got %v, %v, want an error that says what is possible", address, capacity, s, err)
			}
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("got %v, %v, want no file", files, err)
	}
}

// FuzzOpen finds addresses that make files elsewhere than they say, and ones that neither open nor explain themselves.
func FuzzOpen(f *testing.F) {
	for _, seed := range []string{"memory:", "bolt:l.db", "bolt:///l.db", "bolt://host/l.db", "bolt:..", "redis://h", "bolt:a\x00b", ":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if strings.HasPrefix(address, "bolt:/") || strings.Contains(address, "..") {
			t.Skip("would write outside the test's directory")
		}
		t.Chdir(t.TempDir())
		s, err := ledger.Open(context.Background(), address, ledger.Options{Capacity: 1})
		if (s == nil) == (err == nil) {
			t.Fatalf("got %v, %v, want a store or an error", s, err)
		}
		made, _ := filepath.Glob("*")
		if err != nil {
			if len(made) > 0 || !strings.HasPrefix(err.Error(), "ledger: ") {
				t.Fatalf("got %v and %q, want an error of ledger's and no file", err, made)
			}
			return
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
