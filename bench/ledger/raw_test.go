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
	server := testkit.StartRedis(b, persistence[kind]...)
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr}, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1, ForceSingleClient: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	record := string(make([]byte, 52))
	ends := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				key := numbered(uint64(n))
				set := c.B().Arbitrary("SET").Keys(fmt.Sprintf("stepward:%x", key[:])).Args(record, "NX", "PXAT", ends).Build()
				if err := c.Do(b.Context(), set).Error(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
}
