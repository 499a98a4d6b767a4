// Package decisionlog writes what was decided about each request as JSON lines, without token material: bounded and behind the
// requests, or blocking.
package decisionlog

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// MinKey is the least length of Config.Key in bytes.
const MinKey = 32

// ErrClosed is returned for a record that arrives after Close.
var ErrClosed = errors.New("decision log: closed")

// Config says where records go and what happens when they cannot.
type Config struct {
	// To is "stdout", "stderr", "off", or the path of a file to append to.
	To string
	// Blocking writes each record before Record returns, so that its error can refuse the request. Otherwise records are
	// written behind the requests; those that do not fit the buffer are dropped and counted.
	Blocking bool
	// Buffer is how many records may wait, default 4096.
	Buffer int
	// Key keys Hash; nil draws a random one, good for this process only. At least MinKey bytes.
	Key []byte
	// Dropped is called for every record that was lost; it must not block.
	Dropped func()
	// Log hears of write errors; the first of a row of them.
	Log *slog.Logger
	// Stdout and Stderr stand for the process's own, for tests.
	Stdout, Stderr io.Writer
}

// Log writes records as JSON lines. It is safe for concurrent use.
type Log struct {
	config  Config
	records chan Record   // nil when blocking or off
	drained chan struct{} // closed when the writer goroutine has ended
	done    atomic.Bool
	hashers sync.Pool

	mu     sync.Mutex // guards what follows, and the writes
	out    *bufio.Writer
	line   bytes.Buffer
	file   *os.File // nil unless To is a path
	failed bool     // the last write failed, and that was said
	closed bool
}

// Open opens the log. The caller closes it after the last record.
func Open(c Config) (*Log, error) {
	if c.Key == nil {
		c.Key = make([]byte, MinKey)
		_, _ = rand.Read(c.Key) // never fails since Go 1.24
	}
	if len(c.Key) < MinKey {
		return nil, fmt.Errorf("decision log: the key has %d bytes: want at least %d random ones (openssl rand -hex 32)", len(c.Key), MinKey)
	}
	c.Buffer = cmp.Or(c.Buffer, 4096)
	if c.Stdout == nil {
		c.Stdout = os.Stdout
	}
	if c.Stderr == nil {
		c.Stderr = os.Stderr
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dropped == nil {
		c.Dropped = func() {}
	}
	l := &Log{config: c}
	l.hashers.New = func() any { return &hasher{Hash: hmac.New(sha256.New, c.Key)} }
	if err := l.open(); err != nil {
		return nil, err
	}
	if l.out != nil && !c.Blocking {
		l.records, l.drained = make(chan Record, c.Buffer), make(chan struct{})
		go l.drain()
	}
	return l, nil
}

func (l *Log) open() error {
	switch l.config.To {
	case "off":
	case "stdout":
		l.out = bufio.NewWriter(l.config.Stdout)
	case "stderr":
		l.out = bufio.NewWriter(l.config.Stderr)
	default:
		f, err := os.OpenFile(l.config.To, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("decision log: %w: name a file that can be appended to, stdout, stderr or off in decision_log.to", err)
		}
		l.file, l.out = f, bufio.NewWriter(f)
	}
	return nil
}

// Reopen opens the file anew, after something has moved it away (log rotation). It does nothing for a log without one.
func (l *Log) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.file
	if old == nil || l.closed {
		return nil
	}
	l.flush()
	if err := l.open(); err != nil {
		return err // the old one stays in use
	}
	return old.Close()
}

// Record takes one record and keeps nothing of it but a copy. The error of a blocking log says that the record is not
// written; an asynchronous one never fails, it drops and counts.
func (l *Log) Record(r *Record) error {
	switch {
	case l.config.To == "off":
		return nil
	case l.config.Blocking:
		return l.write(r, true)
	case l.done.Load():
		l.config.Dropped()
		return nil
	}
	select {
	case l.records <- *r:
	default:
		l.config.Dropped()
	}
	return nil
}

// drain writes behind the requests. It flushes whenever nothing waits, so that a quiet log is a current one.
func (l *Log) drain() {
	defer close(l.drained)
	var r Record // one for all: it escapes into the encoder
	for r = range l.records {
		if r.Phase == phaseEnd {
			return
		}
		if err := l.write(&r, len(l.records) == 0); err != nil {
			l.config.Dropped()
		}
	}
}

// phaseEnd marks the record that ends the writer: the channel is never closed, since requests may still send.
const phaseEnd = "\x00end"

func (l *Log) write(r *Record, flush bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.line.Reset()
	if err := json.NewEncoder(&l.line).Encode(r); err != nil { // with a line feed
		return fmt.Errorf("decision log: encode: %w", err)
	}
	_, err := l.out.Write(l.line.Bytes())
	if err == nil && flush {
		err = l.out.Flush()
	}
	return l.outcome(err)
}

// outcome says the first of a row of write errors, and starts afresh after it: a bufio.Writer keeps its error for ever.
// The caller holds mu.
func (l *Log) outcome(err error) error {
	if err == nil {
		l.failed = false
		return nil
	}
	if !l.failed {
		l.config.Log.Error("decision log cannot be written", "to", l.config.To, "error", err)
	}
	l.failed = true
	switch {
	case l.file != nil:
		l.out.Reset(l.file)
	case l.config.To == "stderr":
		l.out.Reset(l.config.Stderr)
	default:
		l.out.Reset(l.config.Stdout)
	}
	return fmt.Errorf("decision log: %w", err)
}

func (l *Log) flush() { _ = l.outcome(l.out.Flush()) }

// Close writes what waits, for at most the given time, and closes the file.
func (l *Log) Close(within time.Duration) error {
	if l.done.Swap(true) {
		return nil
	}
	if l.records != nil {
		timeout := time.After(within)
		select {
		case l.records <- Record{Phase: phaseEnd}:
			select {
			case <-l.drained:
			case <-timeout:
			}
		case <-timeout:
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed = true; l.out == nil {
		return nil
	}
	err := l.outcome(l.out.Flush())
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	return err
}

// Hash makes a value unreadable and comparable: HMAC-SHA-256 over the length-prefixed kind and the value, the first 16
// bytes in hexadecimal. A log that is off answers "": nobody would read it.
func (l *Log) Hash(kind, value string) string {
	if l.config.To == "off" {
		return ""
	}
	h, _ := l.hashers.Get().(*hasher)
	defer l.hashers.Put(h)
	h.Reset()
	h.text = append(append(append(h.text[:0], byte(len(kind))), kind...), value...)
	h.Write(h.text)
	var text [32]byte
	hex.Encode(text[:], h.Sum(h.sum[:0])[:16])
	return string(text[:])
}

// hasher is a keyed hash with its scratch, which would be allocated for every call through an interface.
type hasher struct {
	hash.Hash
	text []byte
	sum  [sha256.Size]byte
}
