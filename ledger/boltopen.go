package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// openBoltFile opens or makes the file and takes its lock. Whatever fails, no file is left that was not there before, and
// one that was there is not changed.
func openBoltFile(ctx context.Context, path string, wait time.Duration, now time.Time) (*boltFile, error) {
	handle, made, err := openLocked(ctx, path, wait)
	if err != nil {
		return nil, err
	}
	f, err := adopt(path, handle, now)
	if err != nil {
		if made {
			// Whoever waits for its lock sees that it is gone and makes another; the error that counts is err.
			_ = os.Remove(path)
		}
		handle.Close()
		return nil, err
	}
	return f, nil
}

func openLocked(ctx context.Context, path string, wait time.Duration) (handle *os.File, made bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		handle, made, err = openFile(path)
		if err != nil {
			return nil, false, err
		}
		err = lockFile(ctx, handle)
		if err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("is in use by %s: stop that one first (two processes cannot share a ledger file): %w",
					lockHolder(handle), err)
			} else if made {
				_ = os.Remove(path) // The file system has no locks, so nobody else holds it.
			}
			handle.Close()
			return nil, false, err
		}
		f := boltFile{path: path, handle: handle}
		if f.moved() == nil {
			return handle, made, nil
		}
		handle.Close() // Its maker failed and removed it while we waited.
	}
}

// openFile opens a regular file or makes one, and says in the operator's words why it cannot.
func openFile(path string) (handle *os.File, made bool, err error) {
	dir := filepath.Dir(path)
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		// Before opening: a pipe would wait for its other end for ever.
		if info.IsDir() {
			return nil, false, errors.New("is a directory: name a file in it, such as bolt:" + filepath.Join(path, "ledger.db"))
		}
		return nil, false, errors.New("is not a regular file: name one, or one that does not exist yet")
	}
	handle, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	made = err == nil
	if errors.Is(err, fs.ErrExist) {
		handle, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	switch {
	case err == nil:
		return handle, made, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("directory %s does not exist: create it, owned by the user who runs stepward", dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, false, fmt.Errorf("cannot be written: the user who runs stepward (id %d) needs to write the file and its "+
			"directory %s: %w", os.Getuid(), dir, err)
	case errors.Is(err, syscall.ENOTDIR):
		return nil, false, fmt.Errorf("%s is not a directory: name a file in one", dir)
	}
	return nil, false, err
}

// adopt checks the file and gives it to bbolt.
func adopt(path string, handle *os.File, now time.Time) (f *boltFile, err error) {
	defer faultsAsPanics()()
	defer recovered(&err)
	if err := checkPages(handle); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Nanosecond, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return handle, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	f = &boltFile{path: path, handle: handle, db: db, update: db.Update}
	if err := f.found(now); err != nil {
		_ = db.Close() // The first error counts.
		return nil, fmt.Errorf("write: %w", err)
	}
	return f, nil
}

// meta is the part of a bbolt meta page that tells whether the file is whole.
type meta struct {
	pageSize  uint32
	pages     uint64 // how many the file must have
	committed uint64 // the transaction that wrote it
}

const (
	metaOffset = 16 // after the page's own header
	metaLen    = 64
	boltMagic  = 0xED0CDAED
)

// checkPages finds what bbolt would panic on or pass over. bbolt takes the older meta page where the newer one is bad and
// so would forget the last commit, which may have answered requests; a file with one bad meta page is therefore damaged.
func checkPages(handle *os.File) error {
	info, err := handle.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil // A new one.
	}
	first, err := readMeta(handle, 0)
	if err != nil {
		return err
	}
	second, err := readMeta(handle, int64(first.pageSize))
	if err != nil {
		return err
	}
	newest := first
	if second.committed > first.committed {
		newest = second
	}
	switch need := newest.pages * uint64(newest.pageSize); {
	case first.pageSize != second.pageSize || first.committed+1 != second.committed && second.committed+1 != first.committed:
		return damaged("its two meta pages are not of one history")
	case uint64(info.Size()) < need:
		return damaged("it has %d bytes and should have at least %d", info.Size(), need)
	}
	return nil
}

func readMeta(handle *os.File, at int64) (m meta, err error) {
	var page [metaOffset + metaLen]byte
	if _, err := handle.ReadAt(page[:], at); err != nil {
		return m, damaged("its meta page at byte %d is missing", at)
	}
	body, native := page[metaOffset:], binary.NativeEndian
	if native.Uint32(body) != boltMagic {
		if at == 0 {
			return m, damaged("it does not begin like a ledger, or it is another kind of file")
		}
		return m, damaged("its meta page at byte %d is overwritten", at)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(body[:metaLen-8]) // A hash never fails.
	if native.Uint64(body[metaLen-8:]) != sum.Sum64() {
		return m, damaged("its meta page at byte %d does not match its checksum", at)
	}
	return meta{pageSize: native.Uint32(body[8:]), pages: native.Uint64(body[40:]), committed: native.Uint64(body[48:])}, nil
}

// faultsAsPanics makes reading past a mapped file recoverable on this goroutine until the returned func is called.
func faultsAsPanics() (restore func()) {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}
