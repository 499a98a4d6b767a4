// Package reason is the closed set of reasons for which Stepward refuses a request.
//
// A reason is spelled alike in the metric label, the decision log, the body's code and the documentation; breaking a
// spelling is a breaking change. The table of statuses and forms lives in package challenge.
package reason

// Reason says why a request was refused. The zero value is Undecided: a refusal whose author forgot to say why.
type Reason string

// None is the label of a request that was not refused. It is not a refusal and not part of All.
const None Reason = "none"

// Undecided is the zero value; it is answered as PolicyError is.
const Undecided Reason = ""

// The refusals. The comment names what the client can do about it.
const (
	// Framing and routing: the client (or an attacker) must send another request.
	InvalidRequest    Reason = "invalid_request"
	AmbiguousRequest  Reason = "ambiguous_request"
	MethodNotAllowed  Reason = "method_not_allowed"
	RouteUnmatched    Reason = "route_unmatched"
	UpgradeNotAllowed Reason = "upgrade_not_allowed"
	BodyUnreadable    Reason = "body_unreadable"
	BodyTooLarge      Reason = "body_too_large"
	TooEarly          Reason = "too_early"

	// Floors: the app must be updated.
	APIVersionBelowFloor Reason = "api_version_below_floor"
	APIVersionInvalid    Reason = "api_version_invalid"
	SDKVersionTooOld     Reason = "sdk_version_too_old"

	// Session: the user must sign in, or finish signing in.
	SessionRequired        Reason = "session_required"
	SessionInvalid         Reason = "session_invalid"
	EnvironmentMismatch    Reason = "environment_mismatch"
	EnvironmentLocked      Reason = "environment_locked"
	AdditionalAuthRequired Reason = "additional_auth_required"

	// Device: the user must follow the emailed link.
	DeviceVerificationRequired Reason = "device_verification_required"

	// Device's key: the app must sign a fresh nonce.
	DeviceProofRequired Reason = "device_proof_required"
	DeviceProofInvalid  Reason = "device_proof_invalid"

	// Policy.
	Forbidden Reason = "forbidden"

	// Step-up: the user must verify and come back with a (new) elevated access token.
	ElevatedTokenRequired          Reason = "elevated_access_token_required"
	ElevatedTokenInsufficientScope Reason = "elevated_access_token_insufficient_scope"
	ElevatedTokenExpired           Reason = "elevated_access_token_expired"
	ElevatedTokenConsumed          Reason = "elevated_access_token_consumed"
	ElevatedTokenInvalid           Reason = "elevated_access_token_invalid"

	// The old action-based MFA, below 2026_04_01.
	MFATokenRequired Reason = "mfa_token_required" //nolint:gosec // a reason, not a credential
	MFATokenInvalid  Reason = "mfa_token_invalid"  //nolint:gosec // a reason, not a credential
	MFATokenConsumed Reason = "mfa_token_consumed" //nolint:gosec // a reason, not a credential

	// Ours to mend: the client waits.
	RateLimited                 Reason = "rate_limited"
	ConsumptionStoreUnavailable Reason = "consumption_store_unavailable"
	ConsumptionStateUnknown     Reason = "consumption_state_unknown"
	VerificationUnavailable     Reason = "verification_unavailable"
	PolicyError                 Reason = "policy_error"
	DecisionLogUnavailable      Reason = "decision_log_unavailable"

	// The backend's: after the gate said yes.
	UpstreamUnreachable    Reason = "upstream_unreachable"
	UpstreamUnknownOutcome Reason = "upstream_unknown_outcome"
)

// All lists every reason but None and Undecided, in the order of the documentation.
func All() []Reason {
	return []Reason{
		InvalidRequest, AmbiguousRequest, MethodNotAllowed, RouteUnmatched, UpgradeNotAllowed, BodyUnreadable, BodyTooLarge,
		TooEarly, APIVersionBelowFloor, APIVersionInvalid, SDKVersionTooOld, SessionRequired, SessionInvalid,
		EnvironmentMismatch, EnvironmentLocked, AdditionalAuthRequired, DeviceVerificationRequired,
		DeviceProofRequired, DeviceProofInvalid, Forbidden,
		ElevatedTokenRequired, ElevatedTokenInsufficientScope, ElevatedTokenExpired, ElevatedTokenConsumed,
		ElevatedTokenInvalid, MFATokenRequired, MFATokenInvalid, MFATokenConsumed, RateLimited,
		ConsumptionStoreUnavailable, ConsumptionStateUnknown, VerificationUnavailable, PolicyError,
		DecisionLogUnavailable, UpstreamUnreachable, UpstreamUnknownOutcome,
	}
}
