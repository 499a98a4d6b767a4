package gate

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/token"
)

// maxTokenBytes is the longest token header that is read (standards.md section 3, step 3).
const maxTokenBytes = 8 << 10

// words are the reasons of one kind of token, so that elevated and MFA tokens take the same way.
type words struct{ required, invalid, expired, consumed reason.Reason }

var (
	elevatedWords = words{reason.ElevatedTokenRequired, reason.ElevatedTokenInvalid, reason.ElevatedTokenExpired, reason.ElevatedTokenConsumed}
	mfaWords      = words{reason.MFATokenRequired, reason.MFATokenInvalid, reason.MFATokenInvalid, reason.MFATokenConsumed}
)

// stepUp proves the token that the operation needs and reserves it. It is the last step of a decision.
func (g *Gate) stepUp(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	if d.session == nil { // the load probe refuses such a policy; a token without a session has nobody to belong to
		return reason.SessionRequired
	}
	if q.MFAAction != "" {
		return g.mfa(ctx, r, v, d, q)
	}
	return g.elevated(ctx, r, v, d, q)
}

// elevated proves an elevated token with the requirement's scopes and spends it where it or the requirement says so.
func (g *Gate) elevated(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	claims, why := g.proveToken(ctx, r.Header, g.config.Elevated.Header, g.config.Elevated.Verify, elevatedWords, d)
	if why != reason.None {
		return why
	}
	v.TokenState = TokenUnused
	if q.MaxAge > 0 && d.now.Sub(claims.IssuedAt) > q.MaxAge+g.config.Leeway {
		return reason.ElevatedTokenExpired
	}
	if !satisfies(claims, q.Scopes) {
		return reason.ElevatedTokenInsufficientScope
	}
	v.Scopes = claims.Scopes
	if q.Token != policy.SingleUse && !claims.SingleUse {
		return reason.None
	}
	return g.reserve(ctx, r, v, d, q, claims, elevatedWords)
}

// proveToken reads one token header and proves form, signature and that the token belongs to the session's user and
// environment. Whether a token is expired is said only to its owner.
func (g *Gate) proveToken(ctx context.Context, h http.Header, header string, verify VerifyFunc, w words, d *decision) (*token.Claims, reason.Reason) {
	raw, ok := single(h, header)
	switch {
	case !ok, len(raw) > maxTokenBytes, strings.ContainsAny(raw, ", \t"):
		return nil, reason.InvalidRequest
	case raw == "":
		return nil, w.required
	case verify == nil:
		return nil, w.invalid
	}
	claims, err := verify(ctx, raw)
	var expired *token.ExpiredError
	switch {
	case err == nil && claims != nil && g.belongs(claims, d):
		return claims, reason.None
	case errors.As(err, &expired) && expired.Claims != nil && g.belongs(expired.Claims, d):
		return nil, w.expired
	case errors.Is(err, token.ErrUnavailable):
		return nil, reason.VerificationUnavailable
	}
	return nil, w.invalid
}

// belongs binds a token to the session by subject and environment, not by sid: a step-up may mint a new session.
func (g *Gate) belongs(c *token.Claims, d *decision) bool {
	return c.Subject == d.session.Subject && c.Subject != "" && (c.Environment == "" || c.Environment == d.environment.id)
}

func satisfies(c *token.Claims, scopes []policy.Choice) bool {
	for _, choice := range scopes {
		if !anyOf(c, choice) {
			return false
		}
	}
	return len(scopes) > 0
}

func anyOf(c *token.Claims, choice policy.Choice) bool {
	for _, scope := range choice {
		if c.HasScope(scope) {
			return true
		}
	}
	return false
}

// reserve claims the token for this request. A rehearsal stops short of it.
func (g *Gate) reserve(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement, c *token.Claims, w words) reason.Reason {
	if r.Shadow || d.snapshot.Environment(v.Environment).Shadow {
		return reason.None
	}
	if g.isTooLate(r) {
		v.TokenState = TokenUnused
		return reason.ConsumptionStoreUnavailable
	}
	claim := ledger.Claim{Key: keyOf(c, v.Environment, w), Owner: ledger.NewOwner(), IssuedAt: c.IssuedAt, Until: g.until(c, d.now)}
	d.claimed, d.key = true, claim.Key
	if g.config.RecordIntent {
		if err := g.record(r, v, d, "intent", 0); err != nil {
			return reason.DecisionLogUnavailable
		}
	}
	// The client's cancellation must not decide whether a token counts as spent.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.config.LedgerTimeout)
	defer cancel()
	// A nonce before the token: what a crash between the two costs is then the one of which the client has many.
	nonce, why := g.reserveNonce(ctx, d)
	if why != reason.None {
		return why
	}
	if err := g.config.Ledger.Reserve(ctx, claim); err != nil {
		g.giveBack(nonce)
		why, state := reserveFailure(err, w.required, w.consumed)
		v.TokenState = state
		return why
	}
	v.spend = g.hold(r, v, d, q, claim)
	v.spend.nonce = nonce
	return reason.None
}

// isTooLate reports whether whoever asked would not hear the answer in time.
func (g *Gate) isTooLate(r *Request) bool {
	return !r.Deadline.IsZero() && time.Until(r.Deadline) < g.config.SpendBudget
}

// hold makes the reservation's handle. Its outcome record is fixed now, because the door may reuse r before it settles.
func (g *Gate) hold(r *Request, v *Verdict, d *decision, q *policy.Requirement, c ledger.Claim) *spend {
	outcome := decisionlog.Record{
		Phase: "outcome", DecisionID: v.DecisionID, RequestID: v.RequestID, Method: r.Method, Route: v.Route.Pattern,
		Operation: q.Operation, Environment: v.Environment, Revision: d.snapshot.Revision(), TokenID: g.config.Hash("token", string(c.Key[:])),
	}
	return &spend{
		store: g.config.Ledger, timeout: g.config.LedgerTimeout, key: c.Key, owner: c.Owner, releaseOn: q.ReleaseOn,
		record: func(state string, status int) {
			outcome.Time, outcome.TokenState, outcome.Status = g.config.Now(), state, status
			if err := g.config.Record(&outcome); err != nil {
				g.config.Log.Warn("decision log did not take an outcome", "decision_id", outcome.DecisionID, "error", err)
			}
		},
		onError: func(op string, err error) {
			g.config.Log.Warn("ledger did not settle a reservation; the token stays spent", "operation", op, "error", err)
		},
	}
}

func (g *Gate) until(c *token.Claims, now time.Time) time.Time {
	if c.Expires.IsZero() {
		return now.Add(g.config.MFA.Remember)
	}
	return c.Expires.Add(g.config.Leeway + ledger.Margin)
}

// keyOf names the token in the ledger (design.md section 10, item 6).
func keyOf(c *token.Claims, environment string, w words) ledger.Key {
	kind, id := ledger.KindJTI, c.ID
	if c.ID == "" {
		kind, id = ledger.KindInput, string(c.Input[:])
	}
	if w == mfaWords {
		kind = ledger.KindMFA
		if c.Issuer == "" { // introspected: where no environment was named, it is the same token in all of them
			environment = c.Environment
		}
	}
	return ledger.KeyOf(kind, environment, c.Issuer, id)
}
