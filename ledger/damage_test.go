package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/stepward/stepward/ledger"
)

const damagedKeys = 2000

// wholeFile is a ledger of damagedKeys reserved keys, some of them swept or released before.
func wholeFile(t *testing.T) (*boltBench, []byte) {
	t.Helper()
	bb, b := newBoltBench(t)
	race(64, func(racer int) {
		for n := racer; n < damagedKeys; n += 64 {
			c := bb.claim(n)
			bb.reserve(b, "it", c, nil)
			if n%3 == 0 {
				b.Release(context.Background(), c.Key, c.Owner)
				bb.reserve(b, "it again", c, nil)
			}
		}
	})
	bb.close(b)
	data, err := os.ReadFile(bb.path)
	if err != nil {
		t.Fatal(err)
	}
	return bb, data
}

func TestADamagedFileIsRefused(t *testing.T) {
	bb, whole := wholeFile(t)
	page := os.Getpagesize()
	flip := func(at int) []byte {
		data := bytes.Clone(whole)
		data[at] ^= 0x10
		return data
	}
	for _, row := range []struct {
		name string
		data []byte
		want string
	}{
		{"a few bytes", whole[:10], "is damaged: its meta page at byte 0 is missing"},
		{"its first page", whole[:page], fmt.Sprintf("is damaged: its meta page at byte %d is missing", page)},
		{"its meta pages", whole[:2*page], fmt.Sprintf("is damaged: it has %d bytes and should have at least", 2*page)},
		{"half of it", whole[:len(whole)/4], "bytes and should have at least"},
		{"text", []byte(strings.Repeat("listen: 127.0.0.1:8080\n", 1000)), "does not begin like a ledger, or it is another kind of file"},
		{"zeros", make([]byte, 64<<10), "does not begin like a ledger"},
		{"a bad first meta page", flip(16 + 50), "its meta page at byte 0 does not match its checksum"},
		{"a bad second meta page", flip(page + 16 + 50), fmt.Sprintf("its meta page at byte %d does not match its checksum", page)},
		{"no second meta page", slices.Concat(whole[:page], make([]byte, page), whole[2*page:]), "is overwritten"},
		{"one meta page twice", slices.Concat(whole[:page], whole[:page], whole[2*page:]), "are not of one history"},
		{"a bad record", flip(bytes.Index(whole, bytesOf(numbered(7)))), "does not match its checksum"},
		{"a bad description", flip(bytes.LastIndex(whole, []byte("about")) + 20), "is damaged"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := os.WriteFile(bb.path, row.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: bb.path, Capacity: damagedKeys, Now: bb.clock.Now})
			got := fmt.Sprint(err)
			if !strings.HasPrefix(got, "ledger: "+bb.path+": ") || !strings.Contains(got, row.want) ||
				!strings.Contains(got, "move it away") {
				t.Errorf("got %q, want %q and what to do", got, row.want)
			}
			if after, err := os.ReadFile(bb.path); err != nil || !bytes.Equal(after, row.data) {
				t.Errorf("the file was changed, or %v", err)
			}
			// What the message says to do helps at once: the refused file is neither locked nor open any more.
			if err := os.Rename(bb.path, bb.path+".damaged"); err != nil {
				t.Fatal(err)
			}
			bb.close(bb.open())
		})
	}
}

func bytesOf(k ledger.Key) []byte { return k[:] }

// TestNoFlippedBitForgetsAKey flips one bit anywhere: the file is refused, or every key is still spent.
func TestNoFlippedBitForgetsAKey(t *testing.T) {
	bb, whole := wholeFile(t)
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	refused := 0
	for range rounds {
		at, bit := rand.IntN(len(whole)), rand.IntN(8)
		data := bytes.Clone(whole)
		data[at] ^= 1 << bit
		if err := os.WriteFile(bb.path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: bb.path, Capacity: damagedKeys, Now: bb.clock.Now})
		if err != nil {
			refused++
			continue
		}
		for n := range damagedKeys {
			if err := b.Reserve(t.Context(), bb.claim(n)); !errors.Is(err, ledger.ErrReserved) {
				t.Errorf("byte %d, bit %d: reserve of spent key %d: got %v", at, bit, n, err)
				break
			}
		}
		if err := b.Close(); err != nil {
			t.Errorf("byte %d, bit %d: close: %v", at, bit, err)
		}
	}
	t.Logf("%d of %d damaged files were refused", refused, rounds)
}

func TestAnotherProgramsFileIsRefusedUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	for _, row := range []struct {
		name string
		fill func(*bbolt.Tx) error
		want string
	}{
		{"another bucket", func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("users")); return err }, "not a ledger"},
		{"a later schema", func(tx *bbolt.Tx) error {
			_, err1 := tx.CreateBucket([]byte("spent"))
			b, err2 := tx.CreateBucket([]byte("stepward"))
			return errors.Join(err1, err2, tx.DeleteBucket([]byte("users")), b.Put([]byte("about"), []byte{0, 0, 0, 2, 'x'}))
		}, "has schema 2, and this version of stepward reads schema 1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(row.fill), db.Close()); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			_, err = ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: path, Capacity: 1})
			if got := fmt.Sprint(err); !strings.Contains(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}
