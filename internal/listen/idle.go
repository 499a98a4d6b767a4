package listen

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// idleHandler bounds pauses within request bodies, and within answers where the connection cannot: in HTTP/2 a client stalls
// one stream by not opening its window. HTTP/1 ResponseWriters are passed on as they are, with all that they can do.
type idleHandler struct {
	next                http.Handler
	readIdle, writeIdle time.Duration
}

func (h *idleHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var rc *http.ResponseController
	if r.ProtoMajor >= 2 {
		rc = http.NewResponseController(w)
		hw := &streamWriter{ResponseWriter: w, rc: rc, idle: h.writeIdle}
		defer hw.finish()
		w = hw
	}
	if r.Body != nil && r.Body != http.NoBody {
		original := r.Body
		b := newBody(original, r, rc, h.readIdle)
		r.Body = b
		// Leaving it in place looks harmless, but net/http asks the type of this very field whether the body was closed
		// early, and would keep a connection whose next bytes are the rest of the body (server.go, closedRequestBodyEarly).
		defer func() { b.finish(); r.Body = original }()
	}
	h.next.ServeHTTP(w, r)
}

// body renews the read deadline before each read. A client that sends nothing within it gets an error there.
type body struct {
	io.ReadCloser
	idle time.Duration
	arm  func(time.Time) error

	mu    sync.Mutex
	ended bool // the end was reached, or the handler has returned: the connection is no longer ours
}

func newBody(rc io.ReadCloser, r *http.Request, ctl *http.ResponseController, idle time.Duration) *body {
	b := &body{ReadCloser: rc, idle: idle}
	c, ok := r.Context().Value(connKey{}).(*conn)
	switch {
	case ctl != nil:
		b.arm = ctl.SetReadDeadline // of the stream
	case ok:
		b.arm = c.armRead
	default:
		b.arm = func(time.Time) error { return nil } // not served by this package
	}
	_ = b.renew() // a handler that never reads leaves the body to net/http, which drains it under this deadline
	return b
}

func (b *body) renew() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return http.ErrBodyReadAfterClose
	}
	return b.arm(time.Now().Add(b.idle))
}

// Read may be called by a transport's goroutine while the handler returns.
func (b *body) Read(p []byte) (int, error) {
	if err := b.renew(); err != nil {
		if errors.Is(err, http.ErrBodyReadAfterClose) {
			return b.afterEnd(p)
		}
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.end()
	}
	return n, err
}

// afterEnd asks the body itself, which answers EOF or that it is closed without touching the connection.
func (b *body) afterEnd(p []byte) (int, error) {
	return b.ReadCloser.Read(p)
}

// Close has net/http read what is left. Without an error that was all of it, or so much that it closes the connection.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	if err == nil {
		b.end()
	}
	return err
}

// end lifts the deadline: from here on net/http reads in the background to learn that the client has gone.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended = true
		_ = b.arm(time.Time{}) // a connection that cannot take a deadline fails at its next read
	}
}

// finish leaves a fresh deadline for net/http's drain of what the handler did not read.
func (b *body) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended = true
		_ = b.arm(time.Now().Add(b.idle)) // as in end
	}
}

// streamWriter bounds each write to an HTTP/2 stream.
type streamWriter struct {
	http.ResponseWriter
	rc   *http.ResponseController
	idle time.Duration
}

// piece is the largest frame; a stream must take one within idle.
const piece = 16 << 10

// Write clears the deadline afterwards: HTTP/2 resets a stream when it passes even if nothing is being written.
func (w *streamWriter) Write(p []byte) (int, error) {
	total := 0
	for {
		part := p[total:min(len(p), total+piece)]
		n, err := w.bounded(func() (int, error) { return w.ResponseWriter.Write(part) })
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// FlushError is found by http.ResponseController.
func (w *streamWriter) FlushError() error {
	_, err := w.bounded(func() (int, error) { return 0, w.rc.Flush() })
	return err
}

// Flush implements http.Flusher.
func (w *streamWriter) Flush() { _ = w.FlushError() } // the next Write reports it

func (w *streamWriter) bounded(do func() (int, error)) (int, error) {
	if err := w.rc.SetWriteDeadline(time.Now().Add(w.idle)); err != nil {
		return 0, err
	}
	n, err := do()
	if err != nil {
		return n, err
	}
	return n, w.rc.SetWriteDeadline(time.Time{})
}

// finish bounds the flush of what is still buffered when the handler returns.
func (w *streamWriter) finish() { _ = w.rc.SetWriteDeadline(time.Now().Add(w.idle)) } // fails only if the stream has ended

// Unwrap serves http.ResponseController.
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
