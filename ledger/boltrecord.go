package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// record is one key as the file holds it.
type record struct {
	key       Key
	owner     Owner
	until     int64
	seq       uint64
	committed bool
}

const (
	schema    = 1
	period    = int64(5 * time.Minute)
	nameLen   = 4 + 8
	recordLen = 32 + 16 + 8 + 1 + 4 // key, owner, until, committed, CRC-32 of the name and of these
	aboutLen  = 4 + 8 + 8 + 8 + 8 + 4
)

var (
	spentBucket = []byte("spent")
	aboutBucket = []byte("stepward")
	aboutName   = []byte("about")

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

// periodAt is the period of a time: all records of earlier ones and of this one have expired. A clock that was never set
// shows a time before 1970, when nothing has.
func periodAt(now int64) uint32 { return uint32(max(now, 0) / period) }

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
	return r, bytes.Equal(again[:], name) && value[56] <= 1
}

// about describes the file. It changes with every commit, which costs nothing, since bbolt rewrites its page anyway.
type about struct {
	began     int64 // when the file was made: its memory begins here
	forgotten int64 // records with an until up to this may have been swept
	// The number of records and the sum of their sequence numbers: bbolt has no checksum over its pages, so a damaged page
	// may otherwise look like one that holds less.
	records int64
	sum     uint64
}

func (a *about) encode() []byte {
	to := binary.BigEndian.AppendUint32(make([]byte, 0, aboutLen), schema)
	to = binary.BigEndian.AppendUint64(to, uint64(a.began))
	to = binary.BigEndian.AppendUint64(to, uint64(a.forgotten))
	to = binary.BigEndian.AppendUint64(to, uint64(a.records))
	to = binary.BigEndian.AppendUint64(to, a.sum)
	return binary.BigEndian.AppendUint32(to, checksum(aboutName, to))
}

func parseAbout(from []byte) (a about, err error) {
	if len(from) >= 4 && binary.BigEndian.Uint32(from) != schema {
		return a, fmt.Errorf("has schema %d, and this version of stepward reads schema %d: run the version that wrote it, or %s",
			binary.BigEndian.Uint32(from), schema, remedy)
	}
	if len(from) != aboutLen || binary.BigEndian.Uint32(from[aboutLen-4:]) != checksum(aboutName, from[:aboutLen-4]) {
		return a, damaged("its description does not match its checksum")
	}
	return about{
		began:     int64(binary.BigEndian.Uint64(from[4:])),
		forgotten: int64(binary.BigEndian.Uint64(from[12:])),
		records:   int64(binary.BigEndian.Uint64(from[20:])),
		sum:       binary.BigEndian.Uint64(from[28:]),
	}, nil
}

func (a *about) count(seq uint64) {
	a.records++
	a.sum += seq
}

func (a *about) discount(seq uint64) {
	a.records--
	a.sum -= seq
}
