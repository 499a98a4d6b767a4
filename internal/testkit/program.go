package testkit

import (
	"bytes"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is a server that a test started, such as another proxy.
type Program struct {
	t    testing.TB
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  bytes.Buffer // what it says; guarded by mu
	gone chan struct{}
}

// StartProgram runs a program in dir until the test ends, and waits until something listens on address. What it says is shown if the
// test fails.
func StartProgram(t testing.TB, dir, address, name string, args ...string) *Program {
	t.Helper()
	p := &Program{t: t, cmd: exec.Command(name, args...), gone: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p, p
	p.cmd.WaitDelay = time.Second // for children that hold its output open
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // that it was killed is no news
		close(p.gone)
	}()
	t.Cleanup(p.Stop)
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close() // it only proved that somebody answers
			return p
		}
		select {
		case <-p.gone:
			t.Fatalf("%s ended:\n%s", name, p.Output())
		default:
		}
		if time.Now().After(until) {
			t.Fatalf("%s does not listen on %s:\n%s", name, address, p.Output())
		}
	}
}

// Stop ends the program and waits.
func (p *Program) Stop() {
	select {
	case <-p.gone:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // its children are its own to end; it may have ended meanwhile
	select {
	case <-p.gone:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
	if p.t.Failed() {
		p.t.Logf("%s said:\n%s", p.cmd.Path, p.Output())
	}
}

// Write is for what the program says.
func (p *Program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// Output is what it has said so far.
func (p *Program) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}
