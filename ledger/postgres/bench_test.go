//go:build unix

package postgres_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/postgres"
)

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

// BenchmarkReserve spends tokens that expire at a second within the next five minutes, and commits each, as the one of the
// package bench/ledger does.
func BenchmarkReserve(b *testing.B) {
	p := testkit.StartPostgres(b)
	for _, clients := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("postgres/%d", clients), func(b *testing.B) {
			s := open(b, postgres.Config{
				URL: p.URL, Schema: newSchema(), Timeout: 10 * time.Second,
				Now: func() time.Time { return time.Now() },
			})
			benchmarkReserve(b, s, clients)
		})
	}
}

var benchRun atomic.Uint64

func benchmarkReserve(b *testing.B, s ledger.Store, clients int) {
	ctx := context.Background()
	time.Sleep(10 * time.Millisecond) // The fence is where the store began.
	issued := time.Now()
	exp := issued.Truncate(time.Second).Add(ledger.Margin)
	var next atomic.Int64
	offset := benchRun.Add(1) << 32
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range clients {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				claim := ledger.Claim{
					Key: numbered(offset + uint64(n)), Owner: ledger.Owner{byte(c)}, IssuedAt: issued,
					Until: exp.Add(time.Duration(n*7919%300) * time.Second),
				}
				start := time.Now()
				if err := s.Reserve(ctx, claim); err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(start))
				if err := s.Commit(ctx, claim.Key, claim.Owner); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reserves/s")
	all := slices.Concat(took...)
	slices.Sort(all)
	for _, percent := range []int{50, 99} {
		b.ReportMetric(float64(all[len(all)*percent/100].Nanoseconds())/1e3, fmt.Sprintf("p%d-µs", percent))
	}
	b.ReportMetric(float64(all[len(all)-1].Nanoseconds())/1e3, "max-µs")
}
