package ledgertest

import (
	"sync/atomic"
	"time"
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
