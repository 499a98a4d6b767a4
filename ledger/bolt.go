package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// BoltConfig configures a Bolt.
type BoltConfig struct {
	Path     string        // of the file, which is made if it is missing; its directory must exist
	Capacity int           // live keys at most; more are ErrFull. Must be positive.
	Leeway   time.Duration // how far issuers' clocks may be ahead: the one that verification uses
	// Remember is the longest time for which claims without IssuedAt are remembered. For so long after the file was made
	// they are refused with ErrFenced; zero refuses them always.
	Remember time.Duration
	// LockWait bounds the wait for another process to let go of the file; zero is 5 s.
	LockWait time.Duration
	Now      func() time.Time // nil is time.Now
}

// Bolt is a Store in one file that survives a crash of its process and of the machine. A Reserve is on the disk when it
// returns nil. One process at a time can have the file open.
//
// Live keys are kept in memory too, so that the file can be written in order of time: a batch of reservations touches a few
// neighbouring pages of the file instead of one page for each random key, at any number of keys.
//
// After a write that failed nobody knows what the file holds, so the store takes nothing more: those who waited for the
// write get ErrUnknown, everybody after them ErrUnavailable, and Stats returns the cause. It must be opened again.
type Bolt struct {
	now      func() time.Time
	fence    fence
	capacity int
	file     *boltFile // used by the writer's goroutine alone
	wake     chan struct{}
	stop     chan struct{}
	running  sync.WaitGroup

	mu      sync.Mutex
	index   *index // guarded by mu, as all below
	next    *batch // takes what the writer has not begun
	seq     uint64 // of the newest record
	refused error  // what everybody is told once the store is closed or broken
	broken  error  // the failed write, if there was one
	closed  bool
}

// batch is what the writer commits at once. All its reservations share one answer.
type batch struct {
	ops      []op // in the order in which they changed the index
	reserves int  // how many callers wait
	begun    bool // the writer has it; guarded by Bolt.mu as the others are
	done     chan struct{}
	err      error // set before done is closed
}

type op struct {
	record record
	act    act
}

type act uint8

const (
	nothing act = iota // a reservation that was withdrawn in time
	write
	remove
)

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// NewBolt opens or makes the file and starts two goroutines, which Close ends. A file that is damaged, locked or not a
// ledger is refused with an error that says what to do, and is left as it was. ctx bounds the wait for the lock only.
func NewBolt(ctx context.Context, c BoltConfig) (*Bolt, error) {
	if err := checkCapacity(c.Capacity); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.LockWait == 0 {
		c.LockWait = 5 * time.Second
	}
	file, found, err := openBoltFile(ctx, c.Path, c.LockWait, c.Now())
	if err != nil {
		return nil, fmt.Errorf("ledger: %s: %w", c.Path, err)
	}
	b := &Bolt{
		now: c.Now, fence: newFence(time.Unix(0, file.about.began), c.Leeway, c.Remember), capacity: c.Capacity,
		file: file, index: found.index, seq: found.newest, next: newBatch(),
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	b.running.Go(b.run)
	b.running.Go(b.sweep)
	return b, nil
}

// Reserve implements Store. When ctx ends before the reservation's turn came, it is withdrawn (ErrUnavailable); when it ends
// while the disk is at work, the answer is ErrUnknown and the key stays reserved.
func (b *Bolt) Reserve(ctx context.Context, c Claim) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	batch, place, err := b.join(c, Nanos(b.now()))
	if err != nil {
		return err
	}
	select {
	case <-batch.done:
		return batch.err
	case <-ctx.Done():
		return b.withdraw(ctx, batch, place)
	}
}

// join decides about c in memory and, where it is granted, puts it into the next batch.
func (b *Bolt) join(c Claim, now int64) (*batch, int, error) {
	until := Nanos(c.Until)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused != nil {
		return nil, 0, b.refused
	}
	if err := b.index.refusal(c.Key, until, now); err != nil {
		return nil, 0, err
	}
	if b.fence.refuses(c.IssuedAt, now) {
		return nil, 0, ErrFenced
	}
	if b.index.len() >= b.capacity && b.index.expire(now, sweepChunk) == 0 {
		return nil, 0, ErrFull
	}
	b.seq++
	e := entry{key: c.Key, owner: c.Owner, until: until, seq: b.seq}
	b.index.add(e)
	b.next.ops = append(b.next.ops, op{record{e.key, e.owner, until, b.seq, false}, write})
	b.next.reserves++
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return b.next, len(b.next.ops) - 1, nil
}

func (b *Bolt) withdraw(ctx context.Context, batch *batch, place int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-batch.done:
		return batch.err
	default:
	}
	if batch.begun {
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
	o := &batch.ops[place]
	o.act = nothing
	batch.reserves--
	if i, ok := b.index.places[o.record.key]; ok && b.index.entries.at(i).seq == o.record.seq {
		b.index.remove(o.record.key)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
}

// Commit implements Store. It reaches the disk with the next batch and waits for nothing: were it lost, the key would
// still be reserved.
func (b *Bolt) Commit(_ context.Context, k Key, o Owner) error {
	now := Nanos(b.now())
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused != nil {
		return b.refused
	}
	e := b.index.held(k, o, now)
	if e == nil {
		return ErrConsumed
	}
	if !e.committed {
		e.committed = true
		b.next.ops = append(b.next.ops, op{record{k, o, e.until, e.seq, true}, write})
	}
	return nil
}

// Release implements Store. Like Commit it waits for nothing: were it lost, the key would stay spent. A later Reserve of
// the key stands behind it in the same batch or in a later one.
func (b *Bolt) Release(_ context.Context, k Key, o Owner) error {
	now := Nanos(b.now())
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused != nil {
		return b.refused
	}
	e := b.index.held(k, o, now)
	if e == nil || e.committed {
		return ErrConsumed
	}
	b.next.ops = append(b.next.ops, op{record{k, o, e.until, e.seq, false}, remove})
	b.index.remove(k)
	return nil
}

// Stats implements Store. Its error says why a broken store takes nothing more.
func (b *Bolt) Stats(context.Context) (Stats, error) {
	now := Nanos(b.now())
	b.expire(now)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused != nil {
		return Stats{}, b.refused
	}
	return Stats{Entries: int64(b.index.len()), Capacity: int64(b.capacity), Fence: time.Unix(0, b.fence.before)}, nil
}

// expire drops all expired keys from memory, letting others in between.
func (b *Bolt) expire(now int64) {
	for n := sweepChunk; n == sweepChunk; {
		b.mu.Lock()
		n = b.index.expire(now, sweepChunk)
		b.mu.Unlock()
	}
}

// Close implements Store: it writes and answers what is waiting, and lets go of the file. It waits for the disk. Its error is
// that of the write which broke the store, if one did.
func (b *Bolt) Close() error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	if b.refused == nil {
		b.refused = fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	b.mu.Unlock()
	if first {
		close(b.stop)
	}
	b.running.Wait()
	if !first {
		return nil
	}
	return errors.Join(b.broken, b.file.close()) // Without the lock: nobody writes broken once run has ended.
}
