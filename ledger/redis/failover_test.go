//go:build unix

package redis_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/redis"
)

// startSentinel starts a Sentinel that alone decides, after half a second.
func startSentinel(t *testing.T, master *testkit.Redis, lines ...string) (addr string) {
	t.Helper()
	program := testkit.Part(t, "redis-sentinel", "valkey-sentinel")
	port := freePort(t)
	host, masterPort, _ := net.SplitHostPort(master.Addr)
	conf := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor main %s %s 1\nsentinel down-after-milliseconds main 500\n"+
		"sentinel failover-timeout main 5000\n%s\n", port, t.TempDir(), host, masterPort, strings.Join(lines, "\n"))
	file := write(t, "sentinel.conf", conf)
	log, err := os.Create(filepath.Join(filepath.Dir(file), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr = net.JoinHostPort("127.0.0.1", port)
	eventually(t, "the Sentinel listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return addr
}

func cli(t *testing.T, addr string, args ...string) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	out, err := exec.Command(testkit.Part(t, "redis-cli", "valkey-cli"), append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return string(out)
}

// A Sentinel promotes a replica that lacks what was spent last. The Sentinel has a password in some cases, which is the servers'.
func TestAFailoverBySentinel(t *testing.T) {
	t.Parallel()
	const password = "secret"
	for name, user := range map[string]string{"without a password": "", "with one": "default:secret@", "with users": "stepward:secret@"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master := testkit.StartRedis(t)
			replica := follow(t, master)
			var lines []string
			if user != "" {
				for _, server := range []*testkit.Redis{master, replica} {
					server.Do("CONFIG", "SET", "masterauth", password)
					server.Do(append([]string{"ACL", "SETUSER", "stepward"}, acl(t, "redis")...)...)
					server.Do("CONFIG", "SET", "requirepass", password)
					server.Login("", password)
				}
				lines = []string{
					"requirepass " + password, "sentinel auth-pass main " + password, "user stepward " + strings.Join(acl(t, "sentinel"), " "),
				}
			}
			watcher := startSentinel(t, master, lines...)
			auth := func(args ...string) []string {
				if user != "" {
					return append([]string{"-a", password}, args...)
				}
				return args
			}
			eventually(t, "the Sentinel knows the replica", func() bool {
				return strings.Contains(cli(t, watcher, auth("SENTINEL", "REPLICAS", "main")...), replica.Addr) &&
					!strings.Contains(cli(t, watcher, auth("SENTINEL", "REPLICAS", "main")...), "master-link-status\nerr")
			})
			r := newRig(t, redis.Config{URL: "redis+sentinel://" + user + watcher + "/main", Timeout: time.Second})
			r.use()
			cutOff(master, replica)
			spent := r.spend()
			master.Kill()
			replica.Cont()
			eventually(t, "the replica is promoted", func() bool { return strings.Contains(replica.Do("ROLE"), "master") })
			r.check("what was spent before", spent, ledger.ErrFenced)
			r.recovers()
			r.check("what was spent before, later", spent, ledger.ErrFenced)
		})
	}
}

// node starts a server that may become part of a cluster, and returns what redis-cli calls it.
func node(t *testing.T) (server *testkit.Redis, name string) {
	t.Helper()
	bus := freePort(t)
	server = testkit.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
	return server, server.Addr + "@" + bus
}

func TestACluster(t *testing.T) {
	t.Parallel()
	var masters []*testkit.Redis
	var names, addrs []string
	for range 3 {
		server, name := node(t)
		masters, names, addrs = append(masters, server), append(names, name), append(addrs, server.Addr)
	}
	create := append([]string{"--cluster", "create"}, names...)
	if out := cli(t, masters[0].Addr, append(create, "--cluster-yes")...); !strings.Contains(out, "All 16384 slots covered") {
		t.Fatal(out)
	}
	healthy := func(servers ...*testkit.Redis) {
		t.Helper()
		eventually(t, "the cluster is whole", func() bool {
			for _, s := range servers {
				if info := s.Do("CLUSTER", "INFO"); !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_slots_ok:16384") {
					return false
				}
			}
			return true
		})
	}
	healthy(masters...)
	replica, _ := node(t)
	id := strings.TrimSpace(masters[0].Do("CLUSTER", "MYID"))
	host, port, _ := net.SplitHostPort(masters[0].Addr)
	_, bus, _ := strings.Cut(names[0], "@")
	replica.Do("CLUSTER", "MEET", host, port, bus)
	eventually(t, "the fourth knows the first", func() bool {
		out, err := replica.Try("CLUSTER", "REPLICATE", id)
		return err == nil && strings.Contains(out, "OK")
	})
	eventually(t, "the replica follows", func() bool { return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up") })
	healthy(append(masters, replica)...)
	for _, server := range append(masters, replica) {
		server.Do(append([]string{"ACL", "SETUSER", "stepward"}, acl(t, "cluster")...)...)
	}

	r := newRig(t, redis.Config{URL: "redis+cluster://stepward:secret@" + strings.Join(addrs, ","), Timeout: 2 * time.Second})
	r.use()
	waits := newRig(t, redis.Config{URL: "redis+cluster://" + addrs[0], Timeout: 2 * time.Second, Prefix: "waits", WaitReplicas: 1, WaitTimeout: 100 * time.Millisecond})
	granted := 0
	for range 64 {
		if waits.reserve(waits.claim()) == nil {
			granted++
		}
	}
	if granted == 0 || granted == 64 {
		t.Errorf("%d of 64 are granted with a replica of one master of three", granted)
	}

	// The replica is promoted, and lacks what was spent last. Connections to it exist already.
	spent := r.spend()
	st, err := r.store.Stats(t.Context())
	if err != nil || st.Entries < int64(len(spent)) {
		t.Errorf("stats: %+v, %v, want %d entries at least", st, err, len(spent))
	}
	cutOff(masters[0], replica)
	spent = append(spent, r.spend()...)
	masters[0].Kill()
	replica.Cont()
	eventually(t, "the replica takes over", func() bool {
		_, _ = replica.Try("CLUSTER", "FAILOVER", "TAKEOVER")
		return strings.Contains(replica.Do("ROLE"), "master")
	})
	healthy(replica, masters[1], masters[2])
	fenced := 0
	for _, c := range spent {
		switch err := r.decided(c); {
		case err == nil:
			t.Fatal("after a failover a token is granted a second time")
		case strings.Contains(err.Error(), ledger.ErrFenced.Error()):
			fenced++
		}
	}
	if fenced == 0 {
		t.Error("no token's bucket was on the master that failed")
	}
	r.clock.Add(time.Minute)
	more := r.spend()

	// One restarts, and has nothing.
	masters[1].Kill()
	masters[1].Restart(false)
	masters[1].Do(append([]string{"ACL", "SETUSER", "stepward"}, acl(t, "cluster")...)...)
	r.clock.Add(time.Second)
	for _, c := range append(spent, more...) {
		if r.decided(c) == nil {
			t.Fatal("after a restart a token is granted a second time")
		}
	}
	healthy(replica, masters[1], masters[2])
	for range 64 {
		r.recovers()
	}
}
