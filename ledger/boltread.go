package ledger

import (
	"bytes"
	"errors"
	"io"
)

// contents is what a file says when it is read from end to end.
type contents struct {
	begun  bool // false while nothing was ever written to it
	about  about
	index  *index // of the live records
	newest uint64 // the highest sequence number
}

// readLedger checks the whole file and takes in its live records. It changes nothing.
func readLedger(file io.ReaderAt, size, now int64) (contents, error) {
	c := contents{index: newIndex()}
	if size == 0 {
		return c, nil
	}
	p, err := openPages(file, size)
	if err != nil {
		return c, err
	}
	buckets, err := p.buckets()
	if err != nil {
		return c, err
	}
	spent, description := buckets[string(spentBucket)], buckets[string(aboutBucket)]
	switch {
	case len(buckets) == 0:
		return c, nil // A crash came between bbolt's first write and ours.
	case len(buckets) != 2 || spent == nil || description == nil:
		return c, errors.New("is a bbolt file, but not a ledger: name another file")
	}
	c.begun = true
	if err := c.describe(p, description); err != nil {
		return c, err
	}
	if err := c.restore(p, spent, now); err != nil {
		return c, err
	}
	return c, p.checkFree()
}

// buckets are the descriptions of the outermost buckets, by name.
func (p *pages) buckets() (map[string][]byte, error) {
	found := map[string][]byte{}
	err := p.walk(p.meta.root, 0, nil, nil, func(e element) error {
		if !e.bucket {
			return damaged("there is a key outside its buckets")
		}
		found[string(e.key)] = bytes.Clone(e.value)
		return nil
	})
	return found, err
}

func (c *contents) describe(p *pages, bucket []byte) error {
	entries := 0
	err := p.walkBucket(bucket, func(e element) (err error) {
		entries++
		if !bytes.Equal(e.key, aboutName) || e.bucket {
			return damaged("its description has an entry %q", e.key)
		}
		c.about, err = parseAbout(e.value)
		return err
	})
	if err == nil && entries != 1 {
		return damaged("its description is missing")
	}
	return err
}

func (c *contents) restore(p *pages, bucket []byte, now int64) error {
	found := about{began: c.about.began, forgotten: c.about.forgotten}
	c.index.forgotten = c.about.forgotten
	err := p.walkBucket(bucket, func(e element) error {
		r, ok := parseRecord(e.key, e.value)
		if !ok || e.bucket {
			return damaged("record %x does not match its checksum", e.key)
		}
		found.count(r.seq)
		c.newest = max(c.newest, r.seq)
		c.index.restore(&r, now)
		return nil
	})
	if err == nil && found != c.about {
		return damaged("it holds %d records and should hold %d", found.records, c.about.records)
	}
	return err
}

func (x *index) restore(r *record, now int64) {
	if r.until <= now {
		// It stays in the file for a while, but not here: were the clock set back, it would be missed.
		x.forgotten = max(x.forgotten, r.until)
		return
	}
	// A key is there twice if it was taken again after it had expired, and the clock was set back since.
	if e := x.find(r.key, now); e != nil {
		if e.seq > r.seq {
			return
		}
		x.remove(r.key)
	}
	x.add(entry{key: r.key, owner: r.owner, until: r.until, seq: r.seq, committed: r.committed})
}
