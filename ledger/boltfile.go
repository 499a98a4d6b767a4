package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// boltFile is the journal in a bbolt file: bucket "spent" holds the records, bucket "stepward" says what the file is.
//
// A record's name is the period in which it expires and then its sequence number, so new records go to the ends of a few
// periods and a sweep removes whole neighbouring pages from the front.
type boltFile struct {
	path   string
	handle *os.File
	db     *bbolt.DB
	began  time.Time // when the file was made: its memory begins here
	values []byte    // of the batch being written; bbolt keeps pointers into it until the commit

	update func(func(*bbolt.Tx) error) error // db.Update; tests make it fail
}

// record is one key as the file holds it.
type record struct {
	key       Key
	owner     Owner
	until     int64
	seq       uint64
	committed bool
}

const (
	schema     = 1
	period     = int64(5 * time.Minute)
	nameLen    = 4 + 8
	recordLen  = 32 + 16 + 8 + 1 + 4 // key, owner, until, committed, CRC-32 of the name and of these
	fillFactor = 0.95                // records are appended, so a page that is left is done
)

var (
	spentBucket = []byte("spent")
	aboutBucket = []byte("stepward")

	aboutSchema    = []byte("schema")
	aboutBegan     = []byte("began")
	aboutForgotten = []byte("forgotten")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// periodOf is the first period at whose beginning everything with this until has expired.
func periodOf(until int64) uint32 {
	p := max(until, 0) / period
	if until%period != 0 && until > 0 {
		p++
	}
	return uint32(p)
}

func (r *record) name() [nameLen]byte {
	var n [nameLen]byte
	binary.BigEndian.PutUint32(n[:], periodOf(r.until))
	binary.BigEndian.PutUint64(n[4:], r.seq)
	return n
}

func (r *record) appendValue(to []byte, name []byte) []byte {
	from := len(to)
	to = append(to, r.key[:]...)
	to = append(to, r.owner[:]...)
	to = binary.BigEndian.AppendUint64(to, uint64(r.until))
	state := byte(0)
	if r.committed {
		state = 1
	}
	to = append(to, state)
	return binary.BigEndian.AppendUint32(to, checksum(name, to[from:]))
}

func checksum(name, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(name, castagnoli), castagnoli, value)
}

// parseRecord is the inverse of name and appendValue; ok is false where they could not have written this.
func parseRecord(name, value []byte) (r record, ok bool) {
	if len(name) != nameLen || len(value) != recordLen {
		return r, false
	}
	sum := value[recordLen-4:]
	if binary.BigEndian.Uint32(sum) != checksum(name, value[:recordLen-4]) {
		return r, false
	}
	copy(r.key[:], value)
	copy(r.owner[:], value[32:])
	r.until = int64(binary.BigEndian.Uint64(value[48:]))
	r.seq = binary.BigEndian.Uint64(name[4:])
	r.committed = value[56] == 1
	again := r.name()
	return r, bytes.Equal(again[:], name)
}

// write commits ops, and with them the removal of at most sweep expired records. nil means that all of it is on the disk.
func (f *boltFile) write(ops []op, now int64, sweep int) (err error) {
	defer recovered(&err)
	f.values = f.values[:0]
	if need := len(ops) * recordLen; cap(f.values) < need {
		f.values = make([]byte, 0, 2*need)
	}
	return f.update(func(tx *bbolt.Tx) error {
		spent := tx.Bucket(spentBucket)
		if spent == nil {
			return errors.New("the records are gone")
		}
		spent.FillPercent = fillFactor
		for i := range ops {
			if err := f.apply(spent, &ops[i]); err != nil {
				return err
			}
		}
		return f.sweep(tx, spent, now, sweep)
	})
}

func (f *boltFile) apply(spent *bbolt.Bucket, o *op) error {
	name := o.record.name()
	switch o.act {
	case write:
		from := len(f.values)
		f.values = o.record.appendValue(f.values, name[:])
		return spent.Put(name[:], f.values[from:len(f.values):len(f.values)])
	case remove:
		return spent.Delete(name[:])
	default:
		return nil
	}
}

// sweep removes records of periods that are over, and notes up to when memory is gone in the same commit.
func (f *boltFile) sweep(tx *bbolt.Tx, spent *bbolt.Bucket, now int64, limit int) error {
	over := uint32(now / period)
	forgotten := uint32(0)
	cursor := spent.Cursor()
	for name, _ := cursor.First(); name != nil && limit > 0; name, _ = cursor.First() {
		p := binary.BigEndian.Uint32(name)
		if p > over {
			break
		}
		if err := cursor.Delete(); err != nil {
			return err
		}
		forgotten = p
		limit--
	}
	if forgotten == 0 {
		return nil
	}
	about := tx.Bucket(aboutBucket)
	until := int64(forgotten) * period
	if last := about.Get(aboutForgotten); len(last) == 8 {
		until = max(until, int64(binary.BigEndian.Uint64(last)))
	}
	return about.Put(aboutForgotten, binary.BigEndian.AppendUint64(nil, uint64(until)))
}

// due says that the first record's period is over.
func (f *boltFile) due(now int64) (due bool, err error) {
	defer recovered(&err)
	err = f.db.View(func(tx *bbolt.Tx) error {
		name, _ := tx.Bucket(spentBucket).Cursor().First()
		due = len(name) == nameLen && binary.BigEndian.Uint32(name) <= uint32(now/period)
		return nil
	})
	return due, err
}

// load reads what the file is and all live records. It returns the highest sequence number.
func (f *boltFile) load(x *index, now int64) (seq uint64, err error) {
	defer faultsAsPanics()()
	defer recovered(&err)
	err = f.db.View(func(tx *bbolt.Tx) error {
		if err := f.loadAbout(tx.Bucket(aboutBucket), x); err != nil {
			return err
		}
		spent := tx.Bucket(spentBucket)
		if spent == nil {
			return damaged("the records are missing")
		}
		return spent.ForEach(func(name, value []byte) error {
			r, ok := parseRecord(name, value)
			if !ok {
				return damaged("record %x does not match its checksum", name)
			}
			seq = max(seq, r.seq)
			if r.until <= now {
				return nil
			}
			// The clock was set back if a key is there twice: it had expired when it was taken again.
			if e := x.find(r.key, now); e != nil && e.seq > r.seq {
				return nil
			}
			x.remove(r.key)
			x.add(entry{key: r.key, owner: r.owner, until: r.until, seq: r.seq, committed: r.committed})
			return nil
		})
	})
	return seq, err
}

func (f *boltFile) loadAbout(about *bbolt.Bucket, x *index) error {
	if about == nil {
		return fmt.Errorf("is a bbolt file, but not a ledger: name another file")
	}
	version, began, forgotten := about.Get(aboutSchema), about.Get(aboutBegan), about.Get(aboutForgotten)
	switch {
	case len(version) != 4 || len(began) != 8 || len(forgotten) != 8:
		return damaged("its description is incomplete")
	case binary.BigEndian.Uint32(version) != schema:
		return fmt.Errorf("has schema %d, and this version of stepward reads schema %d: run the version that wrote it, or %s",
			binary.BigEndian.Uint32(version), schema, remedy)
	}
	f.began = time.Unix(0, int64(binary.BigEndian.Uint64(began)))
	x.forgotten = int64(binary.BigEndian.Uint64(forgotten))
	return nil
}

// found makes a file that holds nothing a ledger whose memory begins now.
func (f *boltFile) found(now time.Time) error {
	return f.update(func(tx *bbolt.Tx) error {
		if name, _ := tx.Cursor().First(); name != nil {
			return nil
		}
		about, err := tx.CreateBucket(aboutBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(spentBucket); err != nil {
			return err
		}
		forgotten := int64(math.MinInt64)
		return errors.Join(
			about.Put(aboutSchema, binary.BigEndian.AppendUint32(nil, schema)),
			about.Put(aboutBegan, binary.BigEndian.AppendUint64(nil, uint64(nanos(now)))),
			about.Put(aboutForgotten, binary.BigEndian.AppendUint64(nil, uint64(forgotten))),
		)
	})
}

// moved says when the path no longer leads to the open file: another process could open what is there now, and both
// would accept the same token.
func (f *boltFile) moved() error {
	there, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("the file was taken away while it was open: restart stepward: %w", err)
	}
	ours, err := f.handle.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(there, ours) {
		return errors.New("the file was replaced while it was open: restart stepward")
	}
	return nil
}

func (f *boltFile) close() (err error) {
	defer recovered(&err)
	return f.db.Close()
}

// abandon lets go of a file that turned out to be unusable.
func (f *boltFile) abandon() {
	_ = f.close() // What is wrong with the file is being reported already.
	f.handle.Close()
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
