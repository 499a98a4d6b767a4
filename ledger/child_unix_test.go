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
	childPath    = "STEPWARD_LEDGER_CHILD_PATH"
	childFrom    = "STEPWARD_LEDGER_CHILD_FROM"    // the number of its first key
	childClients = "STEPWARD_LEDGER_CHILD_CLIENTS" // 16 if not set
	childKeys    = "STEPWARD_LEDGER_CHILD_KEYS"    // it ends after so many
	childLimit   = "STEPWARD_LEDGER_CHILD_LIMIT"   // of the size of its files
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		if err := spend(path, setting(childFrom, 0), setting(childClients, 16), setting(childKeys, 1<<30)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func setting(name string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// spend reserves numbered keys, commits every other one, and prints each number once the store has answered.
func spend(path string, first, clients, keys int64) error {
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
	ended := make(chan error)
	for range clients {
		go func() {
			for n := next.Add(1); n <= first+keys; n = next.Add(1) {
				now := time.Now()
				c := ledger.Claim{Key: numbered(uint64(n)), Owner: ledger.NewOwner(), IssuedAt: now, Until: now.Add(time.Hour)}
				err := b.Reserve(context.Background(), c)
				if err == nil && n%2 == 0 {
					err = b.Commit(context.Background(), c.Key, c.Owner)
				}
				if err != nil {
					ended <- err
					return
				}
				fmt.Println(n)
			}
			ended <- nil
		}()
	}
	for range clients {
		if err := <-ended; err != nil {
			return err
		}
	}
	return b.Close()
}
