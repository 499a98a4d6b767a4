//go:build unix

package ledger_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
)

// The test program runs itself as another process when these are set.
const (
	childPath  = "STEPWARD_LEDGER_CHILD_PATH"
	childFrom  = "STEPWARD_LEDGER_CHILD_FROM"
	childLimit = "STEPWARD_LEDGER_CHILD_LIMIT"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		if err := spendForEver(path, os.Getenv(childFrom)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// spendForEver reserves numbered keys, commits every other one, and prints each number once the store has answered.
func spendForEver(path, from string) error {
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return err
	}
	if err := limitFiles(os.Getenv(childLimit)); err != nil {
		return err
	}
	b, err := ledger.NewBolt(context.Background(), ledger.BoltConfig{Path: path, Capacity: 1 << 30})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var next atomic.Int64
	next.Store(first)
	failed := make(chan error)
	for range 16 {
		go func() {
			for {
				n := next.Add(1)
				now := time.Now()
				c := ledger.Claim{Key: numbered(uint64(n)), Owner: ledger.NewOwner(), IssuedAt: now, Until: now.Add(time.Hour)}
				err := b.Reserve(context.Background(), c)
				if err == nil && n%2 == 0 {
					err = b.Commit(context.Background(), c.Key, c.Owner)
				}
				if err != nil {
					failed <- err
					return
				}
				fmt.Println(n)
			}
		}()
	}
	return <-failed
}
