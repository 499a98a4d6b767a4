package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// boltFile is the journal in a bbolt file: bucket "spent" holds the records, bucket "stepward" one description.
//
// A record's name is the period in which it expires and then its sequence number, so new records go to the ends of a few
// periods and a sweep removes whole neighbouring pages from the front.
type boltFile struct {
	path   string
	handle *os.File
	db     *bbolt.DB
	about  about  // as last committed
	values []byte // of the batch being written; bbolt keeps pointers into it until the commit

	update func(func(*bbolt.Tx) error) error // db.Update; tests make it fail
}

// fillFactor leaves little room: records are appended, so a page that is left is done.
const fillFactor = 0.95

// write commits ops, and with them the removal of at most sweep expired records. nil means that all of it is on the disk.
func (f *boltFile) write(ops []op, now int64, sweep int) (err error) {
	defer recovered(&err)
	f.values = f.values[:0]
	if need := len(ops) * recordLen; cap(f.values) < need {
		f.values = make([]byte, 0, 2*need)
	}
	next := f.about
	err = f.update(func(tx *bbolt.Tx) error {
		spent, description := tx.Bucket(spentBucket), tx.Bucket(aboutBucket)
		spent.FillPercent = fillFactor
		for i := range ops {
			if err := f.apply(spent, &next, &ops[i]); err != nil {
				return err
			}
		}
		if err := next.sweep(spent, periodAt(now), sweep); err != nil {
			return err
		}
		return description.Put(aboutName, next.encode())
	})
	if err == nil {
		f.about = next
	}
	return err
}

func (f *boltFile) apply(spent *bbolt.Bucket, next *about, o *op) error {
	if o.act == nothing {
		return nil
	}
	r := &o.record
	name := r.name()
	// A commit finds its record, unless that was swept meanwhile, as a release does.
	there := (o.act == remove || r.committed) && spent.Get(name[:]) != nil
	switch {
	case o.act == write:
		if !there {
			next.count(r.seq)
		}
		from := len(f.values)
		f.values = r.appendValue(f.values, name[:])
		return spent.Put(name[:], f.values[from:len(f.values):len(f.values)])
	case there:
		next.discount(r.seq)
		return spent.Delete(name[:])
	}
	return nil
}

// sweep removes records of periods that are over, and notes up to when memory is gone.
func (a *about) sweep(spent *bbolt.Bucket, over uint32, limit int) error {
	cursor := spent.Cursor()
	for ; limit > 0; limit-- {
		name, _ := cursor.First()
		if name == nil || binary.BigEndian.Uint32(name) > over {
			return nil
		}
		a.forgotten = max(a.forgotten, int64(binary.BigEndian.Uint32(name))*period)
		a.discount(binary.BigEndian.Uint64(name[4:]))
		if err := cursor.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// due says that the first record's period is over.
func (f *boltFile) due(now int64) (due bool, err error) {
	defer recovered(&err)
	err = f.db.View(func(tx *bbolt.Tx) error {
		name, _ := tx.Bucket(spentBucket).Cursor().First()
		due = len(name) == nameLen && binary.BigEndian.Uint32(name) <= periodAt(now)
		return nil
	})
	return due, err
}

// begin makes a file that holds nothing a ledger whose memory begins now.
func (f *boltFile) begin(now time.Time) error {
	f.about = about{began: Nanos(now), forgotten: math.MinInt64}
	return f.update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket(spentBucket); err != nil {
			return err
		}
		description, err := tx.CreateBucket(aboutBucket)
		if err != nil {
			return err
		}
		return description.Put(aboutName, f.about.encode())
	})
}

// moved says when the path no longer leads to the open file: another process could open what is there now, and both
// would accept the same token.
func (f *boltFile) moved() error {
	there, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("the file was taken away while it was open (%w): put it back and restart stepward", err)
	}
	ours, err := f.handle.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(there, ours) {
		return errors.New("the file was replaced while it was open: put the old one back and restart stepward")
	}
	return nil
}

func (f *boltFile) close() (err error) {
	defer recovered(&err)
	return f.db.Close()
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = damaged("reading it failed with %q", fmt.Sprint(r))
	}
}

const remedy = "move it away: stepward then makes a new one, and refuses tokens issued before that, so none can be used twice"

func damaged(format string, args ...any) error {
	return fmt.Errorf("is damaged: %s; %s", fmt.Sprintf(format, args...), remedy)
}
