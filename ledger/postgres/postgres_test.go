//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
	"github.com/stepward/stepward/ledger/postgres"
)

var numbered = ledgertest.Numbered

var schemas atomic.Int64

func newSchema() string { return fmt.Sprintf("ledger_%d_%d", os.Getpid(), schemas.Add(1)) }

// open opens a store that the test closes.
func open(t testing.TB, c postgres.Config) *postgres.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		s, err := postgres.Open(ctx, c)
		switch {
		case err == nil:
			t.Cleanup(func() { s.Close() })
			return s
		case ctx.Err() != nil || !strings.HasSuffix(err.Error(), "did not answer in time"): // on a machine that is busy
			t.Fatal(err)
		}
	}
}

func config(url, schema string, o ledger.Options) postgres.Config {
	return postgres.Config{URL: url, Schema: schema, Leeway: o.Leeway, Remember: o.Remember, Now: o.Now}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	t.Run("contract", func(t *testing.T) {
		ledgertest.RunRemote(t, func(t *testing.T, o ledger.Options) ledger.Store {
			c := config(p.URL, newSchema(), o)
			c.Timeout = 10 * time.Second // 64 racers on a busy machine
			return open(t, c)
		})
	})
	t.Run("faults", func(t *testing.T) {
		ledgertest.RunFaults(t, func(*testing.T) ledgertest.Remote {
			schema := newSchema()
			return ledgertest.Remote{
				Network: "tcp", Server: p.Addr,
				Open: func(t *testing.T, address string, o ledger.Options) ledger.Store {
					c := config(strings.Replace(p.URL, p.Addr, address, 1), schema, o)
					c.Timeout = 10 * time.Second // The suite sets the deadlines that it means.
					return open(t, c)
				},
			}
		})
	})
}

// file is one that holds a text.
func file(t *testing.T, text []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
