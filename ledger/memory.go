package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// MemoryConfig configures a Memory.
type MemoryConfig struct {
	Capacity int           // live keys at most; more are ErrFull. Must be positive.
	Leeway   time.Duration // how far issuers' clocks may be ahead: the one that verification uses
	// Remember is the longest time for which claims without IssuedAt are remembered. For so long after the start they are
	// refused with ErrFenced; zero refuses them always.
	Remember time.Duration
	Now      func() time.Time // nil is time.Now
}

// Memory is a Store that forgets everything when its process ends. From its start on it refuses what was issued before.
type Memory struct {
	now      func() time.Time
	fence    fence
	capacity int64
	entries  atomic.Int64 // in all shards, expired ones that were not yet swept included
	closed   atomic.Bool
	stop     chan struct{}
	done     chan struct{}
	shards   [memoryShards]memoryShard
}

type memoryShard struct {
	mu    sync.Mutex
	index *index // guarded by mu
	_     [40]byte
}

const (
	memoryShards = 128
	sweepEvery   = time.Second
	sweepChunk   = 128 // expired keys dropped under one hold of a lock: about 50 µs
)

var errClosed = errors.New("it was closed")

// NewMemory starts an empty store with one goroutine, which Close ends.
func NewMemory(c MemoryConfig) (*Memory, error) {
	if err := checkCapacity(c.Capacity); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	m := &Memory{
		now: c.Now, fence: newFence(c.Now(), c.Leeway, c.Remember), capacity: int64(c.Capacity),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for i := range m.shards {
		m.shards[i].index = newIndex()
	}
	go m.sweep()
	return m, nil
}

// Reserve implements Store.
func (m *Memory) Reserve(ctx context.Context, c Claim) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if m.closed.Load() {
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	now := Nanos(m.now())
	err := m.reserve(c, now)
	for room := true; room && errors.Is(err, ErrFull); {
		// Others may take the room first, or have made it: only a try after nothing more had expired is an answer.
		room = m.makeRoom(now)
		err = m.reserve(c, now)
	}
	return err
}

func (m *Memory) reserve(c Claim, now int64) error {
	until := Nanos(c.Until)
	s := m.shard(c.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.index.refusal(c.Key, until, now); err != nil {
		return err
	}
	if m.fence.refuses(c.IssuedAt, now) {
		return ErrFenced
	}
	before := s.index.len()
	if !m.take() {
		return ErrFull
	}
	s.index.add(entry{key: c.Key, owner: c.Owner, until: until})
	if s.index.len() == before {
		m.entries.Add(-1) // It took the place of an expired one.
	}
	return nil
}

// take counts one entry more, unless the store is full.
func (m *Memory) take() bool {
	for {
		n := m.entries.Load()
		if n >= m.capacity {
			return false
		}
		if m.entries.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Commit implements Store. It never waits, so it does not look at ctx.
func (m *Memory) Commit(_ context.Context, k Key, o Owner) error {
	if m.closed.Load() {
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	now := Nanos(m.now())
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.index.held(k, o, now)
	if e == nil {
		return ErrConsumed
	}
	e.committed = true
	return nil
}

// Release implements Store. It never waits, so it does not look at ctx.
func (m *Memory) Release(_ context.Context, k Key, o Owner) error {
	if m.closed.Load() {
		return fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	now := Nanos(m.now())
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.index.held(k, o, now)
	if e == nil || e.committed {
		return ErrConsumed
	}
	s.index.remove(k)
	m.entries.Add(-1)
	return nil
}

// Stats implements Store.
func (m *Memory) Stats(context.Context) (Stats, error) {
	if m.closed.Load() {
		return Stats{}, fmt.Errorf("%w: %w", ErrUnavailable, errClosed)
	}
	now := Nanos(m.now())
	for i := range m.shards {
		m.expire(&m.shards[i], now)
	}
	return Stats{Entries: m.entries.Load(), Capacity: m.capacity, Fence: time.Unix(0, m.fence.before)}, nil
}

// Close implements Store.
func (m *Memory) Close() error {
	if m.closed.CompareAndSwap(false, true) {
		close(m.stop)
	}
	<-m.done
	return nil
}

func (m *Memory) shard(k Key) *memoryShard { return &m.shards[k[0]%memoryShards] }

func (m *Memory) sweep() {
	defer close(m.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
		}
		now := Nanos(m.now())
		for i := range m.shards {
			m.expire(&m.shards[i], now)
		}
	}
}

// expire drops all expired keys of a shard, letting others in between.
func (m *Memory) expire(s *memoryShard, now int64) {
	for m.expireSome(s, now) == sweepChunk {
	}
}

func (m *Memory) expireSome(s *memoryShard, now int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.index.expire(now, sweepChunk)
	m.entries.Add(-int64(n))
	return n
}

// makeRoom drops some expired keys that the sweeper has not come to yet; false where there are none.
func (m *Memory) makeRoom(now int64) bool {
	for i := range m.shards {
		if m.expireSome(&m.shards[i], now) > 0 {
			return true
		}
	}
	return false
}
