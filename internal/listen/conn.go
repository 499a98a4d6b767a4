package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// listener bounds the number of open connections and remembers them.
type listener struct {
	net.Listener
	writeIdle time.Duration
	slots     chan struct{} // holds one element per open connection
	done      chan struct{}
	close     sync.Once

	mu    sync.Mutex
	conns map[*conn]struct{} // guarded by mu; nil once closeConns was called
}

func newListener(inner net.Listener, maxConns int, writeIdle time.Duration) *listener {
	return &listener{
		Listener: inner, writeIdle: writeIdle, conns: map[*conn]struct{}{},
		slots: make(chan struct{}, maxConns), done: make(chan struct{}),
	}
}

// Accept takes a slot first: a client beyond the limit waits in the kernel and costs no descriptor here.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	inner, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	c := &conn{Conn: inner, from: l}
	l.mu.Lock()
	open := l.conns != nil
	if open {
		l.conns[c] = struct{}{}
	}
	l.mu.Unlock()
	if !open {
		_ = c.Close() // accepted while shutting down
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *listener) Close() error {
	l.close.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// closeConns closes what is still open, hijacked connections included.
func (l *listener) closeConns() {
	l.mu.Lock()
	left := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range left {
		_ = c.Close() // it is thrown away
	}
}

// conn is an accepted connection below TLS, where progress is bytes that the kernel took.
type conn struct {
	net.Conn
	from    *listener
	release sync.Once

	explicit atomic.Int64 // write deadline that somebody above set, in Unix nanoseconds; 0 = none
	unread   atomic.Bool  // a request body has not been read to its end
	desynced atomic.Bool  // reading stopped in the middle of a body
}

func (c *conn) Close() error {
	c.release.Do(func() {
		c.from.mu.Lock()
		delete(c.from.conns, c)
		c.from.mu.Unlock()
		<-c.from.slots
	})
	return c.Conn.Close()
}

// CloseWrite is looked for by net/http, so that a refusal written over unread bytes (431, 413) is not lost in a reset.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok { // TCP and Unix connections both do
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read refuses to go on after a timeout within a body. net/http would: when draining a body after its handler fails, the
// error is dropped and the rest of the body is parsed as the next request (transfer.go, body.Close).
func (c *conn) Read(p []byte) (int, error) {
	if c.desynced.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	if err != nil && c.unread.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		c.desynced.Store(true)
	}
	return n, err
}

// armRead sets the deadline for the next bytes of a request body; zero says that its end was reached.
func (c *conn) armRead(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	c.unread.Store(!t.IsZero())
	return err
}

// SetReadDeadline is how net/http turns from one request to the next: no body is open any more. A deadline in the past is how
// it ends a read that goes on when the handler returns, and if that one reads a body, its rest must not become a request.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.unread.Swap(false) && !t.IsZero() && t.Before(time.Now()) {
		c.desynced.Store(true)
	}
	return c.Conn.SetReadDeadline(t)
}

// Write gives up when the client has taken no byte for writeIdle, or at a deadline set from above.
func (c *conn) Write(p []byte) (int, error) {
	total := 0
	for {
		deadline, final := c.nextWriteDeadline()
		if err := c.Conn.SetWriteDeadline(deadline); err != nil {
			return total, err
		}
		n, err := c.Conn.Write(p[total:])
		total += n
		if err == nil || n == 0 || final || !errors.Is(err, os.ErrDeadlineExceeded) {
			return total, err
		}
	}
}

// nextWriteDeadline is writeIdle from now or the explicit deadline, whichever is first; final says that it is the latter.
func (c *conn) nextWriteDeadline() (t time.Time, final bool) {
	idle := time.Now().Add(c.from.writeIdle)
	if ns := c.explicit.Load(); ns != 0 && ns < idle.UnixNano() {
		return time.Unix(0, ns), true
	}
	return idle, false
}

// SetWriteDeadline keeps the deadline for the writes to come and applies it to one that is blocked.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		c.explicit.Store(0)
		return nil // the idle deadline of a blocked write stays
	}
	c.explicit.Store(t.UnixNano())
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is both, as for every net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

type connKey struct{}

// withConn lets handlers find the connection of an HTTP/1 request.
func withConn(ctx context.Context, nc net.Conn) context.Context {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, nc)
}
