package ledger_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// FuzzRecord finds records that are read and then written otherwise.
func FuzzRecord(f *testing.F) {
	for _, committed := range []bool{false, true} {
		name, value := ledger.EncodeRecord(numbered(1), ledger.NewOwner(), 1_800_000_000_000_000_000, 7, committed)
		f.Add(name, value)
	}
	name, value := ledger.EncodeRecord(numbered(1), ledger.Owner{}, -1, 0, false)
	f.Add(name, value)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, name, value []byte) {
		againName, againValue, ok := ledger.ReencodeRecord(name, value)
		if ok && (!bytes.Equal(againName, name) || !bytes.Equal(againValue, value)) {
			t.Errorf("got %x = %x, want %x = %x", againName, againValue, name, value)
		}
		if again, err := ledger.ReencodeAbout(value); err == nil && !bytes.Equal(again, value) {
			t.Errorf("description: got %x, want %x", again, value)
		}
	})
}

// FuzzFile finds files that make the reader panic or run for ever, and ones that it passes although bbolt cannot use them
// or reads something else in them.
func FuzzFile(f *testing.F) {
	clock := fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			ledger.SealMetas(data, 4096)
		}
		want, err := ledger.ReadFile(data, clock.Now())
		if err != nil {
			return
		}
		bb := &boltBench{t, filepath.Join(t.TempDir(), "ledger.db"), clock}
		bb.write(data)
		b := bb.open()
		c := bb.claim(1 << 20)
		c.IssuedAt, c.Until = c.IssuedAt.Add(1e12), c.Until.Add(1e12)
		granted := b.Reserve(context.Background(), c) == nil
		bb.close(b)
		got, err := ledger.ReadFile(bb.read(), clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, there := got[c.Key]; there != granted {
			t.Errorf("the new key is there: %v, want %v", there, granted)
		}
		delete(got, c.Key)
		if !maps.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("got %d keys, want the same %d as before", len(got), len(want))
		}
	})
}

func fuzzSeeds(f *testing.F) *ledgertest.Clock {
	f.Add([]byte{}, false)
	f.Add(make([]byte, os.Getpagesize()), true)
	var clock *ledgertest.Clock
	for _, keys := range []int{0, 3, 100} {
		bb, whole := wholeFile(f, keys)
		clock = bb.clock
		f.Add(whole, false)
		f.Add(whole, true)
	}
	return clock
}
