// Package ledger remembers which single-use tokens have been spent.
//
// The states of a key are absent, reserved(owner) and committed. A reservation never lapses back to absent: a crash
// between Reserve and Commit leaves the token spent, because an unknown outcome is a spent token. Both states are kept
// until Claim.Until. What is promised is at most one successful Reserve per key and consistent store; exactly-once
// execution is not promised.
package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// Kind tells apart what a key was made from, so that equal texts of different kinds never meet.
type Kind string

// The kinds of key.
const (
	KindJTI   Kind = "jti"   // a token's jti claim
	KindInput Kind = "input" // SHA-256 of the signing input of a token without jti
	KindMFA   Kind = "mfa"   // an action-based MFA token
	KindNonce Kind = "nonce" // a device nonce
)

// Key names one spendable thing. It is a hash, so a store never holds a token or a jti.
type Key [sha256.Size]byte

// KeyOf hashes the length-prefixed parts. It is never computed over a token's text, whose signature part is malleable.
func KeyOf(kind Kind, environment, issuer, id string) Key {
	h := sha256.New()
	var n [8]byte
	for _, part := range [...]string{string(kind), environment, issuer, id} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	var k Key
	h.Sum(k[:0])
	return k
}

// Owner is the nonce of one reservation; only its holder can commit or release it.
type Owner [16]byte

// NewOwner returns a fresh random owner.
func NewOwner() Owner {
	var o Owner
	_, _ = rand.Read(o[:]) // crypto/rand.Read never fails since Go 1.24: it crashes the program instead.
	return o
}

// Claim asks for one key on behalf of one owner.
type Claim struct {
	Key   Key
	Owner Owner
	// IssuedAt is the token's iat; zero when it has none. A store that forgot (a restart without a journal) refuses
	// tokens issued before it began, with ErrFenced.
	IssuedAt time.Time
	// Until is how long the key must be remembered: exp + leeway + Margin. A claim that is over already is ErrFenced.
	Until time.Time
}

// Margin is kept on top of exp and leeway before a key is forgotten.
const Margin = 60 * time.Second

// Errors to branch on. Every other error of a Store is to be treated as ErrUnknown.
var (
	ErrReserved    = errors.New("ledger: token is held by another request")
	ErrConsumed    = errors.New("ledger: token was already used")
	ErrFull        = errors.New("ledger: at capacity")
	ErrFenced      = errors.New("ledger: token was issued before the store's memory begins")
	ErrUnavailable = errors.New("ledger: store unavailable, nothing was written")
	ErrUnknown     = errors.New("ledger: store did not say whether the token was claimed")
)

// Store is the contract that ledgertest checks. All methods are safe for concurrent use and honour ctx's deadline.
type Store interface {
	// Reserve moves an absent key to reserved(owner), durably where the store is durable, before it returns nil.
	// For one key at most one Reserve ever returns nil before Until, unless its owner released it. A repeated Reserve
	// by the same owner is ErrReserved like any other. ErrUnavailable and ErrFull promise that nothing was written;
	// ErrUnknown promises nothing.
	Reserve(ctx context.Context, c Claim) error
	// Commit moves reserved(owner) to committed. It is bookkeeping: losing it changes no later Reserve. It is nil for a
	// key already committed by this owner, and ErrConsumed for a key that this owner does not hold.
	Commit(ctx context.Context, k Key, o Owner) error
	// Release moves reserved(owner) to absent, and does nothing for a key that this owner does not hold in state
	// reserved (then it returns ErrConsumed). Call it only for what provably never reached the backend.
	Release(ctx context.Context, k Key, o Owner) error
	// Stats says how full the store is.
	Stats(ctx context.Context) (Stats, error)
	// Close stops the store's goroutines and waits for them. Later calls return ErrUnavailable.
	Close() error
}

// Stats is a store's occupancy.
type Stats struct {
	Entries  int64 // live keys, reserved and committed
	Capacity int64 // 0 where the store sets no limit of its own
	// Fence is where the store's memory begins, an issuer's leeway included: what was issued before is ErrFenced.
	Fence time.Time
}
