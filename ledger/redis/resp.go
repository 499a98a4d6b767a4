package redis

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// reply is one answer of a server, in the protocol's second version.
type reply struct {
	kind  byte // + - : $ *
	text  string
	array []reply
	null  bool
}

// Bounds on what a handshake's answers may be. ROLE lists the replicas, and a Sentinel its masters.
const (
	maxReplyText  = 16 << 10
	maxReplyItems = 1024
	maxReplyDepth = 4
)

var errProtocol = errors.New("the answer is not in Redis's protocol")

// replyReader reads the answers to a handshake, before rueidis has the connection. It must not take a byte more than they
// have: it stands on a reader without bytes to spare once the last answer was read.
type replyReader struct {
	r     *bufio.Reader
	items int // that one answer may still have
}

func (r *replyReader) read() (reply, error) {
	r.items = maxReplyItems
	return r.one(maxReplyDepth)
}

func (r *replyReader) one(depth int) (reply, error) {
	if depth == 0 || r.items == 0 {
		return reply{}, fmt.Errorf("%w: too large", errProtocol)
	}
	r.items--
	line, err := r.line()
	if err != nil {
		return reply{}, err
	}
	if line == "" {
		return reply{}, errProtocol
	}
	p := reply{kind: line[0], text: line[1:]}
	switch p.kind {
	case '+', '-':
		return p, nil
	case ':':
		_, err := strconv.ParseInt(p.text, 10, 64)
		if err != nil {
			return reply{}, errProtocol
		}
		return p, nil
	case '$':
		return r.bulk(p.text)
	case '*':
		return r.list(p.text, depth)
	}
	return reply{}, errProtocol
}

func (r *replyReader) bulk(size string) (reply, error) {
	n, err := length(size, maxReplyText)
	if err != nil || n < 0 {
		return reply{kind: '$', null: true}, err
	}
	text := make([]byte, n+2)
	if _, err := io.ReadFull(r.r, text); err != nil {
		return reply{}, fmt.Errorf("read: %w", err)
	}
	if string(text[n:]) != "\r\n" {
		return reply{}, errProtocol
	}
	return reply{kind: '$', text: string(text[:n])}, nil
}

func (r *replyReader) list(size string, depth int) (reply, error) {
	n, err := length(size, maxReplyItems)
	if err != nil || n < 0 {
		return reply{kind: '*', null: true}, err
	}
	p := reply{kind: '*'}
	for range n {
		item, err := r.one(depth - 1)
		if err != nil {
			return reply{}, err
		}
		p.array = append(p.array, item)
	}
	return p, nil
}

// length is -1 for what is not there.
func length(text string, most int) (int, error) {
	if text == "-1" {
		return -1, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, errProtocol
	}
	if int(n) > most {
		return 0, fmt.Errorf("%w: too large", errProtocol)
	}
	return int(n), nil
}

// line reads up to the first line end.
func (r *replyReader) line() (string, error) {
	var line []byte
	for {
		b, err := r.r.ReadByte()
		if err != nil {
			return "", fmt.Errorf("read: %w", err)
		}
		line = append(line, b)
		if b == '\n' {
			break
		}
		if len(line) > maxReplyText {
			return "", fmt.Errorf("%w: too large", errProtocol)
		}
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || strings.ContainsRune(text, '\r') {
		return "", errProtocol
	}
	return text, nil
}

// command appends a command as a server reads it.
func command(b []byte, args ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}
