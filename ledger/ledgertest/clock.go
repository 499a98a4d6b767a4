package ledgertest

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/stepward/stepward/ledger"
)

// Clock is a clock that only moves when it is told to.
type Clock struct{ nanos atomic.Int64 }

// NewClock returns a clock that stands at the present whole second: a server that forgets keys by its own clock must find
// none of them in the past.
func NewClock() *Clock {
	c := &Clock{}
	c.nanos.Store(time.Now().Truncate(time.Second).UnixNano())
	return c
}

// Now is the time it shows.
func (c *Clock) Now() time.Time { return time.Unix(0, c.nanos.Load()) }

// Add moves it, back where d is negative.
func (c *Clock) Add(d time.Duration) { c.nanos.Add(int64(d)) }

// Numbered is a key that looks as random as a hash.
func Numbered(n uint64) (k ledger.Key) {
	for i := range 4 {
		n += 0x9e3779b97f4a7c15
		z := (n ^ n>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(k[8*i:], z^z>>31)
	}
	return k
}
