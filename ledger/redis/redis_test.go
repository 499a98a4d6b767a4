//go:build unix

package redis_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
	"github.com/stepward/stepward/ledger/redis"
)

var prefixes atomic.Int64

// newPrefix is an empty place on a server.
func newPrefix() string { return fmt.Sprintf("test%d", prefixes.Add(1)) }

// open opens a store that the test closes.
func open(t testing.TB, c redis.Config) *redis.Store {
	t.Helper()
	s, err := tryOpen(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t testing.TB, c redis.Config) (*redis.Store, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := redis.Open(ctx, c)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func config(addr, prefix string, o ledger.Options) redis.Config {
	return redis.Config{URL: "redis://" + addr, Prefix: prefix, Leeway: o.Leeway, Remember: o.Remember, Now: o.Now}
}

func TestContract(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	ledgertest.RunRemote(t, func(t *testing.T, o ledger.Options) ledger.Store {
		c := config(server.Addr, newPrefix(), o)
		c.Timeout = 10 * time.Second // 64 racers on a busy machine
		return open(t, c)
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	ledgertest.RunFaults(t, func(*testing.T) ledgertest.Remote {
		prefix := newPrefix()
		return ledgertest.Remote{
			Network: "tcp", Server: server.Addr,
			Open: func(t *testing.T, address string, o ledger.Options) ledger.Store {
				c := config(address, prefix, o)
				c.Timeout = time.Second // the suite brings its own deadlines
				return open(t, c)
			},
		}
	})
}
