package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dialTimeout is for a connection and its handshake, and longer than a request waits: see dialer.
const dialTimeout = 2 * time.Second

// dialError says that there was no connection, so that nothing can have been sent on it.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dialer makes connections for rueidis. A request that needs one may have too little time for it. Its attempt then goes on,
// and the next request that asks for the same server takes it over; otherwise a server to which a handshake takes longer than
// a request may would never be reached.
type dialer struct {
	connect func(ctx context.Context, addr string) (*link, error)

	ctx  context.Context //nolint:containedctx // ends all attempts when the store is closed
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	parked map[string]chan dialed // attempts that nobody waits for
	closed bool
}

type dialed struct {
	link *link
	err  error
}

func newDialer(connect func(context.Context, string) (*link, error)) *dialer {
	ctx, stop := context.WithCancel(context.Background())
	return &dialer{connect: connect, ctx: ctx, stop: stop, parked: map[string]chan dialed{}}
}

// dial is rueidis' DialCtxFn. All its errors are dialErrors.
func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	attempt, err := d.attempt(addr)
	if err != nil {
		return nil, &dialError{err}
	}
	select {
	case done := <-attempt:
		if done.err != nil {
			return nil, &dialError{done.err}
		}
		return done.link, nil
	case <-ctx.Done():
		d.park(addr, attempt)
		return nil, &dialError{fmt.Errorf("connect to %s: %w", addr, ctx.Err())}
	}
}

// attempt takes over one that is parked, or begins another.
func (d *dialer) attempt(addr string) (chan dialed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if attempt := d.parked[addr]; attempt != nil {
		delete(d.parked, addr)
		return attempt, nil
	}
	attempt := make(chan dialed, 1)
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
		defer cancel()
		l, err := d.connect(ctx, addr)
		if err != nil {
			err = fmt.Errorf("connect to %s: %w", addr, err)
		}
		attempt <- dialed{l, err}
	})
	return attempt, nil
}

func (d *dialer) park(addr string, attempt chan dialed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parked[addr] == nil && !d.closed {
		d.parked[addr] = attempt
		return
	}
	d.wg.Go(func() { discard(attempt) })
}

func discard(attempt chan dialed) {
	if done := <-attempt; done.err == nil {
		_ = done.link.Close() // Nothing was sent on it.
	}
}

func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	parked := d.parked
	d.parked = nil
	d.mu.Unlock()
	d.stop()
	for _, attempt := range parked {
		discard(attempt)
	}
	d.wg.Wait()
}

// connect makes a connection and shakes hands on it.
func (s *Store) connect(ctx context.Context, addr string) (*link, error) {
	conn, err := s.dialOnce(ctx, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	l := &link{Conn: conn, links: &s.links}
	if err := s.handshake(l); err != nil {
		_ = conn.Close() // The handshake's error says more.
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", ctx.Err())
		}
		return nil, err
	}
	l.opened = time.Now()
	if !s.links.add(l) {
		_ = conn.Close()
		return nil, errClosed
	}
	return l, nil
}

func (s *Store) dialOnce(ctx context.Context, addr string) (net.Conn, error) {
	d := &net.Dialer{KeepAlive: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil || s.tls == nil {
		return conn, err
	}
	c := s.tls.Clone()
	c.ServerName, _, _ = net.SplitHostPort(addr) // DialContext has understood it.
	secured := tls.Client(conn, c)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // The handshake's error says more.
		return nil, fmt.Errorf("is there TLS at this port? %w", err)
	}
	return secured, nil
}

// handshake authenticates, and makes sure that every bucket's epoch is this server's, before rueidis sends a reservation.
//
// Why on every connection: a connection does not outlive the server's process. So while one is open the process that
// compared its run with the epoch is the one that answers, and has not restarted; a restarted or a promoted server is reached
// only over a new connection, whose handshake renews the epoch before anything else is sent there, whoever's connection is
// the first. A reservation that was decided by the old epoch finds another on the server and does nothing. To ask for the
// run in every reservation, with INFO, would cost 40 % of the throughput.
//
// A master that becomes a replica and a master again keeps its connections and its run, in a cluster; Sentinel ends them.
// The watch finds that within a second by the replication's identity. What stands between Stepward and the server and hides
// which server answers, such as a Redis proxy, breaks the argument: see docs/ledger.md.
func (s *Store) handshake(l *link) error {
	c := &conversation{conn: l.Conn, reader: replyReader{r: bufio.NewReader(l.Conn)}}
	if s.address.mode == sentinel {
		// A Sentinel often knows no users, so it is asked first what it is.
		role, err := c.ask([]string{"ROLE"})
		if err != nil {
			return err
		}
		if isSentinel(role[0]) {
			return c.end()
		}
	}
	setup := s.setup()
	args := s.renewArgs()
	for b := range s.buckets {
		setup = append(setup, append([]string{"EVAL", renewScript.text, "1", s.epochKey(b)}, args...))
	}
	began := time.Now()
	replies, err := c.ask(setup...)
	if err != nil {
		return err
	}
	took := time.Since(began)
	if s.address.mode == sentinel && isSentinelWithUsers(replies) {
		return c.end()
	}
	if err := s.welcome(l, setup, replies, took); err != nil {
		return err
	}
	return c.end()
}

// setup is what comes before the epochs.
func (s *Store) setup() [][]string {
	var cmds [][]string
	switch a := s.address; {
	case a.user != "":
		cmds = append(cmds, []string{"AUTH", a.user, a.password})
	case a.password != "":
		cmds = append(cmds, []string{"AUTH", a.password})
	}
	if s.address.db != 0 {
		cmds = append(cmds, []string{"SELECT", strconv.Itoa(s.address.db)})
	}
	return append(cmds, []string{"ROLE"})
}

func isSentinel(role reply) bool {
	return role.kind == '*' && len(role.array) > 0 && role.array[0].text == "sentinel"
}

// isSentinelWithUsers is for one that wanted the password first. It knows neither SELECT nor EVAL.
func isSentinelWithUsers(replies []reply) bool {
	for _, r := range replies {
		if isSentinel(r) {
			return true
		}
	}
	return false
}

// welcome looks at the answers to the handshake.
func (s *Store) welcome(l *link, sent [][]string, replies []reply, took time.Duration) error {
	var fresh *renewed
	bucket := 0
	for i, r := range replies {
		switch sent[i][0] {
		case "ROLE":
			if r.kind != '*' || len(r.array) == 0 {
				return answerError("ROLE", r)
			}
			if l.replica = r.array[0].text != "master"; l.replica && s.address.mode != cluster {
				return errors.New("READONLY: it is a replica: name the master, or the Sentinels with redis+sentinel://")
			}
		case "EVAL":
			if err := s.learnReply(bucket, r, took, &fresh); err != nil {
				return err
			}
			bucket++
		default:
			if r.kind == '-' {
				return answerError(sent[i][0], r)
			}
		}
	}
	if fresh != nil {
		s.raised(*fresh)
	}
	return nil
}

// learnReply takes in what renewScript answered for a bucket, which in a cluster may lie elsewhere.
func (s *Store) learnReply(bucket int, r reply, took time.Duration, fresh **renewed) error {
	if r.kind == '-' {
		word, _, _ := strings.Cut(r.text, " ")
		if s.address.mode == cluster && (word == "MOVED" || word == "ASK") {
			return nil
		}
		return answerError("EVAL", r)
	}
	if r.kind != '*' || len(r.array) != 4 {
		return errProtocol
	}
	first, err := strconv.ParseInt(r.array[1].text, 10, 64)
	if err != nil {
		return errProtocol
	}
	n, err := parseRenewed(r.array[0].text, first, r.array[2].text, r.array[3].text)
	if err != nil {
		return err
	}
	s.learn(bucket, n, took)
	if n.fresh != epochKept {
		*fresh = &n
	}
	return nil
}

// conversation is what is said on a connection before rueidis has it.
type conversation struct {
	conn   net.Conn
	reader replyReader
}

func (c *conversation) ask(cmds ...[]string) ([]reply, error) {
	var out []byte
	for _, args := range cmds {
		out = command(out, args...)
	}
	if _, err := c.conn.Write(out); err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	replies := make([]reply, len(cmds))
	for i := range replies {
		var err error
		if replies[i], err = c.reader.read(); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// end makes sure that rueidis finds the connection in step.
func (c *conversation) end() error {
	if c.reader.r.Buffered() > 0 {
		return fmt.Errorf("%w: it says more than it was asked", errProtocol)
	}
	return nil
}
