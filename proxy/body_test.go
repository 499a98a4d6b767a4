package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// closing is a body that net/http closes once its last byte was read, as it does when the answer begins.
type closing struct{ read bool }

func (c *closing) Read(p []byte) (int, error) {
	if c.read {
		return 0, http.ErrBodyReadAfterClose
	}
	c.read = true
	return copy(p, "last"), io.EOF
}

func (c *closing) Close() error { return nil }

// Transport reads behind the last byte, and takes an error there for a request that was not sent.
func TestReadingBehindTheLastByteIsNoError(t *testing.T) {
	b := &requestBody{rc: &closing{}, ends: time.Now().Add(time.Minute)}
	buf := make([]byte, 8)
	if n, err := b.Read(buf); n != 4 || err != io.EOF { //nolint:errorlint // io.Reader's contract: io.EOF itself
		t.Fatalf("got %d, %v", n, err)
	}
	if n, err := b.Read(buf); n != 0 || err != io.EOF || fault(b.fault.Load()) != noFault { //nolint:errorlint // as above
		t.Errorf("behind the end: got %d, %v, fault %d", n, err, b.fault.Load())
	}
}
