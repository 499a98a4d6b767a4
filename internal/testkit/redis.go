//go:build unix

package testkit

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Redis is a Redis server of a test's own, on 127.0.0.1, that syncs every write to the disk before it answers. It has no TLS.
type Redis struct {
	Addr string // host:port; the same after a restart
	Dir  string // its data

	t      testing.TB
	args   []string
	server *exec.Cmd
	ended  chan struct{} // closed when server was waited for
	login  []string      // user and password for Do, if it needs them
}

// StartRedis starts an empty server. Args are more arguments of redis-server, "--maxmemory-policy", "allkeys-lru", and replace
// the defaults. In them {port} is the server's port: "--port", "0", "--tls-port", "{port}" has it speak TLS alone.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	program := Part(t, "redis-server", "valkey-server")
	r := &Redis{t: t, Addr: freeAddr(t), Dir: t.TempDir(), args: append([]string{program}, args...)}
	t.Cleanup(func() { r.end(syscall.SIGKILL) })
	r.start()
	return r
}

// Login names a user, "" for the default one, and a password for Do.
func (r *Redis) Login(user, password string) {
	r.login = []string{"-a", password}
	if user != "" {
		r.login = append(r.login, "--user", user)
	}
}

func (r *Redis) start() {
	r.t.Helper()
	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		r.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(r.Dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"--bind", host, "--port", port, "--dir", r.Dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no",
		"--repl-diskless-sync-delay", "0",
	}, r.args[1:]...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{port}", port)
	}
	r.server = exec.Command(r.args[0], args...)
	r.server.Stdout, r.server.Stderr = log, log
	if err := r.server.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	r.ended = ended
	server := r.server
	go func() {
		_ = server.Wait() // however it ended
		close(ended)
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", r.Addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			r.t.Fatalf("redis ended: %s", text)
		default:
		}
		if time.Now().After(deadline) {
			r.t.Fatal("redis does not listen")
		}
	}
}

// Do sends one command over a connection of its own and returns what redis-cli prints.
func (r *Redis) Do(args ...string) string {
	r.t.Helper()
	out, err := r.Try(args...)
	if err != nil {
		r.t.Fatalf("redis-cli %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// Try is Do for commands that may fail.
func (r *Redis) Try(args ...string) (string, error) {
	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return "", err
	}
	all := append([]string{"-e", "-h", host, "-p", port}, r.login...)
	cmd := exec.Command(Part(r.t, "redis-cli", "valkey-cli"), append(all, args...)...)
	cmd.Env = append(os.Environ(), "REDISCLI_HISTFILE=/dev/null")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Stop halts the server, which keeps its connections and answers nothing until Cont.
func (r *Redis) Stop() { r.signal(syscall.SIGSTOP) }

// Cont lets it go on.
func (r *Redis) Cont() { r.signal(syscall.SIGCONT) }

// Kill ends the server at once.
func (r *Redis) Kill() { r.end(syscall.SIGKILL) }

// Restart starts a server that was killed anew at its address, with its data or empty.
func (r *Redis) Restart(keepData bool) {
	r.t.Helper()
	r.end(syscall.SIGKILL)
	if !keepData {
		for _, name := range []string{"appendonlydir", "appendonly.aof", "dump.rdb"} {
			if err := os.RemoveAll(filepath.Join(r.Dir, name)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	r.start()
}

func (r *Redis) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.server.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *Redis) end(s syscall.Signal) {
	select {
	case <-r.ended:
		return
	default:
	}
	if err := r.server.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Errorf("end of redis %s: %v", strconv.Itoa(r.server.Process.Pid), err)
	}
	<-r.ended
}
