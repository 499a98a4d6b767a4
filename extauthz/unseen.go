package extauthz

import (
	"log/slog"
	"sync"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
)

// Proxies pass on the headers that they are told to. One whose list lacks the elevated token's refuses every step-up for ever,
// which looks like an app that does not send it.
const (
	suspicious = 20 // requests that lacked the header, before a peer that never sent it is named
	maxPeers   = 64 // that are told apart; all others count as one
)

// unseen names peers that never pass a header on.
type unseen struct {
	log    *slog.Logger
	header string

	mu    sync.Mutex
	peers map[string]*peerSeen // guarded by mu
}

type peerSeen struct {
	sent, named bool
	lacked      int
}

// note takes one judged request of a peer.
func (u *unseen) note(a *asked, peer func() string) {
	sent := len(a.told[u.header]) > 0
	if !sent && (a.verdict.Reason != reason.ElevatedTokenRequired || a.verdict.TokenState != gate.TokenAbsent) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	name := peer()
	p := u.of(name)
	if sent {
		p.sent = true
		return
	}
	if p.lacked++; p.lacked < suspicious || p.sent || p.named {
		return
	}
	p.named = true
	u.log.Warn("this proxy has never passed on the header of elevated access tokens: does its list of allowed headers have it?",
		"peer", name, "header", u.header, "refused", p.lacked)
}

func (u *unseen) of(peer string) *peerSeen {
	if u.peers == nil {
		u.peers = map[string]*peerSeen{}
	}
	if p := u.peers[peer]; p != nil {
		return p
	}
	if len(u.peers) >= maxPeers {
		peer = "others"
		if p := u.peers[peer]; p != nil {
			return p
		}
	}
	p := new(peerSeen)
	u.peers[peer] = p
	return p
}
