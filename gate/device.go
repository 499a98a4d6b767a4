package gate

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/stepward/stepward/internal/deviceproof"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
)

// The headers by which the SDK shows that a request comes from a device's key (dynamic.md section e), in net/http's form.
const (
	headerDeviceNonce     = "X-Dynamic-Device-Nonce"
	headerDevicePublicKey = "X-Dynamic-Device-Publickey"
	headerDeviceSignature = "X-Dynamic-Device-Signed-Nonce"
)

// Both names of the header that brings back the token of the emailed link: what the SDKs send, and what Dynamic's OpenAPI
// text says.
const (
	headerRegistrationToken      = "X-Dynamic-Device-Registration-Token"
	headerRegistrationTokenOther = "X-Dynamic-Device-Token-Registration"
)

// RegistrationTokenHeaders are the names of headers with the token of an emailed link: a secret.
func RegistrationTokenHeaders() []string {
	return []string{headerRegistrationToken, headerRegistrationTokenOther}
}

// DeviceProofHeaders are the names of headers with a proof of possession of a device's key, in the order nonce, key, signature.
func DeviceProofHeaders() []string {
	return []string{headerDeviceNonce, headerDevicePublicKey, headerDeviceSignature}
}

// registrationToken refuses a token of an emailed link that the backend could take for two, or for another one: which of its
// two names a backend believes is not known.
func registrationToken(h http.Header) reason.Reason {
	shipped, ok := single(h, headerRegistrationToken)
	other, okOther := single(h, headerRegistrationTokenOther)
	if !ok || !okOther || shipped != "" && other != "" && shipped != other {
		return reason.InvalidRequest
	}
	for _, raw := range [...]string{shipped, other} {
		if len(raw) > maxTokenBytes || strings.ContainsAny(raw, ", \t") {
			return reason.InvalidRequest
		}
	}
	return reason.None
}

// nonce is a device's proof that a requirement asks for: proven, and to be spent.
type nonce struct {
	proven bool
	key    ledger.Key
}

// proveDevice verifies that whoever sent the request holds a device's key, where the requirement asks for that. What it does
// not prove is whose device it is, unless the session names the key (boundTo), and when the nonce was made: that the backend
// knows, which made it, and which gets the same headers.
func (g *Gate) proveDevice(r *Request, d *decision, q *policy.Requirement) reason.Reason {
	if !q.DeviceProof {
		return reason.None
	}
	text, ok := single(r.Header, headerDeviceNonce)
	key, okKey := single(r.Header, headerDevicePublicKey)
	signature, okSignature := single(r.Header, headerDeviceSignature)
	switch {
	case !ok, !okKey, !okSignature:
		return reason.InvalidRequest
	case text == "" && key == "" && signature == "":
		return reason.DeviceProofRequired
	}
	proven, err := deviceproof.Verify(key, text, signature)
	if err != nil || !g.boundTo(proven, d, q) {
		return reason.DeviceProofInvalid
	}
	// By key and nonce, never by the signature, which is malleable.
	d.nonce = nonce{proven: true, key: ledger.KeyOf(ledger.KindNonce, d.environment.id, string(proven), text)}
	return reason.None
}

// boundTo reports whether the proven key is the one that the session's issuer gave it, where the configuration names a claim
// for that. A session without the claim is nobody's only where the operation is open to devices that are not registered yet.
func (g *Gate) boundTo(key deviceproof.Key, d *decision, q *policy.Requirement) bool {
	name := g.config.Device.KeyClaim
	if name == "" {
		return true
	}
	if d.session == nil { // the load probe refuses such a policy
		return false
	}
	claim, there := d.session.Members[name]
	if !there || claim == nil {
		return q.Device == policy.DeviceAny
	}
	text, _ := claim.(string)
	named, err := deviceproof.ParseKey(text)
	return err == nil && named == key
}

// spendNonce reserves the nonce of a request that spends no token. It is the last step of a decision.
func (g *Gate) spendNonce(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	if !d.nonce.proven || v.spend != nil || r.Shadow || d.snapshot.Environment(v.Environment).Shadow {
		return reason.None
	}
	if g.isTooLate(r) {
		return reason.ConsumptionStoreUnavailable
	}
	d.claimed, d.key = true, d.nonce.key
	if g.config.RecordIntent {
		if err := g.record(r, v, d, "intent", 0); err != nil {
			return reason.DecisionLogUnavailable
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.config.LedgerTimeout)
	defer cancel()
	held, why := g.reserveNonce(ctx, d)
	if why != reason.None {
		return why
	}
	v.spend = g.hold(r, v, d, q, ledger.Claim{Key: held.key, Owner: held.owner})
	v.spend.releaseOn, v.spend.tokenless = nil, true
	return reason.None
}

// held is a reservation.
type held struct {
	key   ledger.Key
	owner ledger.Owner
}

// reserveNonce claims the nonce, if the request has one to spend; nil if not.
//
// A nonce has no iat. It may have been spent whenever a spent one is still remembered, so a store whose memory begins later
// cannot vouch for it, and refuses (design.md section 10, item 6).
func (g *Gate) reserveNonce(ctx context.Context, d *decision) (*held, reason.Reason) {
	if !d.nonce.proven {
		return nil, reason.None
	}
	h := &held{d.nonce.key, ledger.NewOwner()}
	lifetime := g.config.Device.NonceLifetime
	err := g.config.Ledger.Reserve(ctx, ledger.Claim{
		Key: h.key, Owner: h.owner, IssuedAt: d.now.Add(-lifetime), Until: d.now.Add(lifetime + g.config.Leeway + ledger.Margin),
	})
	if err == nil {
		return h, reason.None
	}
	// An unknown outcome costs a nonce, of which a client has many, and no token: the client may come back as it likes.
	why, _ := reserveFailure(err, reason.ConsumptionStoreUnavailable, reason.DeviceProofInvalid)
	if why == reason.ConsumptionStateUnknown {
		why = reason.ConsumptionStoreUnavailable
	}
	return nil, why
}

// giveBack releases a nonce whose request goes nowhere, because what was to be reserved after it could not be.
func (g *Gate) giveBack(h *held) {
	if h == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.config.LedgerTimeout)
	defer cancel()
	if err := g.config.Ledger.Release(ctx, h.key, h.owner); err != nil {
		g.config.Log.Warn("ledger did not release a device nonce; it stays spent", "error", err)
	}
}

// defaultNonceLifetime is after how long Dynamic's SDK throws a nonce away that it has not used.
const defaultNonceLifetime = 24 * time.Hour
