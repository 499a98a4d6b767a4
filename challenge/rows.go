package challenge

import (
	"net/http"

	"github.com/stepward/stepward/internal/reason"
)

// kind tells a client's developer what kind of thing helps.
type kind string

const (
	kindStepUp     kind = "step_up"             // verify, come back with an elevated access token
	kindMFA        kind = "mfa"                 // the same with the old action-based token
	kindDevice     kind = "device_verification" // follow the emailed link
	kindLogin      kind = "login"               // sign in
	kindLoginMFA   kind = "login_mfa"           // finish signing in
	kindUpgrade    kind = "upgrade"             // ship a newer app
	kindFixRequest kind = "fix_request"         // send another request
	kindRetry      kind = "retry"               // wait
	kindNone       kind = "none"                // nothing helps
)

// The words of RFC 6750 section 3.1 and RFC 9470 section 3. bearerBare is a challenge without error, for a client that sent
// no credentials; bearerNone is no challenge at all.
const (
	bearerNone              = ""
	bearerBare              = "-"
	bearerInvalidRequest    = "invalid_request"
	bearerInvalidToken      = "invalid_token"
	bearerInsufficientScope = "insufficient_scope"
	bearerInsufficientAuth  = "insufficient_user_authentication"
)

// The gRPC status codes in use (google.rpc.Code).
const (
	grpcUnknown            = 2
	grpcInvalidArgument    = 3
	grpcPermissionDenied   = 7
	grpcResourceExhausted  = 8
	grpcFailedPrecondition = 9
	grpcUnavailable        = 14
	grpcUnauthenticated    = 16
)

// row is how one reason is answered (standards.md section 2.2 and design.md section 10, item 18).
type row struct {
	reason  reason.Reason
	sdk     int // status in profile sdk
	rfc9470 int // status in profile rfc9470; 0 = the same
	grpc    int
	kind    kind
	bearer  string
	title   string // also the text of error and error_description: it is what users of an app that was not ready see
	detail  string // for the app's developer; where it stays empty it is made from the requirement, or is the title
}

func (r *row) grpcStatus(p Profile) int32 {
	if p == ProfileRFC9470 && r.status(ProfileRFC9470) == http.StatusUnauthorized {
		return grpcUnauthenticated
	}
	return int32(r.grpc)
}

func (r *row) status(p Profile) int {
	if p == ProfileRFC9470 && r.rfc9470 != 0 {
		return r.rfc9470
	}
	return r.sdk
}

var rows = func() map[reason.Reason]*row {
	m := make(map[reason.Reason]*row, len(table))
	for i := range table {
		m[table[i].reason] = &table[i]
	}
	return m
}()

// rowOf never fails: a reason that is not in the table is ours to mend.
func rowOf(why reason.Reason) *row {
	if r := rows[why]; r != nil {
		return r
	}
	return rows[reason.PolicyError]
}

// table has one row for each reason, in the order of reason.All; a test holds it to that.
var table = []row{
	{
		reason: reason.InvalidRequest, sdk: 400, grpc: grpcInvalidArgument, kind: kindFixRequest, bearer: bearerInvalidRequest,
		title:  "Invalid request",
		detail: "A header that may occur once is repeated, is too long or is malformed, or a token stands in the query.",
	},
	{
		reason: reason.AmbiguousRequest, sdk: 400, grpc: grpcInvalidArgument, kind: kindFixRequest,
		title:  "Ambiguous request",
		detail: "The path, query, host or framing of the request can be read in more than one way.",
	},
	{
		reason: reason.MethodNotAllowed, sdk: 405, grpc: grpcInvalidArgument, kind: kindFixRequest,
		title: "Method not allowed",
	},
	{
		reason: reason.RouteUnmatched, sdk: 403, grpc: grpcPermissionDenied, kind: kindNone,
		title:  "Forbidden",
		detail: "No route of the policy covers this request.",
	},
	{
		reason: reason.UpgradeNotAllowed, sdk: 403, grpc: grpcPermissionDenied, kind: kindFixRequest,
		title:  "Upgrade not allowed",
		detail: "The connection cannot be upgraded on this route.",
	},
	{
		reason: reason.BodyUnreadable, sdk: 400, grpc: grpcInvalidArgument, kind: kindFixRequest,
		title:  "Unreadable request body",
		detail: "The operation is judged by its body, which is not one JSON value without repeated members, or did not arrive whole.",
	},
	{
		reason: reason.BodyTooLarge, sdk: http.StatusRequestEntityTooLarge, grpc: grpcResourceExhausted, kind: kindFixRequest,
		title: "Request body too large",
	},
	{
		reason: reason.TooEarly, sdk: http.StatusTooEarly, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Too early",
		detail: "Send the request again after the TLS handshake is complete.",
	},
	{
		reason: reason.APIVersionBelowFloor, sdk: 400, grpc: grpcFailedPrecondition, kind: kindUpgrade,
		title:  "API version not supported",
		detail: "This environment has raised its minimum API version. Update the app.",
	},
	{
		reason: reason.APIVersionInvalid, sdk: 400, grpc: grpcInvalidArgument, kind: kindUpgrade,
		title:  "API version invalid",
		detail: "The API version header is neither a date such as 2026_04_01 nor API/<release>.",
	},
	{
		reason: reason.SDKVersionTooOld, sdk: 400, grpc: grpcFailedPrecondition, kind: kindUpgrade,
		title:  "SDK version not supported",
		detail: "This environment needs a newer SDK. Update the app.",
	},
	{
		reason: reason.SessionRequired, sdk: 401, grpc: grpcUnauthenticated, kind: kindLogin, bearer: bearerBare,
		title: "Session required",
	},
	{
		reason: reason.SessionInvalid, sdk: 401, grpc: grpcUnauthenticated, kind: kindLogin, bearer: bearerInvalidToken,
		title: "Session invalid",
	},
	{
		reason: reason.EnvironmentMismatch, sdk: 403, grpc: grpcPermissionDenied, kind: kindFixRequest,
		title:  "Environment mismatch",
		detail: "The request and its session name different environments, or the session names none.",
	},
	{
		reason: reason.EnvironmentLocked, sdk: 403, grpc: grpcPermissionDenied, kind: kindNone,
		title: "Environment locked",
	},
	{
		reason: reason.AdditionalAuthRequired, sdk: 403, grpc: grpcPermissionDenied, kind: kindLoginMFA, bearer: bearerInsufficientAuth,
		title:  "Additional authentication required",
		detail: "The sign-in is not complete: its second factor is outstanding.",
	},
	{
		// Not insufficient_user_authentication: a client of RFC 9470 would step up for ever.
		reason: reason.DeviceVerificationRequired, sdk: 403, grpc: grpcPermissionDenied, kind: kindDevice, bearer: bearerInsufficientScope,
		title:  "Device verification required",
		detail: "This device is not registered yet. Ask the user to follow the link in the email.",
	},
	{
		// No word of RFC 6750 fits: neither another scope nor another token helps.
		reason: reason.DeviceProofRequired, sdk: 403, grpc: grpcPermissionDenied, kind: kindDevice,
		title:  "Device proof required",
		detail: "This operation needs a fresh nonce that the device's key has signed, in the headers of proof_headers.",
	},
	{
		reason: reason.DeviceProofInvalid, sdk: 403, grpc: grpcPermissionDenied, kind: kindDevice,
		title:  "Device proof invalid",
		detail: "The signed nonce is no good, was used before, or is not of the session's device. Sign a new nonce and send the request again.",
	},
	{
		reason: reason.Forbidden, sdk: 403, grpc: grpcPermissionDenied, kind: kindNone,
		title: "Forbidden",
	},
	{
		reason: reason.ElevatedTokenRequired, sdk: 403, rfc9470: 401, grpc: grpcPermissionDenied, kind: kindStepUp, bearer: bearerInsufficientAuth,
		title: "Elevated access token required",
	},
	{
		reason: reason.ElevatedTokenInsufficientScope, sdk: 403, grpc: grpcPermissionDenied, kind: kindStepUp, bearer: bearerInsufficientScope,
		title: "Elevated access token has insufficient scope",
	},
	{
		reason: reason.ElevatedTokenExpired, sdk: 403, rfc9470: 401, grpc: grpcPermissionDenied, kind: kindStepUp, bearer: bearerInsufficientAuth,
		title: "Elevated access token expired",
	},
	{
		reason: reason.ElevatedTokenConsumed, sdk: 403, rfc9470: 401, grpc: grpcPermissionDenied, kind: kindStepUp, bearer: bearerInsufficientAuth,
		title: "Elevated access token already used",
	},
	{
		reason: reason.ElevatedTokenInvalid, sdk: 403, rfc9470: 401, grpc: grpcPermissionDenied, kind: kindStepUp, bearer: bearerInvalidToken,
		title: "Elevated access token invalid",
	},
	{
		reason: reason.MFATokenRequired, sdk: 403, grpc: grpcPermissionDenied, kind: kindMFA, bearer: bearerInsufficientAuth,
		title: "MFA token required",
	},
	{
		reason: reason.MFATokenInvalid, sdk: 403, grpc: grpcPermissionDenied, kind: kindMFA, bearer: bearerInvalidToken,
		title: "MFA token invalid",
	},
	{
		reason: reason.MFATokenConsumed, sdk: 403, grpc: grpcPermissionDenied, kind: kindMFA, bearer: bearerInsufficientAuth,
		title: "MFA token already used",
	},
	{
		reason: reason.RateLimited, sdk: http.StatusTooManyRequests, grpc: grpcResourceExhausted, kind: kindRetry,
		title: "Too many requests",
	},
	{
		reason: reason.ConsumptionStoreUnavailable, sdk: 503, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Temporarily unavailable",
		detail: "The elevated access token could not be spent and is unused. Send the same request again later.",
	},
	{
		reason: reason.ConsumptionStateUnknown, sdk: 503, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Temporarily unavailable",
		detail: "Whether the elevated access token was spent is not known. Verify again and retry with a new one.",
	},
	{
		reason: reason.VerificationUnavailable, sdk: 503, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Temporarily unavailable",
		detail: "Tokens cannot be verified at the moment.",
	},
	{
		reason: reason.PolicyError, sdk: 503, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Temporarily unavailable",
		detail: "The request could not be judged.",
	},
	{
		reason: reason.DecisionLogUnavailable, sdk: 503, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Temporarily unavailable",
		detail: "The decision could not be recorded. An elevated access token that came with the request is unused.",
	},
	{
		reason: reason.UpstreamUnreachable, sdk: http.StatusBadGateway, grpc: grpcUnavailable, kind: kindRetry,
		title:  "Backend unreachable",
		detail: "The request did not reach the backend. An elevated access token that came with it is unused.",
	},
	{
		reason: reason.UpstreamUnknownOutcome, sdk: http.StatusBadGateway, grpc: grpcUnknown, kind: kindNone,
		title:  "Backend did not answer",
		detail: "The request may have been carried out. An elevated access token that came with it is spent.",
	},
}
