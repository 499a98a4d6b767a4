package gate

import (
	"context"
	"net/http"
	"slices"

	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/token"
)

// mfa is the old action-based MFA, for environments below 2026_04_01: an unscoped token that is spent by its first use. Where the
// requirement has scopes too, an elevated token with these is accepted in its place (dynamic.md h).
func (g *Gate) mfa(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	if q.UnenrolledPass && !g.enrolled(d.session) {
		return reason.None
	}
	if why, answers := g.inItsPlace(ctx, r, v, d, q); answers {
		return why
	}
	claims, why := g.proveToken(ctx, r.Header, g.config.MFA.Header, g.config.MFA.Verify, mfaWords, d)
	if why != reason.None {
		return why
	}
	v.TokenState = TokenUnused
	return g.reserve(ctx, r, v, d, q, claims, mfaWords)
}

// inItsPlace judges an elevated token that came in place of an MFA token, and reports whether that decides the request. A good one
// does, and leaves the MFA token alone, as Dynamic's SDK does. One that is no proof at all yields to an MFA token beside it, since
// the SDK sends both for some calls. One that is spent does not: a request that is sent twice would be done twice, once for each
// token. Nor does one that cannot be judged now, which the next try might find good.
func (g *Gate) inItsPlace(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement) (why reason.Reason, answers bool) {
	if len(q.Scopes) == 0 || !sent(r.Header, g.config.Elevated.Header) {
		return reason.None, false
	}
	why = g.elevated(ctx, r, v, d, q)
	switch why {
	case reason.ElevatedTokenInvalid, reason.ElevatedTokenExpired, reason.ElevatedTokenInsufficientScope:
		if sent(r.Header, g.config.MFA.Header) {
			v.TokenState = TokenAbsent // what is said of a token from here on is said of the other one
			return why, false
		}
	}
	return why, true
}

// sent reports whether a header has a value. An empty one is none: Dynamic's SDK sends x-mfa-auth-token without a value beside an
// elevated token.
func sent(h http.Header, name string) bool {
	return slices.ContainsFunc(h[name], func(value string) bool { return value != "" })
}

// enrolled reports whether the session's user has a second factor. Sessions need not say so (a minified one does not): who is not
// known to have none has one.
func (g *Gate) enrolled(session *token.Claims) bool {
	name := g.config.MFA.EnrolledClaim
	if name == "" {
		return true
	}
	switch claim := session.Members[name].(type) {
	case bool:
		return claim
	case []any:
		return slices.ContainsFunc(claim, mayBeSecondFactor)
	}
	return true
}

// mayBeSecondFactor reads one of the verified_credentials of Dynamic's full JWT (dynamic.md c). What cannot be read may be one.
func mayBeSecondFactor(credential any) bool {
	members, _ := credential.(map[string]any)
	switch format, _ := members["format"].(string); format {
	case "blockchain", "email", "oauth", "phoneNumber", "externalUser":
		return false
	}
	return true
}
