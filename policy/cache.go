package policy

import (
	"crypto/sha256"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// cache remembers requirements by what the policy could read. It belongs to one snapshot and dies with it.
type cache struct {
	entries *lru.Cache[[sha256.Size]byte, *Requirement]
	buffers sync.Pool
}

func newCache(size int) *cache {
	entries, err := lru.New[[sha256.Size]byte, *Requirement](size)
	if err != nil { // only for a size below 1, which Config.check refuses
		return nil
	}
	return &cache{entries: entries, buffers: sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}}
}

// key hashes the readable inputs. A collision of SHA-256 is the only way to be answered for another request.
func (c *cache) key(rs reads, in *Input, headers []headerName) [sha256.Size]byte {
	buffer, _ := c.buffers.Get().(*[]byte)
	*buffer = rs.appendKey((*buffer)[:0], in, headers)
	k := sha256.Sum256(*buffer)
	c.buffers.Put(buffer)
	return k
}
