package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// boltBench is one ledger file that can be opened again and again, with a clock that stands.
type boltBench struct {
	testing.TB
	path  string
	clock *ledgertest.Clock
}

// newBoltBench makes a ledger whose memory began an hour ago.
func newBoltBench(t testing.TB) (*boltBench, *ledger.Bolt) {
	bb := &boltBench{t, filepath.Join(t.TempDir(), "ledger.db"), ledgertest.NewClock()}
	b := bb.open()
	bb.clock.Add(time.Hour)
	return bb, b
}

// boltTest runs a test in a bubble, where the store's timer only fires while the test sleeps, and sleeping takes no time. The
// bubble fails the test if a goroutine outlives it.
func boltTest(t *testing.T, test func(bb *boltBench, b *ledger.Bolt)) {
	synctest.Test(t, func(t *testing.T) {
		bb, b := newBoltBench(t)
		test(bb, b)
	})
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

func (bb *boltBench) reopen(b *ledger.Bolt) *ledger.Bolt {
	bb.Helper()
	bb.close(b)
	return bb.open()
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

func (bb *boltBench) entries(b *ledger.Bolt, want int64) {
	bb.Helper()
	if s, err := b.Stats(context.Background()); err != nil || s.Entries != want {
		bb.Errorf("stats: got %+v, %v, want %d entries", s, err, want)
	}
}

func TestBoltRemembersOverARestart(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		reserved, committed, released := bb.claim(1), bb.claim(2), bb.claim(3)
		for _, c := range []ledger.Claim{reserved, committed, released} {
			bb.reserve(b, "it", c, nil)
		}
		b.Commit(bb.Context(), committed.Key, committed.Owner)
		b.Release(bb.Context(), released.Key, released.Owner)

		b = bb.reopen(b)
		bb.entries(b, 2)
		bb.reserve(b, "the reserved key", bb.claim(1), ledger.ErrReserved)
		bb.reserve(b, "the committed key", bb.claim(2), ledger.ErrConsumed)
		bb.reserve(b, "the released key", bb.claim(3), nil)
		if err := b.Commit(bb.Context(), reserved.Key, reserved.Owner); err != nil {
			bb.Errorf("commit by the owner of before: %v", err)
		}
		bb.reserve(b, "a token issued before the restart", bb.claim(4), nil)

		bb.clock.Add(5*time.Minute - 1)
		b = bb.reopen(b)
		late := bb.claim(2)
		late.Until = late.Until.Add(time.Hour)
		bb.reserve(b, "the committed key a nanosecond before Until", late, ledger.ErrConsumed)
		bb.clock.Add(1)
		b = bb.reopen(b)
		bb.reserve(b, "the committed key at Until", bb.claim(2), nil)
	})
}

func TestBoltKeepsItsFenceOverARestart(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		b = bb.reopen(b)
		c := bb.claim(1)
		c.IssuedAt = bb.clock.Now().Add(-time.Hour)
		bb.reserve(b, "a token from before the file", c, ledger.ErrFenced)
		c.IssuedAt = bb.clock.Now().Add(-time.Minute)
		bb.reserve(b, "a token from before the restart", c, nil)
	})
}

func TestALostBoltFileFencesWhatItKnew(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed":   os.Remove,
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"moved off": func(path string) error { return os.Rename(path, path+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
				c := bb.claim(1)
				bb.reserve(b, "it", c, nil)
				bb.close(b)
				if err := lose(bb.path); err != nil {
					bb.Fatal(err)
				}
				bb.reserve(bb.open(), "after the file was lost", c, ledger.ErrFenced)
			})
		})
	}
}

func TestMoreThanCapacityIsNotForgottenAtAStart(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		for n := range 10 {
			bb.reserve(b, "it", bb.claim(n), nil)
		}
		bb.close(b)
		b, err := ledger.NewBolt(bb.Context(), ledger.BoltConfig{Path: bb.path, Capacity: 5, Now: bb.clock.Now})
		if err != nil {
			bb.Fatal(err)
		}
		defer b.Close()
		for n := range 10 {
			bb.reserve(b, "what is held", bb.claim(n), ledger.ErrReserved)
		}
		bb.reserve(b, "one more", bb.claim(10), ledger.ErrFull)
		bb.clock.Add(5 * time.Minute)
		bb.reserve(b, "one more when all have expired", bb.claim(10), nil)
	})
}

// TestAClockThatWasAheadAtAStartBringsNothingBack restarts the store while the clock is wrong.
func TestAClockThatWasAheadAtAStartBringsNothingBack(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		c := bb.claim(1)
		bb.reserve(b, "it", c, nil)
		bb.clock.Add(6 * time.Minute)
		b = bb.reopen(b)
		bb.entries(b, 0)
		bb.clock.Add(-6 * time.Minute)
		bb.reserve(b, "it with the clock set back", c, ledger.ErrFenced)
		b = bb.reopen(b)
		bb.reserve(b, "it after another restart", c, ledger.ErrReserved)
	})
}

func TestAClockThatWasNeverSetSweepsNothing(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		c := bb.claim(1)
		bb.reserve(b, "it", c, nil)
		now := bb.clock.Now()
		bb.clock.Add(time.Unix(-1e6, 0).Sub(now))
		bb.reserve(b, "another, in 1969", bb.claim(2), ledger.ErrFenced)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		bb.clock.Add(now.Sub(bb.clock.Now()))
		b = bb.reopen(b)
		bb.reserve(b, "it when the clock is set", c, ledger.ErrReserved)
	})
}

func TestBoltSweepsItsFile(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
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
				bb.Fatalf("got %d records, want the expired ones gone", ledger.Records(b))
			}
			bb.reserve(b, "a new one", bb.claim(2000+i), nil)
		}
		bb.reserve(b, "the long one", long, ledger.ErrReserved)

		b = bb.reopen(b)
		bb.reserve(b, "the long one after a restart", long, ledger.ErrReserved)
		bb.clock.Add(-10 * time.Minute)
		bb.reserve(b, "a swept key with the clock set back", bb.claim(1), ledger.ErrFenced)
	})
}

func TestTheSweepNeedsNoRequests(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		for i := range 40 {
			bb.reserve(b, "one of many", bb.claim(i), nil)
		}
		bb.clock.Add(10 * time.Minute)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := ledger.Records(b); n != 0 {
			bb.Errorf("got %d records after a second, want none", n)
		}
	})
}

// TestBookkeepingNeedsNoRequests: a commit that nobody waits for reaches the file with the timer.
func TestBookkeepingNeedsNoRequests(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		c := bb.claim(1)
		bb.reserve(b, "it", c, nil)
		if err := b.Commit(bb.Context(), c.Key, c.Owner); err != nil {
			bb.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		ledger.BreakWrites(b, ledger.FailsUnwritten) // The last write, at Close, does not save it.
		b.Close()
		bb.reserve(bb.open(), "it after a restart", c, ledger.ErrConsumed)
	})
}

func TestNothingIsGrantedBeforeItIsOnTheDisk(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		if !ledger.Syncs(b) {
			bb.Error("bbolt is told not to fsync")
		}
		begun, release := ledger.HoldWrites(b)
		answer := make(chan error, 1)
		go func() { answer <- b.Reserve(context.Background(), bb.claim(1)) }()
		<-begun
		synctest.Wait()
		select {
		case err := <-answer:
			bb.Errorf("got the answer %v while the disk was at work", err)
		default:
		}
		close(release)
		if err := <-answer; err != nil {
			bb.Errorf("got %v, want nil when the disk was done", err)
		}
	})
}

func TestAReserveIsWithdrawnUntilItsWriteBegins(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		begun, release := ledger.HoldWrites(b)
		writing, waiting := bb.claim(1), bb.claim(2)
		ctx, cancel := context.WithCancel(bb.Context())
		answer := make(chan error)
		go func() { answer <- b.Reserve(ctx, writing) }()
		<-begun

		late, end := context.WithTimeout(bb.Context(), 10*time.Millisecond)
		defer end()
		if err := b.Reserve(late, waiting); !errors.Is(err, ledger.ErrUnavailable) {
			bb.Errorf("a reserve that only waited: got %v, want ErrUnavailable", err)
		}
		cancel()
		if err := <-answer; !errors.Is(err, ledger.ErrUnknown) {
			bb.Errorf("a reserve that was being written: got %v, want ErrUnknown", err)
		}
		close(release)
		bb.reserve(b, "what was withdrawn", waiting, nil)
		bb.reserve(b, "what was unknown", bb.claim(1), ledger.ErrReserved)
		b = bb.reopen(b)
		bb.reserve(b, "what was withdrawn and taken again, after a restart", waiting, ledger.ErrReserved)
		bb.reserve(b, "what was unknown, after a restart", bb.claim(1), ledger.ErrReserved)
	})
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
			boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
				bb.reserve(b, "before", bb.claim(1), nil)
				ledger.BreakWrites(b, row.fault)
				bb.reserve(b, "while it fails", bb.claim(2), ledger.ErrUnknown)
				bb.reserve(b, "after", bb.claim(3), ledger.ErrUnavailable)
				if err := b.Commit(bb.Context(), numbered(1), ledger.NewOwner()); !errors.Is(err, ledger.ErrUnavailable) {
					bb.Errorf("commit: got %v, want ErrUnavailable", err)
				}
				_, err := b.Stats(bb.Context())
				if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), row.cause) {
					bb.Errorf("stats: got %v, want ErrUnavailable and %q", err, row.cause)
				}
				if err := b.Close(); err == nil || !strings.Contains(err.Error(), row.cause) {
					bb.Errorf("close: got %v, want %q", err, row.cause)
				}

				b = bb.open()
				bb.reserve(b, "before, after a restart", bb.claim(1), ledger.ErrReserved)
				bb.reserve(b, "the failed one, after a restart", bb.claim(2), row.retried)
			})
		})
	}
}

func TestThoseWhoWaitBehindAFailedWriteLoseNothing(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		begun, release := ledger.HoldWrites(b)
		ledger.BreakWrites(b, ledger.FailsUnwritten)
		first, second := make(chan error), make(chan error)
		go func() { first <- b.Reserve(context.Background(), bb.claim(1)) }()
		<-begun
		go func() { second <- b.Reserve(context.Background(), bb.claim(2)) }()
		synctest.Wait()
		close(release)
		if err := <-first; !errors.Is(err, ledger.ErrUnknown) {
			bb.Errorf("the one in the write: got %v, want ErrUnknown", err)
		}
		if err := <-second; !errors.Is(err, ledger.ErrUnavailable) {
			bb.Errorf("the one behind it: got %v, want ErrUnavailable", err)
		}
	})
}

func TestAFileThatIsTakenAwayBreaksTheStore(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
				if err := take(bb.path); err != nil {
					bb.Fatal(err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				_, err := b.Stats(bb.Context())
				if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "back and restart stepward") {
					bb.Errorf("stats after a second: got %v, want ErrUnavailable and what to do", err)
				}
				bb.reserve(b, "after a second", bb.claim(1), ledger.ErrUnavailable)
			})
		})
	}
}

func TestCloseAnswersThoseWhoWait(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		begun, release := ledger.HoldWrites(b)
		answers := make(chan error, 10)
		reserve := func(n int) { answers <- b.Reserve(context.Background(), bb.claim(n)) }
		go reserve(0)
		<-begun
		for n := 1; n < 10; n++ {
			go reserve(n)
		}
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- b.Close() }()
		synctest.Wait()
		bb.reserve(b, "while it closes", bb.claim(10), ledger.ErrUnavailable)
		close(release)
		if err := <-closed; err != nil {
			bb.Errorf("close: %v", err)
		}
		for range 10 {
			if err := <-answers; err != nil {
				bb.Errorf("one who waited: got %v, want nil", err)
			}
		}
		bb.entries(bb.open(), 10)
	})
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
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	err := errors.Join(
		os.WriteFile(file, []byte("x"), 0o600), os.Mkdir(filepath.Join(dir, "shut"), 0o500), os.Symlink("nowhere", link),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, path, want string }{
		{"a missing directory", filepath.Join(dir, "none/l.db"), "directory " + filepath.Join(dir, "none") + " does not exist: create it"},
		{"a directory", dir, "is a directory: name a file in it, such as bolt:" + filepath.Join(dir, "ledger.db")},
		{"a file for a directory", filepath.Join(file, "l.db"), "is not a directory"},
		{"a device", os.DevNull, "is not a regular file"},
		{"a link that leads nowhere", link, "is a symbolic link that leads nowhere: remove it"},
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
