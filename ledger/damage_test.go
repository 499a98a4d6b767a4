package ledger_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/stepward/stepward/ledger"
)

// wholeFile is a ledger of so many reserved keys, some of them released before.
func wholeFile(t testing.TB, keys int) (*boltBench, []byte) {
	t.Helper()
	bb, b := newBoltBench(t)
	race(64, func(racer int) {
		for n := racer; n < keys; n += 64 {
			c := bb.claim(n)
			bb.reserve(b, "it", c, nil)
			if n%3 == 0 {
				b.Release(context.Background(), c.Key, c.Owner)
				bb.reserve(b, "it again", c, nil)
			}
		}
	})
	bb.close(b)
	return bb, bb.read()
}

func (bb *boltBench) read() []byte {
	bb.Helper()
	data, err := os.ReadFile(bb.path)
	if err != nil {
		bb.Fatal(err)
	}
	return data
}

func (bb *boltBench) write(data []byte) {
	bb.Helper()
	if err := os.WriteFile(bb.path, data, 0o600); err != nil {
		bb.Fatal(err)
	}
}

// refuses checks that the file with this data is refused for the reason wanted, with a remedy, and stays as it is.
func (bb *boltBench) refuses(data []byte, want, remedy string) {
	bb.Helper()
	bb.write(data)
	_, err := ledger.NewBolt(bb.Context(), ledger.BoltConfig{Path: bb.path, Capacity: 10, Now: bb.clock.Now})
	got := fmt.Sprint(err)
	if !strings.HasPrefix(got, "ledger: "+bb.path+": ") || !strings.Contains(got, want) || !strings.Contains(got, remedy) {
		bb.Errorf("got %q, want %q and %q", got, want, remedy)
	}
	if !bytes.Equal(bb.read(), data) {
		bb.Error("the file was changed")
	}
}

func TestADamagedFileIsRefused(t *testing.T) {
	bb, whole := wholeFile(t, 2000)
	page := os.Getpagesize()
	// bbolt writes pages anew and leaves the old ones as they were, so only the copy in use counts.
	branches, leaves := ledger.LivePages(whole)
	if len(branches) != 1 || len(leaves) < 10 {
		t.Fatalf("got %d branches and %d leaves, want one and many", len(branches), len(leaves))
	}
	branch, leaf, native := branches[0], leaves[len(leaves)/2], binary.NativeEndian
	child := func(i int) int { return branch + 16 + 16*i + 8 }
	flip := func(at int) func([]byte) { return func(data []byte) { data[at] ^= 0x10 } }
	inUse := func(needle []byte) int {
		for _, at := range leaves {
			if i := bytes.Index(whole[at:at+page], needle); i >= 0 {
				return at + i
			}
		}
		t.Fatalf("%q is in no page", needle)
		return 0
	}
	cut := func(to int) func([]byte) { return func(data []byte) { clear(data[to:]) } }
	for _, row := range []struct {
		name   string
		keep   int // so many bytes of the file, all where it is 0
		damage func(data []byte)
		want   string
	}{
		{"a few bytes", 10, nil, "is damaged: its meta page at byte 0 is missing"},
		{"its first page", page, nil, fmt.Sprintf("is damaged: its meta page at byte %d is missing", page)},
		{"its meta pages", 2 * page, nil, fmt.Sprintf("is damaged: it has %d bytes and should have at least", 2*page)},
		{"a quarter of it", len(whole) / 4, nil, "bytes and should have at least"},
		{"text", 0, func(data []byte) { copy(data, strings.Repeat("listen: 127.0.0.1:8080\n", 1000)) }, "it is another kind of file"},
		{"zeros", 0, cut(0), "does not begin like a ledger"},
		{"zeros after its meta pages", 0, cut(2 * page), "is marked as page 0 of kind 0x0"},
		{"a bad first meta page", 0, flip(16 + 50), "its meta page at byte 0 does not match its checksum"},
		{"a bad second meta page", 0, flip(page + 16 + 50), fmt.Sprintf("its meta page at byte %d does not match its checksum", page)},
		{"no second meta page", 0, func(data []byte) { clear(data[page : 2*page]) }, "is overwritten"},
		{"one meta page twice", 0, func(data []byte) { copy(data[page:], data[:page]) }, "are not of one history"},
		{"a bad record", 0, flip(inUse(bytesOf(numbered(7)))), "does not match its checksum"},
		{"a bad description", 0, flip(inUse([]byte("about")) + 20), "its description does not match its checksum"},
		{"a branch to itself", 0, func(data []byte) { native.PutUint64(data[child(3):], uint64(branch/page)) }, "is used twice"},
		{"two branches to one leaf", 0, func(data []byte) { copy(data[child(3):], data[child(2):child(2)+8]) }, "is used twice"},
		{"a branch to a meta page", 0, func(data []byte) { native.PutUint64(data[child(3):], 0) }, "page 0 is not one of its"},
		{"a branch out of the file", 0, func(data []byte) { native.PutUint64(data[child(3):], 1<<40) }, "is not one of its"},
		{"two leaves exchanged", 0, func(data []byte) {
			a, b := native.Uint64(data[child(2):]), native.Uint64(data[child(3):])
			native.PutUint64(data[child(2):], b)
			native.PutUint64(data[child(3):], a)
		}, "is out of order"},
		{"a leaf of another kind", 0, func(data []byte) { data[leaf+8] = 4 }, "of kind 0x4"},
		{"a leaf of two kinds", 0, func(data []byte) { data[leaf+8] = 3 }, "of kind 0x3"},
		{"a leaf with another's number", 0, func(data []byte) { data[leaf]++ }, "is marked as page"},
		{"a leaf that goes on and on", 0, func(data []byte) { data[leaf+15] = 0x80 }, "continues for"},
		{"a leaf with more than it holds", 0, func(data []byte) { native.PutUint16(data[leaf+10:], 60_000) }, "is damaged"},
		{"a leaf with less than it holds", 0, func(data []byte) { data[leaf+10]-- }, "records and should hold"},
		{"a leaf that is empty", 0, func(data []byte) { native.PutUint16(data[leaf+10:], 0) }, "records and should hold"},
		{"a record that lies elsewhere", 0, func(data []byte) { native.PutUint32(data[leaf+16+4:], 1<<31) }, "is not in its page"},
		{"a record that is a bucket", 0, func(data []byte) { data[leaf+16] = 1 }, "does not match its checksum"},
		{"a record of unknown kind", 0, func(data []byte) { data[leaf+16] = 8 }, "has the flags 0x8"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bb := &boltBench{t, bb.path, bb.clock}
			data := bytes.Clone(whole)
			if row.keep > 0 {
				data = data[:row.keep]
			}
			if row.damage != nil {
				row.damage(data)
			}
			bb.refuses(data, row.want, "move it away: stepward then makes a new one")
			// What the message says to do helps at once: the refused file is neither locked nor open any more.
			if err := os.Rename(bb.path, bb.path+".damaged"); err != nil {
				t.Fatal(err)
			}
			bb.close(bb.open())
		})
	}
}

func bytesOf(k ledger.Key) []byte { return k[:] }

// TestAFileThatBboltsToolsRewroteIsRead: bbolt compact, say, leaves a list of free pages behind, which Stepward does not.
func TestAFileThatBboltsToolsRewroteIsRead(t *testing.T) {
	bb, whole := wholeFile(t, 500)
	want, err := ledger.ReadFile(whole, bb.clock.Now())
	if err != nil || len(want) != 500 {
		t.Fatalf("got %d keys, %v, want 500", len(want), err)
	}
	db, err := bbolt.Open(bb.path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(*bbolt.Tx) error { return nil }), db.Close()); err != nil {
		t.Fatal(err)
	}
	rewritten := bb.read()
	list := ledger.FreeListPage(rewritten)
	if got, err := ledger.ReadFile(rewritten, bb.clock.Now()); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %d keys, %v, want the same as before", len(got), err)
	}
	for _, row := range []struct {
		name   string
		damage func(list []byte)
		want   string
	}{
		{"2^60 free pages", func(list []byte) {
			binary.NativeEndian.PutUint16(list[10:], 0xFFFF)
			binary.NativeEndian.PutUint64(list[16:], 1<<60)
		}, "it lists 1152921504606846976 free pages"},
		{"a page that is in use", func(list []byte) { binary.NativeEndian.PutUint64(list[16:], uint64(livePage(rewritten))) }, "is listed as free"},
		{"a meta page", func(list []byte) { binary.NativeEndian.PutUint64(list[16:], 1) }, "page 1 is listed as free"},
		{"another kind of page", func(list []byte) { list[8] = 2 }, "of kind 0x2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bb := &boltBench{t, bb.path, bb.clock}
			data := bytes.Clone(rewritten)
			row.damage(data[list:])
			bb.refuses(data, row.want, "move it away")
		})
	}

	bb.write(rewritten)
	b := bb.open()
	bb.reserve(b, "what is held", bb.claim(1), ledger.ErrReserved)
	bb.reserve(b, "another", bb.claim(1000), nil)
	b = bb.reopen(b)
	bb.entries(b, 501)
}

func livePage(data []byte) int {
	_, leaves := ledger.LivePages(data)
	return leaves[0] / os.Getpagesize()
}

// TestNoFlippedBitForgetsAKey flips bits in the pages that are in use: the file is refused, or says what it said before.
func TestNoFlippedBitForgetsAKey(t *testing.T) {
	bb, whole := wholeFile(t, 300)
	want, err := ledger.ReadFile(whole, bb.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	rounds := 5000
	if testing.Short() {
		rounds = 500
	}
	branches, leaves := ledger.LivePages(whole)
	live := append(append([]int{0, os.Getpagesize()}, branches...), leaves...)
	refused := 0
	for range rounds {
		at, bit := live[rand.IntN(len(live))]+rand.IntN(os.Getpagesize()), rand.IntN(8)
		whole[at] ^= 1 << bit
		switch got, err := ledger.ReadFile(whole, bb.clock.Now()); {
		case err != nil:
			refused++
		case !maps.Equal(got, want):
			t.Errorf("byte %d, bit %d: got other keys than before, want them or a refusal", at, bit)
		}
		whole[at] ^= 1 << bit
	}
	t.Logf("%d of %d damaged files were refused", refused, rounds)
}

// TestAFileThatIsNotRefusedCanBeUsed flips bits anywhere and uses what passes: bbolt must not stumble over it later.
func TestAFileThatIsNotRefusedCanBeUsed(t *testing.T) {
	bb, whole := wholeFile(t, 300)
	for range 40 {
		at, bit := rand.IntN(len(whole)), rand.IntN(8)
		data := bytes.Clone(whole)
		data[at] ^= 1 << bit
		bb.write(data)
		b, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: bb.path, Capacity: 1000, Now: bb.clock.Now})
		if err != nil {
			continue
		}
		bb.reserve(b, "another", bb.claim(1000), nil)
		b = bb.reopen(b)
		bb.entries(b, 301)
		bb.close(b)
		if t.Failed() {
			t.Fatalf("byte %d, bit %d", at, bit)
		}
	}
}

func TestAnotherProgramsFileIsRefusedUnchanged(t *testing.T) {
	bucket := func(tx *bbolt.Tx, name string) *bbolt.Bucket {
		b, err := tx.CreateBucket([]byte(name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, row := range []struct {
		name   string
		fill   func(*bbolt.Tx) error
		want   string
		remedy string
	}{
		{"another bucket", func(tx *bbolt.Tx) error { bucket(tx, "users"); return nil }, "not a ledger", "name another file"},
		{"many buckets", func(tx *bbolt.Tx) error {
			for n := range 1000 {
				if err := bucket(tx, fmt.Sprint(n)).Put([]byte("k"), make([]byte, 3000)); err != nil {
					return err
				}
			}
			return nil
		}, "not a ledger", "name another file"},
		{"a bucket more", func(tx *bbolt.Tx) error { bucket(tx, "spent"); bucket(tx, "stepward"); bucket(tx, "users"); return nil },
			"not a ledger", "name another file"},
		{"no description", func(tx *bbolt.Tx) error { bucket(tx, "spent"); bucket(tx, "stepward"); return nil },
			"its description is missing", "move it away"},
		{"a later schema", func(tx *bbolt.Tx) error {
			bucket(tx, "spent")
			return bucket(tx, "stepward").Put([]byte("about"), []byte{0, 0, 0, 2, 'x'})
		}, "has schema 2, and this version of stepward reads schema 1", "run the version that wrote it"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bb, b := newBoltBench(t)
			bb.close(b)
			bb.path = filepath.Join(t.TempDir(), "other.db")
			db, err := bbolt.Open(bb.path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(row.fill), db.Close()); err != nil {
				t.Fatal(err)
			}
			bb.refuses(bb.read(), row.want, row.remedy)
		})
	}
}

// TestABboltFileThatHoldsNothingIsTaken: a crash between bbolt's first write and ours leaves one.
func TestABboltFileThatHoldsNothingIsTaken(t *testing.T) {
	bb, b := newBoltBench(t)
	bb.close(b)
	bb.path = filepath.Join(t.TempDir(), "ledger.db")
	db, err := bbolt.Open(bb.path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b = bb.open()
	c := bb.claim(1)
	bb.reserve(b, "a token from before the ledger was begun", c, ledger.ErrFenced)
	c.IssuedAt = c.IssuedAt.Add(10 * 1e9)
	bb.reserve(b, "a token from after it", c, nil)
}
