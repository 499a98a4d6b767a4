package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stepward/stepward/gate"
)

var errTooLarge = errors.New("proxy: request body is larger than limits.max_body")

// fault is what went wrong with a request body; the transport's own error text does not tell.
type fault int32

const (
	noFault fault = iota
	faultTooLarge
	faultClient // the client stopped sending
)

// requestBody bounds a request body in size and time, and remembers why it failed. It has no GetBody, so that
// http.Transport cannot send it twice.
type requestBody struct {
	rc      io.ReadCloser
	left    int64
	limited bool
	ends    time.Time
	ended   atomic.Bool
	fault   atomic.Int32
}

func (b *requestBody) Read(p []byte) (int, error) {
	// Transport reads once more behind the last byte. The backend may have answered by then, net/http has closed the body for
	// that, and its error would make Transport cut the answer.
	if b.ended.Load() {
		return 0, io.EOF
	}
	if time.Now().After(b.ends) {
		b.fault.Store(int32(faultClient))
		return 0, os.ErrDeadlineExceeded
	}
	if b.limited && int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more byte than allowed tells a body that is too large from one that just fits
	}
	n, err := b.rc.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	if b.limited {
		if b.left -= int64(n); b.left < 0 {
			b.fault.Store(int32(faultTooLarge))
			return n + int(b.left), errTooLarge
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.fault.Store(int32(faultClient))
	}
	return n, err
}

func (b *requestBody) Close() error { return b.rc.Close() }

// emptyBody is a body that http.Transport does not know to be empty before it reads it.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }

// readPrefix returns the whole body if it has at most limit bytes, and puts what it read back for the backend.
func readPrefix(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, gate.ErrBodyTooLarge
	}
	body := r.Body
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(body, limit+1))
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(buf.Bytes()), body), body}
	switch {
	case errors.Is(err, errTooLarge), n > limit:
		return nil, gate.ErrBodyTooLarge
	case err != nil:
		return nil, gate.ErrBodyUnreadable
	}
	return buf.Bytes(), nil
}

// responseBody ends a stream that outlives limits.stream.
type responseBody struct {
	io.ReadCloser
	mu    sync.Mutex
	timer *time.Timer
}

// bound makes res end at the given time if how long it takes is not known beforehand.
func (b *responseBody) bound(res *http.Response, ends time.Time) {
	const short = 1 << 20
	if res.Body == nil || res.ContentLength >= 0 && res.ContentLength <= short {
		return
	}
	b.ReadCloser = res.Body
	res.Body = b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(time.Until(ends), func() { _ = b.Close() }) // the reader gets the error
}

func (b *responseBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}
