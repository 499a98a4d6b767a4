//go:build unix

package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
)

// TestWhatWasGrantedSurvivesKill kills a process at random moments, with and without a commit after each reserve. What it
// had been granted stays spent. (The kernel survives here; TestEveryGrantIsSynced is about a power cut.)
func TestWhatWasGrantedSurvivesKill(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	granted := map[int64]bool{}
	for round := range rounds {
		child, out := startChild(t, path, fmt.Sprint(int64(round)<<32))
		// From within the first batch on to some hundred batches later: the process goes on while we read.
		var printed []byte
		for range rand.IntN(1500) {
			line, err := out.ReadBytes('\n')
			if err != nil {
				t.Fatal(err)
			}
			printed = append(printed, line...)
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		printed = append(printed, rest...)
		_ = child.Wait()                              // It was killed.
		lines := strings.Split(string(printed), "\n") // The last one may be cut off, so it does not count.
		for _, line := range lines[:len(lines)-1] {
			n, err := strconv.ParseInt(line, 10, 64)
			if err != nil {
				t.Fatalf("child: %v", err)
			}
			granted[n] = true
		}
		spentAll(t, path, granted)
	}
	t.Logf("%d keys were granted in %d rounds", len(granted), rounds)
	if len(granted) == 0 {
		t.Error("got no granted key, want some")
	}
}

func spentAll(t *testing.T, path string, granted map[int64]bool) {
	t.Helper()
	b, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: path, Capacity: 1 << 30})
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	defer b.Close()
	for n := range granted {
		now := time.Now()
		c := ledger.Claim{Key: numbered(uint64(n)), Owner: ledger.NewOwner(), IssuedAt: now, Until: now.Add(time.Hour)}
		err := b.Reserve(context.Background(), c)
		if !errors.Is(err, ledger.ErrReserved) && !errors.Is(err, ledger.ErrConsumed) {
			t.Fatalf("key %d was granted and is forgotten: got %v", n, err)
		}
	}
}

// startChild runs this program as another process that has the ledger open, and returns what it prints from then on.
func startChild(t *testing.T, path, from string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childPath+"="+path, childFrom+"="+from)
	child.Stderr = os.Stderr
	pipe, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill() })
	out := bufio.NewReader(pipe)
	if line, err := out.ReadString('\n'); line != "open\n" {
		t.Fatalf("child: got %q, %v, want it to open the ledger", line, err)
	}
	return child, out
}

func TestTheProcessThatHoldsTheFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	child, out := startChild(t, path, "0")
	go io.Copy(io.Discard, out)
	_, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: path, Capacity: 1, LockWait: 50 * time.Millisecond})
	holder := "another process"
	if _, err := os.Stat("/proc/locks"); err == nil {
		holder = fmt.Sprintf("process %d (", child.Process.Pid)
	}
	if got := fmt.Sprint(err); !strings.Contains(got, "is in use by "+holder) || !strings.Contains(got, "so stop that one first") {
		t.Errorf("got %q, want %q named and what to do", got, holder)
	}

	// The lock ends with the process, however that ends.
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	b, err := ledger.NewBolt(t.Context(), ledger.BoltConfig{Path: path, Capacity: 1, LockWait: time.Minute})
	if err != nil {
		t.Fatalf("open after the other ended: %v", err)
	}
	b.Close()
	_ = child.Wait() // It was killed.
}

// TestASuccessorWaitsForTheFile: during a restart the new process may be there before the old one has gone.
func TestASuccessorWaitsForTheFile(t *testing.T) {
	boltTest(t, func(bb *boltBench, b *ledger.Bolt) {
		c := bb.claim(1)
		bb.reserve(b, "it", c, nil)
		opened := make(chan *ledger.Bolt)
		go func() { opened <- bb.open() }()
		time.Sleep(4 * time.Second)
		bb.close(b)
		bb.reserve(<-opened, "it at the successor", c, ledger.ErrReserved)
	})
}

func TestWaitingForTheFileEnds(t *testing.T) {
	boltTest(t, func(bb *boltBench, _ *ledger.Bolt) {
		for _, row := range []struct{ context, wait, want time.Duration }{
			{time.Hour, 0, 5 * time.Second},
			{time.Hour, time.Minute, time.Minute},
			{time.Second, 0, time.Second},
		} {
			ctx, cancel := context.WithTimeout(bb.Context(), row.context)
			start := time.Now()
			_, err := ledger.NewBolt(ctx, ledger.BoltConfig{Path: bb.path, Capacity: 1, LockWait: row.wait})
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != row.want {
				bb.Errorf("got %v after %v, want the context's error after %v", err, took, row.want)
			}
			cancel()
		}
	})
}
