//go:build unix

package redis_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/redis"
)

// textLog collects log lines.
type textLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *textLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *textLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *textLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// use spends, commits, releases and counts.
func (r *rig) use() {
	r.t.Helper()
	ctx := context.Background()
	one, two := r.claim(), r.claim()
	for what, err := range map[string]error{
		"reserve": errors.Join(r.store.Reserve(ctx, one), r.store.Reserve(ctx, two)),
		"commit":  r.store.Commit(ctx, one.Key, one.Owner),
		"release": r.store.Release(ctx, two.Key, two.Owner),
	} {
		if err != nil {
			r.t.Errorf("%s: %v", what, err)
		}
	}
	if err := r.reserve(one); !errors.Is(err, ledger.ErrConsumed) {
		r.t.Errorf("a committed key: got %v, want ErrConsumed", err)
	}
	if err := r.reserve(two); err != nil {
		r.t.Errorf("a released key: %v", err)
	}
}

// acl is what the package's comment says for a user of a server, of a cluster's or of a Sentinel.
func acl(t *testing.T, kind string) []string {
	t.Helper()
	text, err := os.ReadFile("redis.go")
	if err != nil {
		t.Fatal(err)
	}
	// Indented comments: the server's rules, what a cluster needs besides, a Sentinel's rules.
	var blocks []string
	inside := false
	for line := range strings.Lines(string(text)) {
		rules, is := strings.CutPrefix(line, "//\t")
		if is && !inside {
			blocks = append(blocks, "")
		}
		if inside = is; is {
			blocks[len(blocks)-1] += strings.NewReplacer(">password", ">secret", "ACL SETUSER stepward", "").Replace(rules)
		}
	}
	if len(blocks) != 3 {
		t.Fatalf("the package's comment has %d lists, want 3", len(blocks))
	}
	return strings.Fields(map[string]string{"redis": blocks[0], "cluster": blocks[0] + blocks[1], "sentinel": blocks[2]}[kind])
}

func TestAUserWithNoMoreThanItNeeds(t *testing.T) {
	t.Parallel()
	server, log := testkit.StartRedis(t), &textLog{}
	file := write(t, "password", "secret\n")
	server.Do(append([]string{"ACL", "SETUSER", "stepward"}, acl(t, "redis")...)...)
	replica := follow(t, server)
	r := newRig(t, redis.Config{
		URL: "redis://stepward@" + server.Addr + "/2", PasswordFile: file, Timeout: 5 * time.Second, WaitReplicas: 1, WaitTimeout: 2 * time.Second, Log: log.logger(),
	})
	r.use()
	if st, err := r.store.Stats(context.Background()); err != nil || st.Entries != 2 || st.Capacity != 0 {
		t.Errorf("stats: got %+v, %v, want 2 entries", st, err)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "memory begins anew") {
		t.Errorf("more is said than that the memory begins: %s", text)
	}
	if keys := replica.Do("-n", "2", "KEYS", "*"); !strings.Contains(keys, "stepward:epoch") {
		t.Errorf("the keys are not in database 2: %s", keys)
	}
	if out := server.Do("ACL", "LOG"); out != "" {
		t.Errorf("the user tried what it may not: %s", out)
	}
}

// What the keys hold is neither a token nor anything that names one.
func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Prefix: "mine", Timeout: time.Second})
	c := r.claim()
	if err := r.store.Reserve(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(server.Do("KEYS", "*")) {
		switch {
		case key == "mine:epoch":
			if ttl := server.Do("PTTL", key); ttl != "-1" {
				t.Errorf("the epoch ends in %s ms", ttl)
			}
		case !strings.HasPrefix(key, "mine:") || len(key) != len("mine:")+43:
			t.Errorf("got a key %s", key)
		default:
			if n := server.Do("STRLEN", key); n != "52" {
				t.Errorf("a record has %s bytes, want 52", n)
			}
			// The clock of the test is a minute ahead of the server's.
			if ttl := server.Do("TTL", key); ttl < "355" || ttl > "361" || len(ttl) != 3 {
				t.Errorf("a record stays for %s s, want about 360", ttl)
			}
		}
	}
}

// A server whose clock is ahead must not drop a key before it is over.
func TestAClockThatIsBehindTheServers(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: time.Second})
	r.clock.Add(-2 * time.Hour)
	c := r.claim()
	c.IssuedAt = r.clock.Now().Add(3 * time.Hour) // past the fence, whatever the clock says
	if err := r.store.Reserve(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if err := r.reserve(c); !errors.Is(err, ledger.ErrReserved) {
		t.Errorf("got %v, want ErrReserved", err)
	}
	if skew := r.store.Skew(); skew.Abs() > time.Second {
		t.Errorf("the clocks of one machine differ by %s", skew)
	}
}

// The fence of a machine whose clock is behind rises to the server's time, and one that is far away begins no epoch.
func TestAClockThatIsWrongWhenAnEpochBegins(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	for by, want := range map[time.Duration]time.Duration{
		0: 10 * time.Second, -5 * time.Second: 5 * time.Second, -40 * time.Second: 0, 40 * time.Second: 50 * time.Second, -2 * time.Minute: -1, 2 * time.Minute: -1,
	} {
		wrong := func() time.Time { return time.Now().Add(by) }
		c := redis.Config{URL: "redis://" + server.Addr, Prefix: "by" + by.String(), Leeway: 10 * time.Second, Now: wrong, Timeout: time.Second}
		c.Log = slog.New(slog.DiscardHandler)
		s, err := redis.OpenAt(context.Background(), c, wrong)
		if want == -1 {
			if err == nil || !strings.Contains(err.Error(), "NTP") {
				t.Errorf("%s: got %v, want no epoch", by, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.Stats(context.Background())
		if fence := time.Until(st.Fence); err != nil || (fence-want).Abs() > time.Second {
			t.Errorf("%s: the fence is at %s, %v, want %s", by, fence, err, want)
		}
		if skew := s.Skew(); (skew + by).Abs() > time.Second {
			t.Errorf("%s: the server seems to be %s ahead", by, skew)
		}
		s.Close()
	}
}

func TestServersThatCannotKeepALedger(t *testing.T) {
	t.Parallel()
	plain := testkit.StartRedis(t)
	replica := follow(t, plain)
	locked := testkit.StartRedis(t, "--requirepass", "secret")
	small := testkit.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", freePort(t))
	small.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	eventually(t, "the cluster of one is one", func() bool { return strings.Contains(small.Do("CLUSTER", "INFO"), "cluster_state:ok") })
	for what, row := range map[string]struct {
		config redis.Config
		want   string
	}{
		"evicts":          {redis.Config{URL: "redis://" + testkit.StartRedis(t, "--maxmemory-policy", "volatile-ttl").Addr}, "noeviction"},
		"is a replica":    {redis.Config{URL: "redis://" + replica.Addr}, "is a replica"},
		"no password":     {redis.Config{URL: "redis://" + locked.Addr}, "NOAUTH"},
		"wrong password":  {redis.Config{URL: "redis://:hunter2@" + locked.Addr}, "WRONGPASS"},
		"wrong file":      {redis.Config{URL: "redis://" + locked.Addr, PasswordFile: write(t, "p", "hunter2")}, "WRONGPASS"},
		"empty file":      {redis.Config{URL: "redis://" + locked.Addr, PasswordFile: write(t, "p", "\n")}, "no password"},
		"no file":         {redis.Config{URL: "redis://" + locked.Addr, PasswordFile: "/none"}, "/none"},
		"no such user":    {redis.Config{URL: "redis://joe:hunter2@" + locked.Addr}, "WRONGPASS"},
		"user alone":      {redis.Config{URL: "redis://joe@" + locked.Addr}, "password file"},
		"is no cluster":   {redis.Config{URL: "redis+cluster://" + plain.Addr}, "write redis://"},
		"is a cluster":    {redis.Config{URL: "redis://" + small.Addr}, "redis+cluster://"},
		"has no TLS":      {redis.Config{URL: "rediss://" + plain.Addr}, "is there TLS"},
		"no such db":      {redis.Config{URL: "redis://" + plain.Addr + "/99"}, "DB index"},
		"lacks replicas":  {redis.Config{URL: "redis://" + testkit.StartRedis(t, "--min-replicas-to-write", "1").Addr}, "NOREPLICAS"},
		"is no server":    {redis.Config{URL: "redis://" + mute(t)}, "connect"},
		"CA without TLS":  {redis.Config{URL: "redis://" + plain.Addr, CAFile: "/ca.pem"}, "rediss://"},
		"key without":     {redis.Config{URL: "rediss://" + plain.Addr, KeyFile: "/k.pem"}, "certificate"},
		"CA is no PEM":    {redis.Config{URL: "rediss://" + plain.Addr, CAFile: write(t, "ca", "hello")}, "no PEM"},
		"braces":          {redis.Config{URL: "redis://" + plain.Addr, Prefix: "a{b}"}, "prefix"},
		"negative time":   {redis.Config{URL: "redis://" + plain.Addr, Timeout: -1}, "negative"},
		"not an address":  {redis.Config{URL: "http://" + plain.Addr}, "write redis://"},
		"strange epoch":   {redis.Config{URL: "redis://" + plain.Addr, Prefix: strange(plain)}, "another form"},
		"nobody's master": {redis.Config{URL: "redis+sentinel://" + plain.Addr + "/main"}, "no Sentinel"},
	} {
		s, err := tryOpen(t, row.config)
		if err == nil || s != nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q", what, err, row.want)
		}
	}
}

// strange puts something into the epoch's place that has this server's identity and no times.
func strange(server *testkit.Redis) string {
	field := func(section, name string) string {
		_, after, _ := strings.Cut(server.Do("INFO", section), name+":")
		value, _, _ := strings.Cut(after, "\r")
		return strings.TrimSpace(strings.Split(value, "\n")[0])
	}
	server.Do("SET", "strange:epoch", field("server", "run_id")+"/"+field("replication", "master_replid")+" what")
	return "strange"
}

func TestPasswordFromAFile(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, "--requirepass", "p@ss word")
	newRig(t, redis.Config{URL: "redis://:other@" + server.Addr, PasswordFile: write(t, "p", "p@ss word\r\n"), Timeout: time.Second}).use()
	newRig(t, redis.Config{URL: "redis://default:p%40ss%20word@" + server.Addr, Prefix: "other", Timeout: time.Second}).use()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := testkit.NewAuthority(t)
	cert, key := ca.Issue(t, "redis")
	files := map[string]string{"ca": write(t, "ca", string(ca.PEM())), "cert": write(t, "cert", string(cert)), "key": write(t, "key", string(key))}
	server := testkit.StartRedis(t, "--port", "0", "--tls-port", "{port}", "--tls-ca-cert-file", files["ca"], "--tls-cert-file", files["cert"], "--tls-key-file", files["key"])
	c := redis.Config{URL: "rediss://" + server.Addr, CAFile: files["ca"], CertFile: files["cert"], KeyFile: files["key"], Timeout: time.Second}
	newRig(t, c).use()
	c.CertFile, c.KeyFile = "", ""
	if _, err := tryOpen(t, c); err == nil {
		t.Error("it is let in without a certificate")
	}
	c.CertFile, c.KeyFile, c.CAFile = files["cert"], files["key"], write(t, "other", string(testkit.NewAuthority(t).PEM()))
	if _, err := tryOpen(t, c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another authority: got %v", err)
	}
}

// What a server may answer while it runs, and what that says about the token.
func TestServersThatRefuse(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		begin, end []string
		want       error
	}{
		"full":             {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}, ledger.ErrFull},
		"too few replicas": {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}, ledger.ErrUnavailable},
		"forbidden":        {[]string{"ACL", "SETUSER", "default", "-set"}, []string{"ACL", "SETUSER", "default", "+set"}, ledger.ErrUnavailable},
		"a script lost":    {[]string{"SCRIPT", "FLUSH"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testkit.StartRedis(t)
			r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: time.Second})
			r.use()
			server.Do(row.begin...)
			c := r.claim()
			if err := r.reserve(c); !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
			if row.end == nil {
				return
			}
			server.Do(row.end...)
			if err := r.reserve(c); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			r.use()
		})
	}
}

// A policy that is changed while Stepward runs is found within a minute, and at once when an epoch begins.
func TestAPolicyThatBecomesBad(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, "--maxmemory", "100mb")
	r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: time.Second})
	if m := r.store.Memory(); m <= 0 || m > 0.2 {
		t.Errorf("got %v of 100 MB used", m)
	}
	server.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	server.Do("FLUSHALL")
	r.clock.Add(time.Minute)
	eventually(t, "reservations are refused", func() bool {
		r.clock.Add(time.Second)
		err := r.reserve(r.claim())
		return errors.Is(err, ledger.ErrUnavailable) && strings.Contains(err.Error(), "noeviction")
	})
	server.Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	server.Do("FLUSHALL")
	eventually(t, "they are granted again", func() bool {
		r.clock.Add(time.Minute)
		return r.reserve(r.claim()) == nil
	})
}

func TestWhatACrashMayForgetIsSaid(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"last second":              {"--appendfsync", "everysec"},
		"since its last snapshot":  {"--appendonly", "no"},
		"does not say when":        {"--rename-command", "CONFIG", ""},
		"memory begins anew":       {},
		"reason=\"the server reme": {},
	} {
		server, log := testkit.StartRedis(t, args...), &textLog{}
		newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: time.Second, Log: log.logger()}).use()
		if text := log.String(); strings.Count(text, want) != 1 {
			t.Errorf("%s: got %s", want, text)
		}
	}
}

// Without the replicas that are asked for, the token is spent and not granted.
func TestReplicasThatAreWaitedFor(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	replica := follow(t, server)
	waits := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: 5 * time.Second, WaitReplicas: 1, WaitTimeout: time.Second})
	waits.use()
	replica.Kill()
	eventually(t, "the replica is gone", func() bool { return strings.Contains(server.Do("INFO", "replication"), "connected_slaves:0") })
	c := waits.claim()
	if err := waits.reserve(c); !errors.Is(err, ledger.ErrUnknown) || !strings.Contains(err.Error(), "0 replicas") {
		t.Errorf("got %v, want ErrUnknown", err)
	}
	if err := waits.reserve(c); !errors.Is(err, ledger.ErrReserved) {
		t.Errorf("afterwards: got %v, want ErrReserved", err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	server := testkit.StartRedis(t)
	for _, hang := range []bool{false, true} {
		s, err := tryOpen(t, redis.Config{URL: "redis://" + server.Addr})
		if err != nil {
			t.Fatal(err)
		}
		if hang {
			server.Stop()
			_ = s.Commit(context.Background(), ledger.Key{}, ledger.Owner{}) // It cannot.
		}
		began := time.Now()
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("close took %s", took)
		}
		eventually(t, "no goroutine is left", func() bool {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			return !bytes.Contains(stacks, []byte("rueidis.")) && !bytes.Contains(stacks, []byte("redis.(*Store)")) && !bytes.Contains(stacks, []byte("redis.(*dialer)"))
		})
	}
	server.Cont()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
