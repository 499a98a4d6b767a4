package ledger

import (
	"errors"

	"go.etcd.io/bbolt"
)

// ErrDisk is what a disk says that BreakWrites has broken.
var ErrDisk = errors.New("input/output error")

// Fault is where a write fails.
type Fault int

// The faults of BreakWrites.
const (
	FailsUnwritten Fault = iota // nothing reached the disk
	FailsWritten                // the disk failed after everything had been persisted
	Panics                      // bbolt met a page that it cannot read
)

// BreakWrites makes the writes of b fail from now on. It must not run beside a write.
func BreakWrites(b *Bolt, fault Fault) {
	commit := b.file.update
	b.file.update = func(fill func(*bbolt.Tx) error) error {
		switch fault {
		case FailsWritten:
			return errors.Join(commit(fill), ErrDisk)
		case Panics:
			return commit(func(*bbolt.Tx) error { panic("page 7: invalid page type") })
		default:
			return commit(func(tx *bbolt.Tx) error { return errors.Join(fill(tx), ErrDisk) })
		}
	}
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
