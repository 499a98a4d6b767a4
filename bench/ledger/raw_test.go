package ledger_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/stepward/stepward/internal/testkit"
)

// BenchmarkRedisSet is what the server and its client do at most: a bare SET NX PXAT of a record's size, pipelined. What a
// reservation adds to that is the epoch, and what it saves is that those that wait together go as one script.
func BenchmarkRedisSet(b *testing.B) {
	for _, kind := range []string{"redis", "redis-everysec", "redis-memory"} {
		for _, clients := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", kind, clients), func(b *testing.B) { benchmarkRedisSet(b, kind, clients) })
		}
	}
}

func benchmarkRedisSet(b *testing.B, kind string, clients int) {
	c := rawRedis(b, testkit.StartRedis(b, persistence[kind]...))
	b.ResetTimer()
	took := setAll(b, c, clients, 0)
	b.ReportMetric(float64(b.N)/took.Seconds(), "sets/s")
}

// BenchmarkRedisRatio is reserve over that SET on one server, taken A B A: machines differ by half, the ratio does not.
func BenchmarkRedisRatio(b *testing.B) {
	for _, kind := range []string{"redis", "redis-everysec", "redis-memory"} {
		b.Run(kind+"/64", func(b *testing.B) {
			const clients = 64
			server := testkit.StartRedis(b, persistence[kind]...)
			c, s := rawRedis(b, server), openRedis(b, server)
			b.StopTimer()
			before := setAll(b, c, clients, 1)
			b.StartTimer()
			benchmarkReserveFrom(b, s, clients, 0, time.Now(), false)
			after := setAll(b, c, clients, 2)
			sets := (before + after) / 2
			b.ReportMetric(float64(b.N)/sets.Seconds(), "sets/s")
			b.ReportMetric(sets.Seconds()/b.Elapsed().Seconds(), "reserve/set")
		})
	}
}

func rawRedis(b *testing.B, server *testkit.Redis) rueidis.Client {
	b.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr}, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1, ForceSingleClient: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// setAll sets b.N keys of a lot that nobody else uses, and returns how long it took.
func setAll(b *testing.B, c rueidis.Client, clients int, lot uint64) time.Duration {
	b.Helper()
	record := string(make([]byte, 52))
	ends := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				key := numbered(lot<<60 + uint64(n))
				set := c.B().Arbitrary("SET").Keys(fmt.Sprintf("stepward:%x", key[:])).Args(record, "NX", "PXAT", ends).Build()
				if err := c.Do(b.Context(), set).Error(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}
