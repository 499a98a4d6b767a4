package ledger

import (
	"math"
	"time"
)

// index holds keys in memory with an exact order of expiry. It is not safe for concurrent use. Its entries hold no pointers,
// so the garbage collector does not walk a million of them.
type index struct {
	places  map[Key]uint32 // into entries
	entries table[entry]   // dense: the last one fills the gap that a removal leaves
	queue   table[uint32]  // a binary heap of places in entries, earliest until first
	most    uint32         // entries since places was made

	// forgotten is the latest until that was ever dropped because its time had come. Were the clock set back, keys up to
	// it might be asked for again, and their absence here would prove nothing.
	forgotten int64
}

type entry struct {
	key       Key
	owner     Owner
	until     int64  // nanoseconds since 1970
	seq       uint64 // of a journal's record; unused in memory
	queued    uint32 // place in queue
	committed bool
}

func newIndex() *index { return &index{places: map[Key]uint32{}, forgotten: math.MinInt64} }

func (x *index) len() int { return int(x.entries.len) }

// find returns k's entry, valid until the next change, or nil where k is absent or expired.
func (x *index) find(k Key, now int64) *entry {
	i, ok := x.places[k]
	if !ok {
		return nil
	}
	if e := x.entries.at(i); e.until > now {
		return e
	}
	return nil
}

// held returns the live entry of k if o owns it.
func (x *index) held(k Key, o Owner, now int64) *entry {
	if e := x.find(k, now); e != nil && e.owner == o {
		return e
	}
	return nil
}

// refusal says why k cannot be reserved until the given time, or nil.
func (x *index) refusal(k Key, until, now int64) error {
	if e := x.find(k, now); e != nil {
		if e.committed {
			return ErrConsumed
		}
		return ErrReserved
	}
	if until <= now || until <= x.forgotten {
		return ErrFenced
	}
	return nil
}

// add puts e in the place of an expired entry of the same key, if there is one.
func (x *index) add(e entry) {
	if _, ok := x.places[e.key]; ok {
		x.forget(e.key)
	}
	i := x.entries.len
	e.queued = x.queue.len
	x.entries.push(e)
	x.queue.push(i)
	x.places[e.key] = i
	x.most = max(x.most, x.entries.len)
	x.up(e.queued)
}

// remove takes k out, as if it had never been there.
func (x *index) remove(k Key) {
	i, ok := x.places[k]
	if !ok {
		return
	}
	delete(x.places, k)
	x.unqueue(x.entries.at(i).queued)
	if last := x.entries.len - 1; i != last {
		moved := *x.entries.at(last)
		*x.entries.at(i) = moved
		x.places[moved.key] = i
		*x.queue.at(moved.queued) = i
	}
	x.entries.pop()
	if x.entries.len == 0 && x.most > 1024 {
		// A map never shrinks: after a burst this is the moment to give its memory back.
		x.places, x.most = map[Key]uint32{}, 0
	}
}

// forget removes an expired key and remembers that memory of its time is gone.
func (x *index) forget(k Key) {
	x.forgotten = max(x.forgotten, x.entries.at(x.places[k]).until)
	x.remove(k)
}

// expire forgets at most limit expired keys and returns how many.
func (x *index) expire(now int64, limit int) int {
	n := 0
	for n < limit && x.queue.len > 0 {
		e := x.entries.at(*x.queue.at(0))
		if e.until > now {
			break
		}
		x.forget(e.key)
		n++
	}
	return n
}

func (x *index) before(i, j uint32) bool {
	return x.entries.at(*x.queue.at(i)).until < x.entries.at(*x.queue.at(j)).until
}

func (x *index) swap(i, j uint32) {
	a, b := x.queue.at(i), x.queue.at(j)
	*a, *b = *b, *a
	x.entries.at(*a).queued = i
	x.entries.at(*b).queued = j
}

func (x *index) up(i uint32) {
	for i > 0 {
		parent := (i - 1) / 2
		if !x.before(i, parent) {
			return
		}
		x.swap(i, parent)
		i = parent
	}
}

func (x *index) down(i uint32) {
	for n := x.queue.len; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < n; child++ {
			if x.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		x.swap(i, least)
		i = least
	}
}

func (x *index) unqueue(i uint32) {
	last := x.queue.len - 1
	if i != last {
		x.swap(i, last)
	}
	x.queue.pop()
	if i != last {
		x.down(i)
		x.up(i)
	}
}

// Nanos is t in nanoseconds since 1970. Times beyond the years 1678 to 2262 become the nearest one, since an overflowing
// exp would otherwise be a key that is forgotten at once.
func Nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	case s <= math.MinInt64/int64(time.Second):
		return math.MinInt64
	}
	return t.UnixNano()
}
