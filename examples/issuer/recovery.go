package issuer

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

const recoveryCodes = 10

func newRecoveryCodes() []string {
	codes := make([]string, recoveryCodes)
	for n := range codes {
		codes[n] = strings.ToLower(rand.Text()[:16]) // 80 bits
	}
	return codes
}

// GET /users/mfa/recovery shows the codes that are left, and makes them for a user whose second factor is new.
func (i *Issuer) listRecoveryCodes(_ *http.Request, s session) (any, error) {
	return i.recovery(s, func(u *user) bool { return len(u.Recovery) > 0 })
}

// POST /users/mfa/recovery makes new ones; the old ones are worth nothing.
func (i *Issuer) renewRecoveryCodes(_ *http.Request, s session) (any, error) {
	return i.recovery(s, func(*user) bool { return false })
}

func (i *Issuer) recovery(s session, keep func(*user) bool) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	var codes []string
	err := i.change(s.User, func(_ *bolt.Tx, u *user) error {
		if !u.hasSecondFactor() {
			return errNoMFADevice
		}
		if !keep(u) {
			u.Recovery = newRecoveryCodes()
		}
		codes = u.Recovery
		return nil
	})
	return map[string]any{"count": len(codes), "recoveryCodes": codes}, err
}

// POST /users/mfa/auth/recovery {code, requestedScopes?}. A code works once.
func (i *Issuer) stepUpByRecoveryCode(r *http.Request, s session) (any, error) {
	var body struct {
		Code string `json:"code"`
		stepUpRequest
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return i.stepUp(s, body.stepUpRequest, func(_ *bolt.Tx, u *user) error {
		given := strings.ToLower(strings.TrimSpace(body.Code))
		before := len(u.Recovery)
		u.Recovery = slices.DeleteFunc(u.Recovery, func(code string) bool { return subtle.ConstantTimeCompare([]byte(code), []byte(given)) == 1 })
		if len(u.Recovery) == before {
			return unprocessable("mfa_invalid_code", "Invalid code")
		}
		return nil
	})
}
