//go:build unix

package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is a PostgreSQL server of a test's own, on 127.0.0.1, with a disk that it syncs to. Its user is a superuser, and
// asks for a password.
type Postgres struct {
	URL  string // postgres://stepward:...@127.0.0.1:port/postgres?sslmode=disable
	Addr string // host:port
	Dir  string // its data

	t        testing.TB
	settings []string
	server   *exec.Cmd
	ended    chan struct{} // closed when server was waited for
	unwatch  func()
}

const (
	postgresUser     = "stepward"
	postgresPassword = "not-a-secret"
	// postgresPatience is longer than a server on a busy machine takes to start or to end.
	postgresPatience = 60 * time.Second
)

// StartPostgres starts a server with an empty database. Settings are those of postgresql.conf: "synchronous_commit=off". All
// servers that one test program starts so have one system identifier, as if they were copies: see StartOtherPostgres.
func StartPostgres(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	template, err := postgresTemplate()
	if err != nil {
		Missing(t, err)
	}
	p := newPostgres(t, settings)
	if err := copyOwned(p.Dir, template); err != nil {
		t.Fatal(err)
	}
	p.start()
	return p
}

// StartOtherPostgres is StartPostgres for a server with a system identifier of its own. It takes a second more.
func StartOtherPostgres(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	if _, err := postgresTemplate(); err != nil {
		Missing(t, err)
	}
	p := newPostgres(t, settings)
	if err := initPostgres(p.Dir); err != nil {
		t.Fatal(err)
	}
	p.start()
	return p
}

// Standby starts an asynchronous standby that has all that p has, and follows it until p ends.
func (p *Postgres) Standby(settings ...string) *Postgres {
	p.t.Helper()
	s := newPostgres(p.t, settings)
	backup := asPostgres("pg_basebackup", "-D", s.Dir, "-d", p.URL, "-R", "-X", "stream", "-c", "fast")
	if out, err := backup.CombinedOutput(); err != nil {
		p.t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	s.start()
	return s
}

// Promote makes a primary of a standby.
func (p *Postgres) Promote() {
	p.t.Helper()
	if out, err := asPostgres("pg_ctl", "promote", "-w", "-D", p.Dir).CombinedOutput(); err != nil {
		p.t.Fatalf("pg_ctl promote: %v\n%s", err, out)
	}
}

// Exec runs statements, several with semicolons between, as the superuser.
func (p *Postgres) Exec(sql string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), postgresPatience)
	defer cancel()
	c, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

// Query returns one row's one column as text.
func (p *Postgres) Query(sql string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), postgresPatience)
	defer cancel()
	c, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close(ctx)
	results, err := c.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 {
		p.t.Fatalf("%s: got %d results, %v, want one row", sql, len(results), err)
	}
	return string(results[0].Rows[0][0])
}

// Dump is what pg_dump writes of a schema, as SQL for Exec.
func (p *Postgres) Dump(schema string) string {
	p.t.Helper()
	out, err := asPostgres("pg_dump", "-d", p.URL, "-n", schema, "--inserts").Output()
	if err != nil {
		p.t.Fatalf("pg_dump: %v", err)
	}
	// Lines for psql alone begin with a backslash.
	return regexp.MustCompile(`(?m)^\\.*$`).ReplaceAllString(string(out), "")
}

// WriteFile writes a file that only the server may read, among its data.
func (p *Postgres) WriteFile(name string, text []byte) {
	p.t.Helper()
	name = filepath.Join(p.Dir, name)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := own(name); err != nil {
		p.t.Fatal(err)
	}
}

// Snapshot kills the server, copies its disk, and starts it again. PutBack does the same the other way round.
func (p *Postgres) Snapshot() (copied string) {
	p.t.Helper()
	copied = filepath.Join(filepath.Dir(p.Dir), "snapshot")
	p.exchange(copied, p.Dir)
	return copied
}

// PutBack starts the server with what Snapshot has copied.
func (p *Postgres) PutBack(copied string) {
	p.t.Helper()
	p.exchange(p.Dir, copied)
}

func (p *Postgres) exchange(to, from string) {
	p.t.Helper()
	p.Kill()
	if err := os.RemoveAll(to); err != nil {
		p.t.Fatal(err)
	}
	if err := copyOwned(to, from); err != nil {
		p.t.Fatal(err)
	}
	p.start()
}

// Stop suspends the server and all its processes: connections stay open and nothing answers.
func (p *Postgres) Stop() { p.signal(syscall.SIGSTOP) }

// Cont ends Stop.
func (p *Postgres) Cont() { p.signal(syscall.SIGCONT) }

// Kill ends all processes of the server at once, as a crash would.
func (p *Postgres) Kill() {
	p.t.Helper()
	if p.unwatch != nil {
		p.unwatch()
		p.unwatch = nil
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// Restart starts the server again, at the same address, after Kill or in place of it.
func (p *Postgres) Restart() {
	p.t.Helper()
	p.Kill()
	p.start()
}

func newPostgres(t testing.TB, settings []string) *Postgres {
	t.Helper()
	// Not in t.TempDir, into which only its owner may look. A socket's path must be short, too.
	parent, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	p := &Postgres{t: t, settings: settings, Dir: filepath.Join(parent, "data"), ended: make(chan struct{})}
	close(p.ended)
	t.Cleanup(func() {
		if p.server != nil {
			p.Kill()
		}
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
	})
	if err := own(parent); err != nil {
		t.Fatal(err)
	}
	p.Addr = freeAddr(t)
	p.URL = fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", postgresUser, postgresPassword, p.Addr)
	return p
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (p *Postgres) start() {
	p.t.Helper()
	_, port, _ := net.SplitHostPort(p.Addr)
	args := []string{"-D", p.Dir, "-p", port, "-k", filepath.Dir(p.Dir), "-c", "listen_addresses=127.0.0.1"}
	// A test looks at many connections, and at little data.
	for _, setting := range append([]string{"max_connections=300", "shared_buffers=32MB"}, p.settings...) {
		args = append(args, "-c", setting)
	}
	deadline := time.Now().Add(postgresPatience)
	for {
		log, err := p.try(args, deadline)
		if err == nil {
			return
		}
		// Processes of a server that was killed hold its memory for a moment.
		if !strings.Contains(log, "shared memory block") || time.Now().After(deadline) {
			p.t.Fatalf("postgres: %v\n%s", err, log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// try starts the server once and waits until it takes connections.
func (p *Postgres) try(args []string, deadline time.Time) (log string, err error) {
	var out buffer
	cmd := asPostgres("postgres", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // It is killed in the end.
	}()
	p.server, p.ended = cmd, ended
	// A test program that dies must not leave a server behind.
	p.unwatch, err = atExit(`kill -KILL "$1"; rm -rf "$2"`, strconv.Itoa(cmd.Process.Pid), filepath.Dir(p.Dir))
	if err != nil {
		return "", err
	}
	for ; ; time.Sleep(5 * time.Millisecond) {
		switch {
		case p.ready():
			return out.String(), nil
		case isClosed(ended):
			p.Kill()
			return out.String(), errors.New("it ended")
		case time.Now().After(deadline):
			p.Kill()
			return out.String(), errors.New("it does not become ready")
		}
	}
}

// ready looks at what the server writes when it begins to take connections.
func (p *Postgres) ready() bool {
	text, err := os.ReadFile(filepath.Join(p.Dir, "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 8 || lines[0] != strconv.Itoa(p.server.Process.Pid) {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}

// signal reaches the server and the processes that it started, which are in sessions of their own.
func (p *Postgres) signal(s syscall.Signal) {
	p.t.Helper()
	if isClosed(p.ended) {
		return
	}
	if s == syscall.SIGKILL || s == syscall.SIGSTOP {
		// The server first, so that it starts no more; stopped, so that it does not yet leave its children to another.
		_ = p.server.Process.Signal(syscall.SIGSTOP)
	}
	for _, pid := range children(p.server.Process.Pid) {
		_ = syscall.Kill(pid, s) // It may have ended.
	}
	_ = p.server.Process.Signal(s)
}

// children needs /proc; elsewhere they end when they see that the server has.
func children(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// "pid (name) state parent": the name may have spaces.
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := bytes.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil && len(fields) > 1 && string(fields[1]) == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// postgresTemplate makes a database directory once for each test program: initdb takes a second, a copy a twentieth.
var postgresTemplate = sync.OnceValues(func() (string, error) {
	if _, err := postgresProgram("initdb"); err != nil {
		return "", err
	}
	parent, err := os.MkdirTemp("", "pg")
	if err != nil {
		return "", err
	}
	if _, err := atExit(`rm -rf "$1"`, parent); err != nil {
		return "", err
	}
	if err := own(parent); err != nil {
		return "", err
	}
	template := filepath.Join(parent, "template")
	return template, initPostgres(template)
})

func initPostgres(dir string) error {
	password := filepath.Join(filepath.Dir(dir), "password")
	if err := os.WriteFile(password, []byte(postgresPassword+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(password)
	if err := own(password); err != nil {
		return err
	}
	cmd := asPostgres("initdb", "-D", dir, "-U", postgresUser, "-A", "scram-sha-256", "--pwfile", password,
		"-E", "UTF8", "--locale=C", "--wal-segsize=1", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// postgresProgram finds a program in PATH or where Debian puts the newest version's.
func postgresProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return "", err
	}
	return slices.MaxFunc(found, func(a, b string) int { return len(a)*1000 - len(b)*1000 + strings.Compare(a, b) }), nil
}

// asPostgres is a program of PostgreSQL, run by somebody else where the test is root's, whom PostgreSQL refuses.
func asPostgres(name string, args ...string) *exec.Cmd {
	path, err := postgresProgram(name)
	if err != nil {
		path = name // Run says what is missing.
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Dir = os.TempDir()
	if uid, gid, other := postgresOwner(); other {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return cmd
}

func postgresOwner() (uid, gid int, other bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ = strconv.Atoi(u.Uid)
			gid, _ = strconv.Atoi(u.Gid)
			return uid, gid, true
		}
	}
	return 65534, 65534, true
}

func own(path string) error {
	if uid, gid, other := postgresOwner(); other {
		return os.Chown(path, uid, gid)
	}
	return nil
}

// copyOwned copies a database directory, which has no links in it.
func copyOwned(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			err = os.Mkdir(target, 0o700)
		} else {
			err = copyFile(target, path)
		}
		if err != nil {
			return err
		}
		return own(target)
	})
}

func copyFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}

// atExit runs a script when this program ends, however it ends, unless it is called off.
func atExit(script string, args ...string) (off func(), err error) {
	cmd := exec.Command("sh", append([]string{"-c", "cat >/dev/null; " + script, "sh"}, args...)...)
	// Not at an interrupt from the keyboard, which reaches the whole group, but at the end of the pipe.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exitPipes.Store(pipe, nil)
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = pipe.Close()
		exitPipes.Delete(pipe)
	}, nil
}

// exitPipes keeps the garbage collector from closing them, at which the scripts would run.
var exitPipes sync.Map

// buffer may be read while a program writes to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
