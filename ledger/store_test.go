package ledger_test

import (
	"path/filepath"
	"testing"

	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// stores are the kinds that this package makes.
var stores = []string{"memory", "bolt"}

func TestMemoryKeepsTheContract(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, o ledger.Options) ledger.Store {
		return open(t, "memory:", o)
	})
}

func TestBoltKeepsTheContract(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, o ledger.Options) ledger.Store {
		return open(t, "bolt:"+filepath.Join(t.TempDir(), "ledger.db"), o)
	})
}

func TestBoltKeepsTheContractOverARestart(t *testing.T) {
	ledgertest.RunDurable(t, func(t *testing.T) ledgertest.Durable {
		address := "bolt:" + filepath.Join(t.TempDir(), "ledger.db")
		var fail func(ledger.Fault)
		return ledgertest.Durable{
			Open: func(t *testing.T, o ledger.Options) ledger.Store {
				s := open(t, address, o)
				fail = ledger.Breakable(s.(*ledger.Bolt))
				return s
			},
			Fail: func(written bool) {
				if written {
					fail(ledger.FailsWritten)
				} else {
					fail(ledger.FailsUnwritten)
				}
			},
		}
	})
}

func open(t *testing.T, url string, o ledger.Options) ledger.Store {
	t.Helper()
	s, err := ledger.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var numbered = ledgertest.Numbered
