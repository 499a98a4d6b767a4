package ledger

import (
	"context"
	"errors"
	"fmt"
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
func openBoltFile(ctx context.Context, path string, wait time.Duration, now time.Time) (*boltFile, contents, error) {
	handle, made, err := openLocked(ctx, path, wait)
	if err != nil {
		return nil, contents{}, err
	}
	f, c, err := adopt(path, handle, now)
	if err != nil {
		if made {
			// Whoever waits for its lock sees that it is gone and makes another; the error that counts is err.
			_ = os.Remove(path)
		}
		handle.Close()
		return nil, c, err
	}
	return f, c, nil
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
				err = fmt.Errorf("is in use by %s (%w): two processes cannot share a ledger file, so stop that one first",
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
	exists := errors.Is(err, fs.ErrExist)
	if exists {
		handle, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	switch {
	case err == nil:
		return handle, made, nil
	case exists && errors.Is(err, fs.ErrNotExist):
		return nil, false, errors.New("is a symbolic link that leads nowhere: remove it")
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

// adopt reads the whole file and then gives it to bbolt.
func adopt(path string, handle *os.File, now time.Time) (f *boltFile, c contents, err error) {
	info, err := handle.Stat()
	if err != nil {
		return nil, c, err
	}
	if c, err = readLedger(handle, info.Size(), Nanos(now)); err != nil {
		return nil, c, err
	}
	defer faultsAsPanics()()
	defer recovered(&err)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		// The list of free pages is made anew at each start: written with every commit, it would cost a page each time, and
		// hundreds once a burst of tokens has expired.
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		Timeout: time.Nanosecond, NoStatistics: true,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return handle, nil },
	})
	if err != nil {
		return nil, c, fmt.Errorf("open: %w", err)
	}
	f = &boltFile{path: path, handle: handle, db: db, update: db.Update, about: c.about}
	if !c.begun {
		if err := f.begin(now); err != nil {
			_ = db.Close() // The first error counts.
			return nil, c, fmt.Errorf("write: %w", err)
		}
	}
	return f, c, nil
}

// faultsAsPanics makes reading past a mapped file recoverable on this goroutine until the returned func is called.
func faultsAsPanics() (restore func()) {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}
