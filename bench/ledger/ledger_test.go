// Package ledger_test measures every kind of ledger with the same rows: go test ./bench/ledger -run '^$' -bench .
//
// redis is a server that syncs every write to the disk before it answers (appendfsync always), redis-everysec one that does
// so every second, redis-memory one that keeps nothing (a restart raises the fence), and postgres one with its defaults.
// Servers and clients share the machine.
package ledger_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
	"github.com/stepward/stepward/ledger/postgres"
	"github.com/stepward/stepward/ledger/redis"
)

var (
	local  = []string{"memory", "bolt"}
	stores = []string{"memory", "bolt", "redis", "redis-everysec", "redis-memory", "postgres"}
)

// persistence is what each kind of Redis is started with.
var persistence = map[string][]string{
	"redis":          {"--appendonly", "yes", "--appendfsync", "always"},
	"redis-everysec": {"--appendonly", "yes", "--appendfsync", "everysec"},
	"redis-memory":   {"--appendonly", "no"},
}

var quiet = slog.New(slog.DiscardHandler)

// openFor opens a store of the given kind whose memory began an hour ago, in a place of its own.
func openFor(tb testing.TB, kind string, o ledger.Options) ledger.Store {
	tb.Helper()
	switch kind {
	case "memory":
		return openURL(tb, "memory:", o)
	case "bolt":
		return openURL(tb, "bolt:"+filepath.Join(tb.TempDir(), "ledger.db"), o)
	case "redis", "redis-everysec", "redis-memory":
		return openRedis(tb, testkit.StartRedis(tb, persistence[kind]...))
	case "postgres":
		return openPostgres(tb, testkit.StartPostgres(tb))
	}
	tb.Fatalf("no store %s", kind)
	return nil
}

func hourAgo() time.Time { return time.Now().Add(-time.Hour) }

func openRedis(tb testing.TB, server *testkit.Redis) ledger.Store {
	tb.Helper()
	s, err := redis.Open(tb.Context(), redis.Config{URL: "redis://" + server.Addr, Timeout: time.Minute, Now: hourAgo, Log: quiet})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func openPostgres(tb testing.TB, server *testkit.Postgres) ledger.Store {
	tb.Helper()
	s, err := postgres.Open(tb.Context(), postgres.Config{URL: server.URL, Timeout: time.Minute, Now: hourAgo, Log: quiet})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func openURL(tb testing.TB, url string, o ledger.Options) ledger.Store {
	tb.Helper()
	var opened atomic.Bool
	now := o.Now
	if now == nil {
		now = time.Now
	}
	o.Now = func() time.Time {
		if !opened.Load() {
			return now().Add(-time.Hour)
		}
		return now()
	}
	s, err := ledger.Open(context.Background(), url, o)
	if err != nil {
		tb.Fatal(err)
	}
	opened.Store(true)
	tb.Cleanup(func() { s.Close() })
	return s
}

var numbered = ledgertest.Numbered

// BenchmarkReserve spends tokens that expire at a second within the next five minutes: reserve alone, which is what a request
// waits for, and with the commit that follows its answer.
func BenchmarkReserve(b *testing.B) {
	for _, kind := range stores {
		for _, does := range []string{"reserve", "reserve+commit"} {
			for _, clients := range []int{1, 16, 64, 256} {
				b.Run(fmt.Sprintf("%s/%s/%d", kind, does, clients), func(b *testing.B) {
					s := openFor(b, kind, ledger.Options{Capacity: 1 << 30})
					benchmarkReserveFrom(b, s, clients, 0, time.Now(), does == "reserve+commit")
				})
			}
		}
	}
}

// BenchmarkReserveAmong is BenchmarkReserve in a store that holds many keys already.
func BenchmarkReserveAmong(b *testing.B) {
	for _, kind := range stores {
		for _, keys := range []int{10_000, 1_000_000, 10_000_000} {
			var s ledger.Store
			b.Run(fmt.Sprintf("%s/%d_keys/64", kind, keys), func(run *testing.B) {
				skipLong(run, keys)
				if s == nil { // Once for all run.N.
					s = full(b, kind, keys)
				}
				benchmarkReserve(run, s, 64, 1<<40)
			})
		}
	}
}

// full opens a store that holds many keys. A server makes them itself, which is faster by far than one reservation after another.
func full(b *testing.B, kind string, keys int) ledger.Store {
	b.Helper()
	switch kind {
	case "redis", "redis-everysec", "redis-memory":
		server := testkit.StartRedis(b, append([]string{"--enable-debug-command", "yes"}, persistence[kind]...)...)
		server.Do("DEBUG", "POPULATE", strconv.Itoa(keys), "stepward:filling", "52")
		return openRedis(b, server)
	case "postgres":
		server := testkit.StartPostgres(b, roomy...)
		s := openPostgres(b, server)
		makeRows(server, keys)
		server.Exec("VACUUM ANALYZE stepward.spent")
		return s
	}
	s := openFor(b, kind, ledger.Options{Capacity: 1 << 30})
	fill(b, s, keys)
	return s
}

// roomy is a PostgreSQL as its operators set it for ten million rows; with what it has by itself they take a quarter of an hour.
var roomy = []string{"shared_buffers=3GB", "max_wal_size=16GB"}

// makeRows makes spent tokens in a PostgreSQL, so many at a time as it makes before anybody loses patience.
func makeRows(server *testkit.Postgres, keys int) {
	const atOnce = 250_000
	for made := 0; made < keys; made += atOnce {
		server.Exec(fmt.Sprintf("INSERT INTO stepward.spent SELECT sha256(i::text::bytea), substr(sha256(i::text::bytea), 1, 16), i, %d, true "+
			"FROM generate_series(%d, %d) i", time.Now().Add(time.Hour).UnixNano(), made+1, min(made+atOnce, keys)))
	}
}

// fill reserves keys numbered from 1<<50.
func fill(b *testing.B, s ledger.Store, keys int) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	issued := time.Now()
	for range 512 {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(keys); n = next.Add(1) {
				claim := ledger.Claim{Key: numbered(1<<50 + uint64(n)), IssuedAt: issued, Until: issued.Add(time.Hour)}
				if err := s.Reserve(context.Background(), claim); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

var benchRun atomic.Uint64

func benchmarkReserve(b *testing.B, s ledger.Store, clients int, offset uint64) {
	benchmarkReserveFrom(b, s, clients, offset, time.Now(), true)
}

func benchmarkReserveFrom(b *testing.B, s ledger.Store, clients int, offset uint64, issued time.Time, commit bool) {
	ctx := context.Background()
	exp := issued.Truncate(time.Second).Add(ledger.Margin)
	var next atomic.Int64
	offset += benchRun.Add(1) << 32
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
				if !commit {
					continue
				}
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
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, "p99-µs")
	b.ReportMetric(float64(all[len(all)-1].Nanoseconds())/1e3, "max-µs")
}

// BenchmarkReserveAfter is BenchmarkReserve in a store whose million keys have just expired, so that they are swept meanwhile.
func BenchmarkReserveAfter(b *testing.B) {
	for _, kind := range local {
		var s ledger.Store
		for _, clients := range []int{64, 1} {
			b.Run(fmt.Sprintf("%s/1000000_keys/%d", kind, clients), func(run *testing.B) {
				if s == nil { // Once for all run.N.
					var ahead atomic.Int64
					now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
					s = openFor(b, kind, ledger.Options{Capacity: 1 << 30, Now: now})
					fill(b, s, 1_000_000)
					ahead.Store(int64(2 * time.Hour))
				}
				benchmarkReserveFrom(run, s, clients, 1<<40, time.Now().Add(2*time.Hour), true)
			})
		}
	}
}

// BenchmarkOpen opens a file that holds many keys.
func BenchmarkOpen(b *testing.B) {
	for _, keys := range []int{0, 10_000, 1_000_000, 10_000_000} {
		path := ""
		b.Run(fmt.Sprintf("%d_keys", keys), func(run *testing.B) {
			if path == "" { // Once for all run.N.
				path = filepath.Join(b.TempDir(), "ledger.db")
				s := openURL(b, "bolt:"+path, ledger.Options{Capacity: 1 << 30})
				fill(b, s, keys)
				s.Close()
			}
			for run.Loop() {
				s := openURL(run, "bolt:"+path, ledger.Options{Capacity: 1 << 30})
				run.StopTimer()
				s.Close()
				run.StartTimer()
			}
		})
	}
}

// BenchmarkEntry reports what one live key takes, in bytes: of Stepward's memory, and of the file or the server.
func BenchmarkEntry(b *testing.B) {
	for _, keys := range []int{1_000_000, 10_000_000} {
		for _, kind := range local {
			b.Run(fmt.Sprintf("%s/%d_keys", kind, keys), func(b *testing.B) {
				skipLong(b, keys)
				for b.Loop() {
					before := heap()
					path := filepath.Join(b.TempDir(), "ledger.db")
					address := kind + ":"
					if kind == "bolt" {
						address += path
					}
					s := openURL(b, address, ledger.Options{Capacity: keys})
					fill(b, s, keys)
					b.ReportMetric(float64(heap()-before)/float64(keys), "B/key")
					s.Close()
					if info, err := os.Stat(path); err == nil {
						b.ReportMetric(float64(info.Size())/float64(keys), "file-B/key")
					}
				}
			})
		}
		b.Run(fmt.Sprintf("redis/%d_keys", keys), func(b *testing.B) {
			skipLong(b, keys)
			for b.Loop() {
				server := testkit.StartRedis(b, persistence["redis-memory"]...)
				used := func() float64 {
					_, after, _ := strings.Cut(server.Do("INFO", "memory"), "used_memory:")
					n, err := strconv.ParseFloat(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), 64)
					if err != nil {
						b.Fatal(err)
					}
					return n
				}
				before := used()
				s := openRedis(b, server)
				fill(b, s, keys)
				b.ReportMetric((used()-before)/float64(keys), "B/key")
			}
		})
		b.Run(fmt.Sprintf("postgres/%d_keys", keys), func(b *testing.B) {
			skipLong(b, keys)
			for b.Loop() {
				server := testkit.StartPostgres(b, roomy...)
				s := openPostgres(b, server)
				makeRows(server, keys)
				n, err := strconv.ParseFloat(server.Query("SELECT pg_total_relation_size('stepward.spent')"), 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(n/float64(keys), "file-B/key")
				s.Close()
			}
		})
	}
}

func skipLong(b *testing.B, keys int) {
	b.Helper()
	if keys > 1_000_000 && testing.Short() {
		b.Skip("takes minutes and 4 GB")
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
