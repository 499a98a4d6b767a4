package gate

import (
	"errors"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/policy"
)

// Errors that a door's ReadBody returns.
var (
	ErrBodyTooLarge   = errors.New("gate: request body exceeds what the operation may read")
	ErrBodyUnreadable = errors.New("gate: request body cannot be read")
)

// Verdict is the gate's answer to one request. Its zero value refuses.
//
// The door forwards if and only if Allow is true, and calls Settle exactly as documented there.
type Verdict struct {
	Allow  bool
	Reason reason.Reason // why not; None when allowed, and in shadow the reason for which it would have been refused
	Shadow bool          // the environment only rehearses: Allow is true whatever Reason says

	DecisionID  string              // 32 hex digits
	RequestID   string              // for the client and the backend
	Preflight   bool                // a CORS preflight: forward without credentials
	Route       *policy.Route       // nil when none matched
	Allowed     []string            // for MethodNotAllowed
	Requirement *policy.Requirement // nil when the policy was not reached
	Environment string
	// EnvironmentProven: the session or the configuration names the environment, not the client.
	EnvironmentProven bool

	// Facts for the backend, only ever from verified tokens.
	Subject        string
	Scopes         []string  // of the elevated token, when one was required
	SessionExpires time.Time // zero without a session

	// Facts for the challenge.
	TokenState      TokenState
	DeviceState     policy.DeviceState
	SDK             string // as declared, validated form
	SDKVersion      string // likewise
	ReceivedVersion string // validated form of the declared API or SDK version that was refused
	RetryAfter      time.Duration

	// What the client's developers should know. None of it changes what Allow says.
	Advised   apiversion.Release // the least release that the SDK should have, where it is older; "" otherwise
	Gap       *policy.Gap        // the request lacks a token that this SDK is known not to attach here; nil otherwise
	WouldNeed bool               // it passes, and once the announced version is in force it will need a token, which it has not
	SDKLabel  string             // SDK, if the policy's data names it, else "other", or "none": fit for a metric

	spend *spend // nil unless a reservation is held
}

// TokenState says what became of the single-use token that came with a request.
type TokenState string

// The token states. The zero value is for requests where no token matters.
const (
	TokenAbsent   TokenState = "absent"
	TokenUnused   TokenState = "unused"
	TokenReserved TokenState = "reserved" // by another request
	TokenConsumed TokenState = "consumed"
	TokenUnknown  TokenState = "unknown"
)

// Outcome is what a door knows after it forwarded a request. Its zero value is "unknown", which spends.
type Outcome struct {
	// Unsent: provably nothing of the request reached the backend (dial or TLS failure, local abort before the first byte).
	Unsent bool
	// Status is the backend's status, 0 when no response head arrived.
	Status int
}

// Outcome is the verdict as metrics and the decision log spell it: allow, refuse or would_refuse.
func (v *Verdict) Outcome() string {
	switch {
	case v.Shadow:
		return "would_refuse"
	case v.Allow:
		return "allow"
	}
	return "refuse"
}

// Operation is what the policy calls the request; the route's own word where the policy was not reached, "" without a route.
func (v *Verdict) Operation() string {
	switch {
	case v.Requirement != nil:
		return v.Requirement.Operation
	case v.Route != nil:
		return v.Route.Operation
	}
	return ""
}

// HoldsReservation reports whether the request must be sent at most once.
func (v *Verdict) HoldsReservation() bool { return v.spend != nil }
