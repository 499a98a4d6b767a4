package redis

import (
	"bufio"
	"bytes"
)

// ReadReply reads one answer of a handshake and returns how much it took.
func ReadReply(text []byte) (int, error) {
	r := replyReader{r: bufio.NewReaderSize(bytes.NewReader(text), len(text)+16)}
	_, err := r.read()
	return len(text) - r.r.Buffered(), err
}
