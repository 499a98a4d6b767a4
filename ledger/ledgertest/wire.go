package ledgertest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Wire stands between a store and its server and fails as networks do. It passes bytes, of which it understands nothing.
type Wire struct {
	t        *testing.T
	listener net.Listener

	mu      sync.Mutex
	network string
	server  string
	fault   Fault
	links   map[*link]struct{}
}

// Fault is what a Wire does.
type Fault int

// The faults. What is lost is lost silently, and the other side waits; once the fault is over, the connection is cut, as a network
// ends one whose bytes it has lost: a stream with a hole in it does not exist.
const (
	// None passes everything on.
	None Fault = iota
	// Refused closes connections, the open ones too, before anything is sent: an error before the write.
	Refused
	// LostRequests drops what the store sends: a timeout, and nothing was written.
	LostRequests
	// LostAnswers drops what the server answers: a timeout, and it was written.
	LostAnswers
	// CutAnswers closes the connection in place of the first answer: an error after the write.
	CutAnswers
	// Slow holds every answer back for SlowBy.
	Slow
)

// SlowBy is how late a Slow wire delivers answers.
const SlowBy = 200 * time.Millisecond

type link struct{ client, server net.Conn }

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// NewWire listens on a port of its own and passes everything on to the server until it is told otherwise.
func NewWire(t *testing.T, network, server string) *Wire {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{t: t, server: server, network: network, listener: l, links: map[*link]struct{}{}}
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
	})
	go w.accept()
	return w
}

// Address is where the store finds its server.
func (w *Wire) Address() string { return w.listener.Addr().String() }

// Fail makes the wire behave so from now on, connections that are open included.
func (w *Wire) Fail(f Fault) {
	w.mu.Lock()
	w.fault = f
	w.mu.Unlock()
	if f == Refused {
		w.cut()
	}
}

// Lead ends all connections, and leads to another server from now on, as an address does after a failover.
func (w *Wire) Lead(network, server string) {
	w.mu.Lock()
	w.network, w.server = network, server
	w.mu.Unlock()
	w.cut()
}

// cut closes all connections.
func (w *Wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		l.close()
	}
}

func (w *Wire) state() Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault
}

func (w *Wire) dial() (net.Conn, error) {
	w.mu.Lock()
	network, server := w.network, w.server
	w.mu.Unlock()
	return new(net.Dialer).DialContext(w.t.Context(), network, server)
}

func (w *Wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		if w.state() == Refused {
			_ = client.Close()
			continue
		}
		server, err := w.dial()
		if err != nil {
			_ = client.Close() // as the server would
			continue
		}
		l := &link{client, server}
		w.mu.Lock()
		w.links[l] = struct{}{}
		w.mu.Unlock()
		go w.pass(l, server, client, LostRequests)
		go w.pass(l, client, server, LostAnswers)
	}
}

// pass copies one direction, of which lost is the fault.
func (w *Wire) pass(l *link, to io.Writer, from io.Reader, lost Fault) {
	defer func() {
		l.close()
		w.mu.Lock()
		delete(w.links, l)
		w.mu.Unlock()
	}()
	for buf := make([]byte, 64<<10); ; {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		switch f := w.state(); {
		case f == lost:
			for w.state() == lost {
				time.Sleep(time.Millisecond)
			}
			return
		case f == CutAnswers && lost == LostAnswers:
			return
		case f == Slow && lost == LostAnswers:
			time.Sleep(SlowBy)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
