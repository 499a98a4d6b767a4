package token

import (
	"crypto/sha256"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// cache remembers proven tokens by the hash of their text. It belongs to one Verifier, so it dies with the configuration.
// Failures are not remembered: they cost the attacker as much as us, and memory of them would outlive their cause.
type cache struct {
	tokens *lru.Cache[[sha256.Size]byte, proven]
	hits   atomic.Uint64
	misses atomic.Uint64
}

// CacheStats counts what became of the memory of proven tokens since the Verifier was made.
type CacheStats struct {
	Hits, Misses uint64
	Entries      int
}

// newCache returns nil for a negative size: no memory.
func newCache(size int) (*cache, error) {
	if size < 0 {
		return nil, nil //nolint:nilnil // no cache is a valid cache
	}
	tokens, err := lru.New[[sha256.Size]byte, proven](size)
	if err != nil {
		return nil, err
	}
	return &cache{tokens: tokens}, nil
}

// find returns the claims of a token that still stands: not expired, and its keys are those of then. Others are dropped
// (and proven anew by the caller, who learns what is wrong), except that a set that went stale may come back.
func (c *cache) find(id [sha256.Size]byte, now time.Time, leeway time.Duration) *Claims {
	p, ok := c.tokens.Get(id)
	if ok && !expired(p.claims, now, leeway) && p.keys.holds(p.generation, now) {
		c.hits.Add(1)
		return p.claims
	}
	c.misses.Add(1)
	if ok {
		c.tokens.Remove(id)
	}
	return nil
}

func (c *cache) add(id [sha256.Size]byte, p proven) { c.tokens.Add(id, p) }

// Stats returns the cache's counters; all zero where there is no cache.
func (v *Verifier) Stats() CacheStats {
	if v == nil || v.cache == nil {
		return CacheStats{}
	}
	return CacheStats{Hits: v.cache.hits.Load(), Misses: v.cache.misses.Load(), Entries: v.cache.tokens.Len()}
}
