package redis

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is a connection that rueidis uses. It knows how long the server has been silent.
type link struct {
	net.Conn
	links   *links
	replica bool
	opened  time.Time
	asked   atomic.Int64 // ns: when the first thing was sent that nothing has been read after; 0 if there is none
}

var errReplicaLink = errors.New("this connection was made to a replica")

// Write refuses scripts on a connection to a replica. rueidis keeps such connections in a cluster, to ask for its topology. When
// the replica is promoted they live on, and nothing has compared the epoch with the server on them: see handshake.
func (l *link) Write(b []byte) (int, error) {
	if l.replica && (len(b) > 4096 || bytes.Contains(b, []byte("EVAL"))) {
		_ = l.Close()
		return 0, errReplicaLink
	}
	l.asked.CompareAndSwap(0, time.Now().UnixNano())
	return l.Conn.Write(b)
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.asked.Store(0)
	}
	return n, err
}

func (l *link) Close() error {
	l.links.remove(l)
	return l.Conn.Close()
}

// links are all open connections.
type links struct {
	mu     sync.Mutex
	open   map[*link]struct{}
	closed bool
}

// add returns false when no more are wanted.
func (ls *links) add(l *link) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return false
	}
	if ls.open == nil {
		ls.open = map[*link]struct{}{}
	}
	ls.open[l] = struct{}{}
	return true
}

func (ls *links) remove(l *link) {
	ls.mu.Lock()
	delete(ls.open, l)
	ls.mu.Unlock()
}

// drop closes the connections made before a time on which the server has been silent for at least so long; 0 is all of them.
// rueidis notices a connection that leads nowhere only after seconds, and would have requests wait on it for so long.
func (ls *links) drop(before time.Time, silent time.Duration) {
	limit := time.Now().Add(-silent).UnixNano()
	ls.closeIf(func(l *link) bool {
		asked := l.asked.Load()
		return l.opened.Before(before) && (silent == 0 || asked != 0 && asked <= limit)
	})
}

// shut closes all connections and those to come.
func (ls *links) shut() {
	ls.mu.Lock()
	ls.closed = true
	ls.mu.Unlock()
	ls.closeIf(func(*link) bool { return true })
}

func (ls *links) closeIf(is func(*link) bool) {
	ls.mu.Lock()
	var found []*link
	for l := range ls.open {
		if is(l) {
			found = append(found, l)
		}
	}
	ls.mu.Unlock()
	for _, l := range found {
		_ = l.Close() // Its user sees that.
	}
}
