package gate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/ledger"
)

// spend is one reservation that the gate holds on behalf of a request until its door settles it.
type spend struct {
	store     ledger.Store
	timeout   time.Duration
	key       ledger.Key
	owner     ledger.Owner
	nonce     *held // reserved along with a token; nil if there is none
	tokenless bool  // key is a nonce's
	releaseOn []int
	record    func(state string, status int)
	onError   func(op string, err error)

	once  sync.Once
	state TokenState
}

// Settle says what became of a forwarded request. A door calls it once it knows: for an answer after its head and before
// passing it on, so that a client that retries at once finds the token in its final state. Only the first call counts, and
// without a reservation it does nothing. The token is released if Outcome says that the backend cannot have acted, or
// answered with a status that the policy names in release_on; in every other case, and for the zero Outcome, it is spent.
//
// It returns the state for the challenge: TokenUnused, TokenConsumed, or TokenAbsent without a reservation.
func (v *Verdict) Settle(o Outcome) TokenState {
	s := v.spend
	if s == nil {
		return TokenAbsent
	}
	s.once.Do(func() { s.settle(o) })
	v.TokenState = s.state
	return s.state
}

func (s *spend) settle(o Outcome) {
	// The client may be gone: what happens to its token must not depend on that.
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	s.state = TokenConsumed
	op, state, act := "commit", "committed", s.store.Commit
	if o.Unsent || (o.Status != 0 && slices.Contains(s.releaseOn, o.Status)) {
		op, state, act = "release", "released", s.store.Release
	}
	switch err := act(ctx, s.key, s.owner); {
	case err != nil:
		// A reservation that is neither committed nor released stays spent until it is forgotten.
		s.onError(op, err)
		state = "reserved"
	case op == "release":
		s.state = TokenUnused
	}
	s.settleNonce(ctx, o)
	if s.tokenless {
		s.state = TokenAbsent
	}
	s.record(state, o.Status)
}

// settleNonce gives a nonce back only where the backend cannot have seen it: whatever it says of the operation, it has spent
// the nonce itself.
func (s *spend) settleNonce(ctx context.Context, o Outcome) {
	if s.nonce == nil {
		return
	}
	op, act := "commit", s.store.Commit
	if o.Unsent {
		op, act = "release", s.store.Release
	}
	if err := act(ctx, s.nonce.key, s.nonce.owner); err != nil {
		s.onError(op, err)
	}
}

// reserveFailure is the one place where a store's answer becomes a reason.
func reserveFailure(err error, required, consumed reason.Reason) (reason.Reason, TokenState) {
	switch {
	case errors.Is(err, ledger.ErrConsumed):
		return consumed, TokenConsumed
	case errors.Is(err, ledger.ErrReserved):
		return consumed, TokenReserved
	case errors.Is(err, ledger.ErrFenced):
		return required, TokenUnused
	case errors.Is(err, ledger.ErrFull), errors.Is(err, ledger.ErrUnavailable):
		return reason.ConsumptionStoreUnavailable, TokenUnused
	default:
		return reason.ConsumptionStateUnknown, TokenUnknown
	}
}
