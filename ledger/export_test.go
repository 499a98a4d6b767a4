package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// ErrDisk is what a disk says that BreakWrites has broken.
var ErrDisk = errors.New("input/output error")

// Fault is where a write fails.
type Fault int32

// The faults of BreakWrites.
const (
	none           Fault = iota
	FailsUnwritten       // nothing reached the disk
	FailsWritten         // the disk failed after everything had been persisted
	Panics               // bbolt met a page that it cannot read
)

// BreakWrites makes the writes of b fail from now on. It must not run beside a write.
func BreakWrites(b *Bolt, fault Fault) { Breakable(b)(fault) }

// Breakable is called before b's first write; what it returns makes the writes of b fail and may run beside them.
func Breakable(b *Bolt) (fail func(Fault)) {
	var fault atomic.Int32
	commit := b.file.update
	b.file.update = func(fill func(*bbolt.Tx) error) error {
		switch Fault(fault.Load()) {
		case FailsUnwritten:
			return commit(func(tx *bbolt.Tx) error { return errors.Join(fill(tx), ErrDisk) })
		case FailsWritten:
			return errors.Join(commit(fill), ErrDisk)
		case Panics:
			return commit(func(*bbolt.Tx) error { panic("page 7: invalid page type") })
		default:
			return commit(fill)
		}
	}
	return func(f Fault) { fault.Store(int32(f)) }
}

// HoldWrites makes b's next writes announce themselves and wait until release is closed.
func HoldWrites(b *Bolt) (begun <-chan struct{}, release chan struct{}) {
	began, release := make(chan struct{}, 1), make(chan struct{})
	commit := b.file.update
	b.file.update = func(fill func(*bbolt.Tx) error) error {
		select {
		case began <- struct{}{}:
		default:
		}
		<-release
		return commit(fill)
	}
	return began, release
}

// Syncs says that a commit of b's waits for the disk.
func Syncs(b *Bolt) bool { return !b.file.db.NoSync && !b.file.db.NoGrowSync }

// Records counts the records in b's file, expired ones included. It may run beside writes.
func Records(b *Bolt) (n int) {
	err := b.file.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(spentBucket).ForEach(func([]byte, []byte) error { n++; return nil })
	})
	if err != nil {
		panic(err)
	}
	return n
}

// Held is how many keys m holds in memory, expired ones included.
func Held(m *Memory) int64 { return m.entries.Load() }

// Entry is what a ledger file says about one live key.
type Entry struct {
	Owner     Owner
	Until     int64
	Committed bool
}

// ReadFile reads a ledger file's live keys; nil where no ledger was begun in it.
func ReadFile(data []byte, now time.Time) (map[Key]Entry, error) {
	c, err := readLedger(bytes.NewReader(data), int64(len(data)), Nanos(now))
	if err != nil || !c.begun {
		return nil, err
	}
	entries := map[Key]Entry{}
	for i := range c.index.entries.len {
		e := c.index.entries.at(i)
		entries[e.key] = Entry{e.owner, e.until, e.committed}
	}
	return entries, nil
}

// LivePages returns the offsets of a whole file's branch and leaf pages that are in use.
func LivePages(data []byte) (branches, leaves []int) {
	p, err := openPages(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		panic(err)
	}
	buckets, err := p.buckets()
	if err != nil {
		panic(err)
	}
	for _, bucket := range buckets {
		if err := p.walkBucket(bucket, func(element) error { return nil }); err != nil {
			panic(err)
		}
	}
	for id, used := range p.used {
		at := id * int(p.meta.pageSize)
		switch {
		case used && binary.NativeEndian.Uint16(data[at+8:]) == branchPage:
			branches = append(branches, at)
		case used:
			leaves = append(leaves, at)
		}
	}
	return branches, leaves
}

// FreeListPage is the offset of the list of free pages.
func FreeListPage(data []byte) int {
	p, err := openPages(bytes.NewReader(data), int64(len(data)))
	if err != nil || p.meta.free == noPage {
		panic("no list of free pages")
	}
	return int(p.meta.free * p.meta.pageSize)
}

// SealMetas gives the meta pages of a file the checksums that they should have.
func SealMetas(data []byte, pageSize int) {
	for _, at := range []int{0, pageSize} {
		if len(data) < at+pageHeaderLen+metaLen {
			return
		}
		body := data[at+pageHeaderLen:]
		sum := fnv.New64a()
		sum.Write(body[:metaLen-8])
		binary.NativeEndian.PutUint64(body[metaLen-8:], sum.Sum64())
	}
}

// EncodeRecord returns a record's name and value.
func EncodeRecord(k Key, o Owner, until int64, seq uint64, committed bool) (name, value []byte) {
	r := record{k, o, until, seq, committed}
	n := r.name()
	return n[:], r.appendValue(nil, n[:])
}

// ReencodeRecord parses a record after giving it the checksum that it should have, and encodes it again.
func ReencodeRecord(name, value []byte) (againName, againValue []byte, ok bool) {
	if len(value) == recordLen {
		binary.BigEndian.PutUint32(value[recordLen-4:], checksum(name, value[:recordLen-4]))
	}
	r, ok := parseRecord(name, value)
	if !ok {
		return nil, nil, false
	}
	againName, againValue = EncodeRecord(r.key, r.owner, r.until, r.seq, r.committed)
	return againName, againValue, true
}

// ReencodeAbout does the same with a file's description.
func ReencodeAbout(data []byte) ([]byte, error) {
	if len(data) == aboutLen {
		binary.BigEndian.PutUint32(data[aboutLen-4:], checksum(aboutName, data[:aboutLen-4]))
	}
	a, err := parseAbout(data)
	if err != nil {
		return nil, err
	}
	return a.encode(), nil
}
