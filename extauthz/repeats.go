package extauthz

import (
	"crypto/sha256"
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// DedupConfig is about questions that Envoy asks twice for one request: when it buffers the body anew, when its gRPC client
// retries, and on internal redirects. The second would find its token spent.
type DedupConfig struct {
	// For is how long an answer is given again; 0 gives none. It is a hole as wide as this: whoever can send a request with the
	// x-request-id of another is let through once more. Envoy must make the ids itself.
	For time.Duration
}

// maxRepeats bounds what is remembered. Beyond it, a question is judged like any other.
const maxRepeats = 4096

// repeats remembers the answers that spent a token.
type repeats struct {
	ttl time.Duration
	now func() time.Time

	mu    sync.Mutex
	known map[[32]byte]repeat // guarded by mu
	order [][32]byte          // oldest first; guarded by mu
}

type repeat struct {
	answer message
	until  time.Time
}

func newRepeats(c DedupConfig, now func() time.Time) *repeats {
	if c.For <= 0 {
		return nil
	}
	return &repeats{ttl: c.For, now: now, known: map[[32]byte]repeat{}}
}

// fingerprint names a question by all that was judged. Only a peer that proved who it is, by TLS or by the rights on a socket,
// may repeat one, and only by the request id that Envoy gave it.
func (r *repeats) fingerprint(from *peer.Peer, q *question, a *asked) (sum [32]byte, ok bool) {
	if r == nil || a.request.RequestID == "" || !provenPeer(from) {
		return sum, false
	}
	h := sha256.New()
	write := func(s string) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		h.Write(size[:])
		h.Write([]byte(s))
	}
	for _, s := range []string{q.method, q.path, q.host, q.scheme, q.protocol, q.body, a.request.Environment} {
		write(s)
	}
	// The client's header decides as much as the target does, and of what was told there is much that the answer says to remove.
	// Envoy's own field differs between two attempts.
	for _, name := range sortedKeys(a.told) {
		if name == "X-Envoy-Attempt-Count" {
			continue
		}
		write(name)
		write(strconv.Itoa(len(a.told[name]))) // a value must not pass for the next name
		for _, value := range slices.Sorted(slices.Values(a.told[name])) {
			write(value)
		}
	}
	return [32]byte(h.Sum(nil)), true
}

func provenPeer(p *peer.Peer) bool {
	if p == nil {
		return false
	}
	if _, ok := p.Addr.(*net.UnixAddr); ok {
		return true
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	return ok && len(info.State.VerifiedChains) > 0
}

func (r *repeats) find(key [32]byte, may bool) message {
	if r == nil || !may {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.known[key]; ok && r.now().Before(found.until) {
		return found.answer
	}
	return nil
}

func (r *repeats) keep(key [32]byte, may bool, answer message) {
	if r == nil || !may {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 && (len(r.order) >= maxRepeats || !r.now().Before(r.known[r.order[0]].until)) {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	if _, there := r.known[key]; !there {
		r.order = append(r.order, key)
	}
	r.known[key] = repeat{answer, r.now().Add(r.ttl)}
}
