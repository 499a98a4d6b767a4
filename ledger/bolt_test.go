package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// boltBench is one ledger file that can be opened again and again, with a clock that stands.
type boltBench struct {
	*testing.T
	path  string
	clock *ledgertest.Clock
}

// newBoltBench makes a ledger whose memory began an hour ago.
func newBoltBench(t *testing.T) (*boltBench, *ledger.Bolt) {
	bb := &boltBench{t, filepath.Join(t.TempDir(), "ledger.db"), ledgertest.NewClock()}
	b := bb.open()
	bb.clock.Add(time.Hour)
	return bb, b
}

func (bb *boltBench) open() *ledger.Bolt {
	bb.Helper()
	b, err := ledger.NewBolt(bb.Context(), ledger.BoltConfig{
		Path: bb.path, Capacity: 10_000, Leeway: 10 * time.Second, Now: bb.clock.Now,
	})
	if err != nil {
		bb.Fatal(err)
	}
	bb.Cleanup(func() { b.Close() })
	return b
}

func (bb *boltBench) close(b *ledger.Bolt) {
	bb.Helper()
	if err := b.Close(); err != nil {
		bb.Fatalf("close: %v", err)
	}
}

func (bb *boltBench) claim(n int) ledger.Claim {
	return ledger.Claim{
		Key: numbered(uint64(n)), Owner: ledger.NewOwner(),
		IssuedAt: bb.clock.Now(), Until: bb.clock.Now().Add(5 * time.Minute),
	}
}

func (bb *boltBench) reserve(b *ledger.Bolt, what string, c ledger.Claim, want error) {
	bb.Helper()
	if err := b.Reserve(context.Background(), c); !errors.Is(err, want) {
		bb.Errorf("reserve %s: got %v, want %v", what, err, want)
	}
}

func TestBoltRemembersOverARestart(t *testing.T) {
	bb, b := newBoltBench(t)
	reserved, committed, released := bb.claim(1), bb.claim(2), bb.claim(3)
	for _, c := range []ledger.Claim{reserved, committed, released} {
		bb.reserve(b, "it", c, nil)
	}
	b.Commit(t.Context(), committed.Key, committed.Owner)
	b.Release(t.Context(), released.Key, released.Owner)
	bb.close(b)

	b = bb.open()
	if s, err := b.Stats(t.Context()); err != nil || s.Entries != 2 {
		t.Errorf("stats: got %+v, %v, want 2 entries", s, err)
	}
	bb.reserve(b, "the reserved key", bb.claim(1), ledger.ErrReserved)
	bb.reserve(b, "the committed key", bb.claim(2), ledger.ErrConsumed)
	bb.reserve(b, "the released key", bb.claim(3), nil)
	if err := b.Commit(t.Context(), reserved.Key, reserved.Owner); err != nil {
		t.Errorf("commit by the owner of before: %v", err)
	}
	bb.reserve(b, "a token issued before the restart", bb.claim(4), nil)
	bb.close(b)

	bb.clock.Add(5 * time.Minute)
	b = bb.open()
	bb.reserve(b, "the committed key at Until", bb.claim(2), nil)
}

func TestBoltKeepsItsFenceOverARestart(t *testing.T) {
	bb, b := newBoltBench(t)
	bb.close(b)
	b = bb.open()
	c := bb.claim(1)
	c.IssuedAt = bb.clock.Now().Add(-time.Hour)
	bb.reserve(b, "a token from before the file", c, ledger.ErrFenced)
	c.IssuedAt = bb.clock.Now().Add(-time.Minute)
	bb.reserve(b, "a token from before the restart", c, nil)
}

func TestALostBoltFileFencesWhatItKnew(t *testing.T) {
	bb, b := newBoltBench(t)
	c := bb.claim(1)
	bb.reserve(b, "it", c, nil)
	bb.close(b)
	if err := os.Remove(bb.path); err != nil {
		t.Fatal(err)
	}
	b = bb.open()
	bb.reserve(b, "after the file was lost", c, ledger.ErrFenced)
}

func TestBoltSweepsItsFile(t *testing.T) {
	bb, b := newBoltBench(t)
	for i := range 300 {
		bb.reserve(b, "one of many", bb.claim(i), nil)
	}
	long := bb.claim(1000)
	long.Until = bb.clock.Now().Add(time.Hour)
	bb.reserve(b, "a long one", long, nil)
	bb.clock.Add(10 * time.Minute)
	// Each commit takes along some expired records, so no timer is needed to see them go.
	for i := 0; ledger.Records(b) > 32; i++ {
		if i == 40 {
			t.Fatalf("got %d records, want the expired ones gone", ledger.Records(b))
		}
		bb.reserve(b, "a new one", bb.claim(2000+i), nil)
	}
	bb.reserve(b, "the long one", long, ledger.ErrReserved)
	bb.close(b)

	b = bb.open()
	bb.reserve(b, "the long one after a restart", long, ledger.ErrReserved)
	bb.clock.Add(-10 * time.Minute)
	if err := b.Reserve(t.Context(), bb.claim(1)); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("reserve of a swept key with the clock set back: got %v, want ErrFenced", err)
	}
}

func TestTheSweepNeedsNoRequests(t *testing.T) {
	bb, b := newBoltBench(t)
	for i := range 40 {
		bb.reserve(b, "one of many", bb.claim(i), nil)
	}
	bb.clock.Add(10 * time.Minute)
	for deadline := time.Now().Add(10 * time.Second); ledger.Records(b) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %d records, want none", ledger.Records(b))
		}
	}
}

func TestAReserveIsWithdrawnUntilItsWriteBegins(t *testing.T) {
	bb, b := newBoltBench(t)
	begun, release := ledger.HoldWrites(b)
	writing, waiting := bb.claim(1), bb.claim(2)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() { answer <- b.Reserve(ctx, writing) }()
	<-begun

	late, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer end()
	if err := b.Reserve(late, waiting); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("a reserve that only waited: got %v, want ErrUnavailable", err)
	}
	cancel()
	if err := <-answer; !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("a reserve that was being written: got %v, want ErrUnknown", err)
	}
	close(release)
	bb.reserve(b, "what was withdrawn", waiting, nil)
	bb.reserve(b, "what was unknown", bb.claim(1), ledger.ErrReserved)
	bb.close(b)
	b = bb.open()
	bb.reserve(b, "what was unknown, after a restart", bb.claim(1), ledger.ErrReserved)
}

func TestAFailedWriteBreaksTheStore(t *testing.T) {
	for _, row := range []struct {
		name    string
		fault   ledger.Fault
		cause   string
		retried error // what a new process answers to a retry of the failed reserve
	}{
		{"nothing was written", ledger.FailsUnwritten, "input/output error", nil},
		{"the write failed but was persisted", ledger.FailsWritten, "input/output error", ledger.ErrReserved},
		{"bbolt panics", ledger.Panics, "page 7", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			bb, b := newBoltBench(t)
			bb.reserve(b, "before", bb.claim(1), nil)
			ledger.BreakWrites(b, row.fault)
			bb.reserve(b, "while it fails", bb.claim(2), ledger.ErrUnknown)
			bb.reserve(b, "after", bb.claim(3), ledger.ErrUnavailable)
			if err := b.Commit(t.Context(), numbered(1), ledger.NewOwner()); !errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("commit: got %v, want ErrUnavailable", err)
			}
			_, err := b.Stats(t.Context())
			if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), row.cause) {
				t.Errorf("stats: got %v, want ErrUnavailable and %q", err, row.cause)
			}
			if err := b.Close(); err == nil || !strings.Contains(err.Error(), row.cause) {
				t.Errorf("close: got %v, want %q", err, row.cause)
			}

			b = bb.open()
			bb.reserve(b, "before, after a restart", bb.claim(1), ledger.ErrReserved)
			bb.reserve(b, "the failed one, after a restart", bb.claim(2), row.retried)
		})
	}
}

func TestThoseWhoWaitBehindAFailedWriteLoseNothing(t *testing.T) {
	bb, b := newBoltBench(t)
	begun, release := ledger.HoldWrites(b)
	ledger.BreakWrites(b, ledger.FailsUnwritten)
	first, second := make(chan error), make(chan error)
	go func() { first <- b.Reserve(context.Background(), bb.claim(1)) }()
	<-begun
	go func() { second <- b.Reserve(context.Background(), bb.claim(2)) }()
	for entries := int64(0); entries < 2; time.Sleep(time.Millisecond) {
		s, err := b.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		entries = s.Entries
	}
	close(release)
	if err := <-first; !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("the one in the write: got %v, want ErrUnknown", err)
	}
	if err := <-second; !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("the one behind it: got %v, want ErrUnavailable", err)
	}
}

func TestAFileThatIsTakenAwayBreaksTheStore(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			bb, b := newBoltBench(t)
			if err := take(bb.path); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				_, err := b.Stats(t.Context())
				if err != nil && strings.Contains(err.Error(), "restart stepward") {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("got %v, want an error that says restart", err)
				}
			}
		})
	}
}

func TestCloseAnswersThoseWhoWait(t *testing.T) {
	bb, b := newBoltBench(t)
	begun, release := ledger.HoldWrites(b)
	answers := make(chan error, 10)
	for i := range 10 {
		go func() { answers <- b.Reserve(context.Background(), bb.claim(i)) }()
	}
	<-begun
	closed := make(chan error)
	go func() { closed <- b.Close() }()
	close(release)
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	won := 0
	for range 10 {
		switch err := <-answers; {
		case err == nil:
			won++
		case !errors.Is(err, ledger.ErrUnavailable):
			t.Errorf("got %v, want nil or ErrUnavailable", err)
		}
	}
	b = bb.open()
	if s, err := b.Stats(t.Context()); err != nil || s.Entries != int64(won) {
		t.Errorf("got %+v, %v, want the %d that were granted", s, err, won)
	}
}

func TestTheFileIsPrivate(t *testing.T) {
	bb, _ := newBoltBench(t)
	info, err := os.Stat(bb.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
}

func TestAnUnusablePathIsExplained(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Mkdir(filepath.Join(dir, "shut"), 0o500)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, path, want string }{
		{"a missing directory", filepath.Join(dir, "none/l.db"), "directory " + filepath.Join(dir, "none") + " does not exist: create it"},
		{"a directory", dir, "is a directory: name a file in it, such as bolt:" + filepath.Join(dir, "ledger.db")},
		{"a file for a directory", filepath.Join(file, "l.db"), "is not a directory"},
		{"a device", os.DevNull, "is not a regular file"},
		{"a directory that cannot be written", filepath.Join(dir, "shut/l.db"), "cannot be written"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if strings.Contains(row.path, "shut") && os.Getuid() == 0 {
				row.path = "/proc/ledger.db" // Root may write anywhere else.
				row.want = "directory /proc does not exist"
			}
			b, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: row.path, Capacity: 1})
			if err == nil {
				b.Close()
			}
			if got := fmt.Sprint(err); !strings.Contains(got, row.want) || !strings.HasPrefix(got, "ledger: "+row.path+": ") {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
