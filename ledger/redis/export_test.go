package redis

import (
	"bufio"
	"bytes"
	"context"
	"time"
)

// ReadReply reads one answer of a handshake and returns how much it took.
func ReadReply(text []byte) (int, error) {
	r := replyReader{r: bufio.NewReaderSize(bytes.NewReader(text), len(text)+16)}
	_, err := r.read()
	return len(text) - r.r.Buffered(), err
}

// OpenAt is Open on a machine whose real clock shows something else.
func OpenAt(ctx context.Context, c Config, clock func() time.Time) (*Store, error) {
	s, err := newStore(c)
	if err != nil {
		return nil, err
	}
	s.real = clock
	return s.open(ctx)
}
