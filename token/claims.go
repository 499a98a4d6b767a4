package token

import (
	"crypto/sha256"
	"errors"
	"time"
)

// Claims is one verified token. It is immutable and shared between requests: callers only read.
type Claims struct {
	Issuer      string // "" for a token that was introspected
	Subject     string
	ID          string // jti, "" if the token has none
	Environment string // the verifying issuer's environment, else the claim environment_id, else ""
	Audience    []string
	Scopes      []string // the scope claim, split at single spaces
	SingleUse   bool     // the claim singleUse
	IssuedAt    time.Time
	NotBefore   time.Time // zero if absent
	Expires     time.Time
	// Input is SHA-256 of the signing input (header.payload), which the signature covers letter by letter. It is the
	// replay identity of a token without jti. Of an opaque token it is SHA-256 of its letters and digits.
	Input [sha256.Size]byte
	// Members are the payload's members as decoded JSON (numbers are json.Number), for the policy's input.session.
	Members map[string]any
}

// HasScope reports whether the token carries the scope, compared letter by letter.
func (c *Claims) HasScope(scope string) bool {
	for _, s := range c.Scopes {
		if s == scope {
			return true
		}
	}
	return false
}

// Errors to branch on. None says why a signature failed.
var (
	// ErrMalformed: not a token by its form (size, alphabet, dots). The signature was not looked at.
	ErrMalformed = errors.New("token: malformed")
	// ErrInvalid: everything else that makes a token unusable, without detail for the caller's caller.
	ErrInvalid = errors.New("token: invalid")
	// ErrUnavailable: the token could not be judged: the issuer's keys are not (or no longer) known, or whoever is asked about
	// tokens did not answer.
	ErrUnavailable = errors.New("token: cannot be judged")
)

// ExpiredError is returned for a token that was good in every respect until its exp. The signature, issuer and
// audience were verified, so that a caller may compare the subject before it says "expired".
type ExpiredError struct{ Claims *Claims }

func (e *ExpiredError) Error() string { return "token: expired" }
