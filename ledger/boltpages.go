package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// pages reads a bbolt file without trusting it. bbolt itself goes wherever a damaged page points: out of its mapping, in
// circles, into a list of 2^60 free pages, on goroutines whose panics nobody can recover. So it only gets to see a file
// that was walked here from end to end. The layout is that of bbolt's internal/common; numbers are in the machine's order.
type pages struct {
	file    io.ReaderAt
	meta    meta
	used    []bool   // by page number
	buffers [][]byte // one for each level of the tree
}

// meta is what a meta page says about the file.
type meta struct {
	pageSize  uint64
	pages     uint64 // how many the file must have
	committed uint64 // the transaction that wrote it
	root      uint64 // page of the bucket of buckets
	free      uint64 // page of the list of free pages, or noPage
}

// element is one entry of a page: a key with its value, or in a branch with the page of a child.
type element struct {
	key, value []byte
	bucket     bool
	child      uint64
}

const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	noPage        = ^uint64(0)
	pageHeaderLen = 16
	elementLen    = 16
	metaLen       = 64
	bucketLen     = 16 // a bucket's root page and sequence, before a page that may be inlined
	maxDepth      = 32

	branchPage = 0x01
	leafPage   = 0x02
	freePage   = 0x10
)

// openPages reads the meta pages. bbolt takes the older one where the newer one is bad, and so would forget the last
// commit, which may have answered requests. A crash leaves no bad one behind, because a meta page is 64 bytes in one sector
// of the disk; so a file with a bad one is damaged.
func openPages(file io.ReaderAt, size int64) (*pages, error) {
	first, err := readMeta(file, 0)
	if err != nil {
		return nil, err
	}
	second, err := readMeta(file, int64(first.pageSize))
	if err != nil {
		return nil, err
	}
	newest := first
	if second.committed > first.committed {
		newest = second
	}
	switch {
	case first.pageSize != second.pageSize || first.committed+1 != second.committed && second.committed+1 != first.committed:
		return nil, damaged("its two meta pages are not of one history")
	case newest.pages > uint64(size)/newest.pageSize:
		return nil, damaged("it has %d bytes and should have at least %d pages of %d", size, newest.pages, newest.pageSize)
	}
	p := &pages{file: file, meta: newest, used: make([]bool, newest.pages), buffers: make([][]byte, maxDepth)}
	return p, nil
}

func readMeta(file io.ReaderAt, at int64) (m meta, err error) {
	var page [pageHeaderLen + metaLen]byte
	switch _, err := file.ReadAt(page[:], at); {
	case errors.Is(err, io.EOF):
		return m, damaged("its meta page at byte %d is missing", at)
	case err != nil:
		return m, unreadable(err)
	}
	body, native := page[pageHeaderLen:], binary.NativeEndian
	if native.Uint32(body) != boltMagic {
		if at == 0 {
			return m, damaged("it does not begin like a ledger, or it is another kind of file")
		}
		return m, damaged("its meta page at byte %d is overwritten", at)
	}
	sum := fnv.New64a()
	sum.Write(body[:metaLen-8])
	if native.Uint64(body[metaLen-8:]) != sum.Sum64() {
		return m, damaged("its meta page at byte %d does not match its checksum", at)
	}
	m = meta{
		pageSize: uint64(native.Uint32(body[8:])), root: native.Uint64(body[16:]), free: native.Uint64(body[32:]),
		pages: native.Uint64(body[40:]), committed: native.Uint64(body[48:]),
	}
	if version := native.Uint32(body[4:]); version != boltVersion || m.pageSize < 1<<10 || m.pageSize > 1<<24 {
		return m, damaged("its meta page at byte %d is of version %d with pages of %d bytes", at, version, m.pageSize)
	}
	return m, nil
}

func unreadable(err error) error {
	return fmt.Errorf("cannot be read: %w: check the disk; if the file is lost, %s", err, remedy)
}

// take reads a page of the given kinds into the buffer of a level. No page may be taken twice.
func (p *pages) take(id uint64, kinds uint16, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return nil, damaged("page %d is %d levels deep", id, depth)
	}
	page, err := p.readAt(id, p.meta.pageSize, depth)
	if err != nil {
		return nil, err
	}
	number, kind := binary.NativeEndian.Uint64(page), binary.NativeEndian.Uint16(page[8:])
	if number != id || kind&kinds != kind || kind == 0 {
		return nil, damaged("page %d is marked as page %d of kind %#x", id, number, kind)
	}
	more := uint64(binary.NativeEndian.Uint32(page[12:])) // pages that continue this one
	if more >= p.meta.pages-id {
		return nil, damaged("page %d continues for %d pages", id, more)
	}
	for i := id; i <= id+more; i++ {
		if p.used[i] {
			return nil, damaged("page %d is used twice", i)
		}
		p.used[i] = true
	}
	if more == 0 {
		return page, nil
	}
	return p.readAt(id, (1+more)*p.meta.pageSize, depth)
}

func (p *pages) readAt(id, length uint64, depth int) ([]byte, error) {
	if id < 2 || id >= p.meta.pages {
		return nil, damaged("page %d is not one of its %d pages", id, p.meta.pages)
	}
	if uint64(cap(p.buffers[depth])) < length {
		p.buffers[depth] = make([]byte, length)
	}
	page := p.buffers[depth][:length]
	if _, err := p.file.ReadAt(page, int64(id*p.meta.pageSize)); err != nil {
		return nil, unreadable(err)
	}
	return page, nil
}

// elements is how many a branch or leaf page has.
func elements(page []byte) int { return int(binary.NativeEndian.Uint16(page[10:])) }

func isLeaf(page []byte) bool { return binary.NativeEndian.Uint16(page[8:]) == leafPage }

// elementAt is valid as long as the page is.
func elementAt(page []byte, i int) (e element, err error) {
	at := uint64(pageHeaderLen + i*elementLen)
	if at+elementLen > uint64(len(page)) {
		return e, damaged("a page has %d entries in %d bytes", elements(page), len(page))
	}
	head, native := page[at:], binary.NativeEndian
	var position, keyLen, valueLen uint64
	if isLeaf(page) {
		position, keyLen, valueLen = uint64(native.Uint32(head[4:])), uint64(native.Uint32(head[8:])), uint64(native.Uint32(head[12:]))
		flags := native.Uint32(head)
		if flags > 1 {
			return e, damaged("an entry has the flags %#x", flags)
		}
		e.bucket = flags == 1
	} else {
		position, keyLen, e.child = uint64(native.Uint32(head)), uint64(native.Uint32(head[4:])), native.Uint64(head[8:])
	}
	from := at + position
	if keyLen == 0 || from+keyLen+valueLen > uint64(len(page)) {
		return e, damaged("an entry of %d and %d bytes is not in its page", keyLen, valueLen)
	}
	e.key, e.value = page[from:from+keyLen], page[from+keyLen:from+keyLen+valueLen]
	return e, nil
}

// walk visits every entry below a page in order. All keys must lie in [from, to), where nil is no bound.
func (p *pages) walk(id uint64, depth int, from, to []byte, visit func(element) error) error {
	page, err := p.take(id, branchPage|leafPage, depth)
	if err != nil {
		return err
	}
	return p.walkPage(page, depth, from, to, visit)
}

func (p *pages) walkPage(page []byte, depth int, from, to []byte, visit func(element) error) error {
	if kind := binary.NativeEndian.Uint16(page[8:]); kind != leafPage && (kind != branchPage || elements(page) == 0) {
		return damaged("a page is of kind %#x with %d entries", kind, elements(page))
	}
	last := from
	for i := range elements(page) {
		e, err := elementAt(page, i)
		if err != nil {
			return err
		}
		// Only the first key may be equal to the bound, which is its own copy in the branch above.
		order := bytes.Compare(last, e.key)
		if order > 0 || order == 0 && i > 0 || to != nil && bytes.Compare(e.key, to) >= 0 {
			return damaged("key %x is out of order", e.key)
		}
		last = e.key
		if isLeaf(page) {
			err = visit(e)
		} else {
			err = p.walkChild(page, i, depth, e, to, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) walkChild(page []byte, i, depth int, e element, to []byte, visit func(element) error) error {
	if i+1 < elements(page) {
		next, err := elementAt(page, i+1)
		if err != nil {
			return err
		}
		to = next.key
	}
	return p.walk(e.child, depth+1, e.key, to, visit)
}

// walkBucket visits the entries of a bucket, given its description; a small bucket lies within that.
func (p *pages) walkBucket(bucket []byte, visit func(element) error) error {
	if len(bucket) < bucketLen {
		return damaged("a bucket is described in %d bytes", len(bucket))
	}
	if root := binary.NativeEndian.Uint64(bucket); root != 0 {
		return p.walk(root, 0, nil, nil, visit)
	}
	page := bucket[bucketLen:]
	if len(page) < pageHeaderLen || !isLeaf(page) {
		return damaged("a bucket has no page")
	}
	return p.walkPage(page, 0, nil, nil, visit)
}

// checkFree makes sure that no page which the tree uses is on the list of free ones, where there is a list.
func (p *pages) checkFree() error {
	if p.meta.free == noPage {
		return nil
	}
	page, err := p.take(p.meta.free, freePage, 0)
	if err != nil {
		return err
	}
	list, count := page[pageHeaderLen:], uint64(elements(page))
	if count == 0xFFFF { // More than fit into that field: the list begins with their number.
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if count > uint64(len(list))/8 {
		return damaged("it lists %d free pages in %d bytes", count, len(list))
	}
	for i := range count {
		id := binary.NativeEndian.Uint64(list[8*i:])
		if id < 2 || id >= p.meta.pages || p.used[id] {
			return damaged("page %d is listed as free", id)
		}
		p.used[id] = true
	}
	return nil
}
