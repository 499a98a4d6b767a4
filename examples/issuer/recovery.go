package issuer

import (
	"crypto/rand"
	"encoding/base32"
	"net/http"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

const (
	recoveryCodes = 8
	// The values of mfaBackupCodeAcknowledgement.
	recoveryPending  = "pending"
	recoveryComplete = "complete"
)

// recovery is the codes that stand in for a lost second factor.
type recovery struct {
	// State is pending until the user says that the codes are written down; empty before there are any.
	State string `json:"state"`
	// Hashes are of the codes that have not been used.
	Hashes []string `json:"hashes"`
	// Codes are the same in the clear, and only while State is pending. Afterwards a stolen session cannot read them.
	Codes []string `json:"codes"`
}

func newRecovery() recovery {
	r := recovery{State: recoveryPending}
	for range recoveryCodes {
		var b [10]byte // 80 bits: nobody guesses one, so that guesses are not counted
		_, _ = rand.Read(b[:])
		text := strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
		code := strings.Join([]string{text[:4], text[4:8], text[8:12], text[12:]}, "-")
		r.Codes, r.Hashes = append(r.Codes, code), append(r.Hashes, hash(code))
	}
	return r
}

// spend takes a code, and says whether it was good.
func (r *recovery) spend(code string) bool {
	code = strings.ToLower(strings.TrimSpace(code))
	n := slices.Index(r.Hashes, hash(code))
	if n < 0 {
		return false
	}
	r.Hashes = slices.Delete(r.Hashes, n, n+1)
	r.Codes = slices.DeleteFunc(r.Codes, func(c string) bool { return c == code })
	return true
}

func (r *recovery) acknowledge() {
	if r.State == recoveryPending {
		r.State, r.Codes = recoveryComplete, nil
	}
}

func (r *recovery) public() object {
	return object{"count": len(r.Hashes), "recoveryCodes": append([]string{}, r.Codes...)}
}

// withoutMFA forgets what is of no use to a user whose last second factor has gone.
func (u *user) withoutMFA() {
	if !u.hasMFA() {
		u.Recovery, u.DefaultMFA = recovery{}, ""
	}
}

// GET /users/mfa/recovery shows the codes until the user acknowledges them, and makes them at the first call. The service has
// no such limit that is documented.
func (i *Issuer) getRecovery(_ *http.Request, s session) (any, error) {
	return i.recovery(s, func(r *recovery) bool { return r.State == "" })
}

// POST /users/mfa/recovery makes new codes. The old ones stop working.
func (i *Issuer) newRecovery(_ *http.Request, s session) (any, error) {
	return i.recovery(s, func(*recovery) bool { return true })
}

func (i *Issuer) recovery(s session, renew func(*recovery) bool) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	var answer any
	err := i.change(s.User, func(_ *bolt.Tx, u *user) error {
		if !u.hasMFA() {
			return errNoMFADevice
		}
		if renew(&u.Recovery) {
			u.Recovery = newRecovery()
		}
		answer = u.Recovery.public()
		return nil
	})
	return answer, err
}

// POST /users/mfa/auth/recovery {code, requestedScopes?, createMfaToken?}. A code works once.
func (i *Issuer) stepUpByRecovery(r *http.Request, s session) (any, error) {
	var body struct {
		Code string `json:"code"`
		asked
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return i.stepUpBy(s, body.asked, func(_ *bolt.Tx, u *user) error {
		if !u.hasMFA() {
			return errNoMFADevice
		}
		if !u.Recovery.spend(body.Code) {
			return unprocessable("mfa_invalid_code", "Invalid code")
		}
		return nil
	})
}
