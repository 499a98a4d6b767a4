package ledger_test

import (
	"encoding/binary"
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

// numbered is a key that looks as random as a hash.
func numbered(n uint64) (k ledger.Key) {
	for i := range 4 {
		n += 0x9e3779b97f4a7c15
		z := (n ^ n>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(k[8*i:], z^z>>31)
	}
	return k
}
