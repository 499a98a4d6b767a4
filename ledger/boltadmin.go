package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// FileReport is what is in the file of a Bolt.
type FileReport struct {
	Bytes    int64     // on the disk
	Records  int64     // in the file, ones that are over included
	Live     int64     // still remembered
	Reserved int64     // live ones without an outcome: under way, or left by a process that was killed
	Began    time.Time // when the file's memory begins: tokens issued before are refused
	LastOver time.Time // when the last live one will be forgotten; zero without any
}

// InspectFile reads the file of a Bolt from end to end, as a start does, and changes nothing. It fails for a file that is
// damaged, missing, no ledger, or in use by a process, which then knows better.
func InspectFile(ctx context.Context, path string, now time.Time) (FileReport, error) {
	handle, err := openExisting(ctx, path)
	if err != nil {
		return FileReport{}, fmt.Errorf("ledger: %s: %w", path, err)
	}
	defer handle.Close()
	r, _, err := inspect(handle, now)
	if err != nil {
		return r, fmt.Errorf("ledger: %s: %w", path, err)
	}
	return r, nil
}

func inspect(handle *os.File, now time.Time) (FileReport, contents, error) {
	info, err := handle.Stat()
	if err != nil {
		return FileReport{}, contents{}, err
	}
	c, err := readLedger(handle, info.Size(), Nanos(now))
	if err != nil {
		return FileReport{}, c, err
	}
	r := FileReport{Bytes: info.Size(), Records: c.about.records, Live: int64(c.index.len())}
	if c.begun {
		r.Began = time.Unix(0, c.about.began)
	}
	var last int64
	for i := range c.index.entries.len {
		e := c.index.entries.at(i)
		if !e.committed {
			r.Reserved++
		}
		last = max(last, e.until)
	}
	if last > 0 {
		r.LastOver = time.Unix(0, last)
	}
	return r, c, nil
}

// openExisting is openLocked for a file that must be there, and it waits for nobody.
func openExisting(ctx context.Context, path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("is not there: a ledger makes its file at its first start")
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a file")
	}
	handle, _, err := openLocked(ctx, path, time.Millisecond)
	return handle, err
}

// CompactFile writes the file of a Bolt anew without the room that it no longer needs, and puts it in the old one's place in
// one step. It is not for a file in use. Whatever fails, the old file stays as it was.
func CompactFile(ctx context.Context, path string, now time.Time) (before, after FileReport, err error) {
	fail := func(err error) (FileReport, FileReport, error) {
		return before, FileReport{}, fmt.Errorf("ledger: %s: %w", path, err)
	}
	handle, err := openExisting(ctx, path)
	if err != nil {
		return fail(err)
	}
	before, old, err := inspect(handle, now)
	if err != nil || !old.begun {
		handle.Close()
		if err != nil {
			return fail(err)
		}
		return before, before, nil
	}
	file, _, err := adopt(path, handle, now)
	if err != nil {
		handle.Close()
		return fail(err)
	}
	defer func() { _ = file.close() }() // which holds the lock until the new file is in place
	spare := path + ".compact"
	if err = file.copyTo(spare); err == nil {
		after, err = checkCopy(spare, old, now)
	}
	if err == nil {
		err = os.Rename(spare, path)
	}
	if err != nil {
		_ = os.Remove(spare) // the error that counts is err
		return fail(err)
	}
	return before, after, syncDirectory(filepath.Dir(path))
}

// copyTo copies all records into a new file and syncs it.
func (f *boltFile) copyTo(path string) (err error) {
	defer faultsAsPanics()()
	defer recovered(&err)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	spare, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: time.Nanosecond})
	if err != nil {
		return fmt.Errorf("make a new file beside it: %w", err)
	}
	err = bbolt.Compact(spare, f.db, 1<<20)
	if err == nil {
		err = spare.Sync()
	}
	return errors.Join(err, spare.Close())
}

// checkCopy reads the new file as a start would and compares it with what the old one held.
func checkCopy(path string, old contents, now time.Time) (FileReport, error) {
	f, err := os.Open(path)
	if err != nil {
		return FileReport{}, err
	}
	defer f.Close()
	r, c, err := inspect(f, now)
	if err != nil {
		return r, err
	}
	if c.about != old.about || c.index.len() != old.index.len() || c.newest != old.newest {
		return r, errors.New("the copy is not the same: the old file stays in place")
	}
	return r, nil
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
