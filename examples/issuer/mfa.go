package issuer

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
	bolt "go.etcd.io/bbolt"
)

const (
	totpPeriod = 30 // seconds, as authenticator apps assume
	// mfaGuesses wrong codes in a row lock a device for mfaLock.
	mfaGuesses = 5
	mfaLock    = 5 * time.Minute
)

// totpDevice is an authenticator app.
type totpDevice struct {
	ID         string     `json:"id"`
	Secret     string     `json:"secret"`
	CreatedAt  time.Time  `json:"createdAt"`
	VerifiedAt *time.Time `json:"verifiedAt"`
	// LastStep is the time step of the last code that was accepted. That code, and older ones, are spent (RFC 6238 section 5.2).
	LastStep    uint64    `json:"lastStep"`
	Guesses     int       `json:"guesses"`
	LockedUntil time.Time `json:"lockedUntil"`
}

// mfaDevice is how clients see it.
type mfaDevice struct {
	ID         string     `json:"id"`
	Type       string     `json:"type"`
	Verified   bool       `json:"verified"`
	CreatedAt  time.Time  `json:"createdAt"`
	VerifiedAt *time.Time `json:"verifiedAt"`
	Default    bool       `json:"default"`
}

func (u *user) mfaDevices(verifiedOnly bool) []mfaDevice {
	list := []mfaDevice{}
	for _, d := range u.MFA {
		if d.VerifiedAt != nil || !verifiedOnly {
			list = append(list, mfaDevice{d.ID, "totp", d.VerifiedAt != nil, d.CreatedAt, d.VerifiedAt, d.ID == u.DefaultMFA})
		}
	}
	return list
}

// totp returns the user's verified app, or the one whose enrolment has begun.
func (u *user) totp(verified bool) *totpDevice {
	return u.findTOTP(func(d totpDevice) bool { return (d.VerifiedAt != nil) == verified })
}

func (u *user) findTOTP(which func(totpDevice) bool) *totpDevice {
	n := slices.IndexFunc(u.MFA, which)
	if n < 0 {
		return nil
	}
	return &u.MFA[n]
}

// hasMFA says whether the user has a second factor that is ready for use.
func (u *user) hasMFA() bool { return u.totp(true) != nil || len(u.Passkeys) > 0 }

// mfaCredentials are the second factors, the default one first. A recovery code is none: it stands in for them.
func (u *user) mfaCredentials() []stepUpCredential {
	list := []stepUpCredential{}
	for _, d := range u.MFA {
		if d.VerifiedAt != nil {
			list = append(list, stepUpCredential{ID: d.ID, Format: "totp", Type: "totp"})
		}
	}
	for _, p := range u.Passkeys {
		list = append(list, stepUpCredential{ID: p.ID, Format: "passkey", Type: "passkey"})
	}
	slices.SortStableFunc(list, func(a, b stepUpCredential) int {
		return rank(a.ID != u.DefaultMFA) - rank(b.ID != u.DefaultMFA)
	})
	return list
}

func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

// EnrolTOTP gives a user an authenticator app as if the user had enrolled one, and returns its secret in base32. A user who
// has one keeps it.
func (i *Issuer) EnrolTOTP(sub string) (secret string, err error) {
	err = i.change(sub, func(_ *bolt.Tx, u *user) error {
		d := u.totp(true)
		if d == nil {
			key, err := i.generateTOTP(sub)
			if err != nil {
				return err
			}
			now := i.cfg.Now()
			d = &totpDevice{ID: newID(), Secret: key.Secret(), CreatedAt: now, VerifiedAt: &now}
			u.MFA = append(u.MFA, *d)
		}
		secret = d.Secret
		return nil
	})
	return secret, err
}

// TOTPSecret returns the secret, in base32, of a user's authenticator app.
func (i *Issuer) TOTPSecret(sub string) (string, error) {
	u, err := i.user(sub)
	if err != nil {
		return "", err
	}
	d := u.totp(true)
	if d == nil {
		return "", errors.New("issuer: the user has no authenticator app")
	}
	return d.Secret, nil
}

func (i *Issuer) generateTOTP(account string) (*otp.Key, error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: displayName, AccountName: account, Period: totpPeriod})
	if err != nil {
		return nil, fmt.Errorf("generate TOTP secret: %w", err)
	}
	return key, nil
}

// accept checks a code against this time step and its neighbours, and spends it. Its error is a *kept one, so that the guess
// counts.
func (d *totpDevice) accept(code string, now time.Time) error {
	if now.Before(d.LockedUntil) {
		return fail(http.StatusTooManyRequests, "mfa_rate_limited", "Too many wrong codes")
	}
	options := hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}
	step := uint64(now.Unix()) / totpPeriod
	for _, s := range []uint64{step - 1, step, step + 1} {
		if ok, err := hotp.ValidateCustom(code, s, d.Secret, options); err != nil || !ok || s <= d.LastStep {
			continue // an error says that the code has the wrong length: it is wrong like any other
		}
		d.LastStep, d.Guesses = s, 0
		return nil
	}
	if d.Guesses++; d.Guesses >= mfaGuesses {
		d.Guesses, d.LockedUntil = 0, now.Add(mfaLock)
	}
	return &kept{unprocessable("mfa_invalid_code", "Invalid code")}
}

// GET /users/mfa/register/totp begins an enrolment. One that was begun before and not finished is forgotten.
func (i *Issuer) beginTOTP(_ *http.Request, s session) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	var answer map[string]string
	err := i.change(s.User, func(_ *bolt.Tx, u *user) error {
		account := u.ID
		if email := u.first(formatEmail); email != "" {
			account = email
		}
		key, err := i.generateTOTP(account)
		if err != nil {
			return err
		}
		d := totpDevice{ID: newID(), Secret: key.Secret(), CreatedAt: i.cfg.Now()}
		u.MFA = append(slices.DeleteFunc(u.MFA, func(d totpDevice) bool { return d.VerifiedAt == nil }), d)
		answer = map[string]string{"id": d.ID, "type": "totp", "secret": d.Secret, "uri": key.URL()}
		return nil
	})
	return answer, err
}

// POST /users/mfa/register/totp {type, code} finishes it.
func (i *Issuer) finishTOTP(r *http.Request, s session) (any, error) {
	var body struct {
		Code string `json:"code"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	var answer mfaDevice
	err := i.change(s.User, func(_ *bolt.Tx, u *user) error {
		d := u.totp(false)
		if d == nil {
			return errNoMFADevice
		}
		if err := d.accept(body.Code, i.cfg.Now()); err != nil {
			return err
		}
		now := i.cfg.Now()
		d.VerifiedAt = &now
		all := u.mfaDevices(false)
		answer = all[slices.IndexFunc(all, func(m mfaDevice) bool { return m.ID == d.ID })]
		return nil
	})
	return answer, err
}

var errNoMFADevice = unprocessable("mfa_device_not_found", "No such MFA device")

// GET /users/mfa
func (i *Issuer) listMFA(_ *http.Request, s session) (any, error) {
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	list := u.mfaDevices(false)
	return object{"count": len(list), "devices": list}, nil
}

// GET /users/mfa/methods?verifiedOnly=true
func (i *Issuer) listMFAMethods(r *http.Request, s session) (any, error) {
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	verifiedOnly := r.URL.Query().Get("verifiedOnly") == "true"
	return object{
		"devices": u.mfaDevices(verifiedOnly), "passkeys": u.publicPasskeys(), "userHasVerifiedMfaMethods": u.hasMFA(),
	}, nil
}

// PUT /users/mfa/{id} makes a device or a passkey the one that the user is asked for first.
func (i *Issuer) setDefaultMFA(r *http.Request, s session) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	return nil, i.change(s.User, func(_ *bolt.Tx, u *user) error {
		id := r.PathValue("id")
		if !slices.ContainsFunc(u.mfaCredentials(), func(c stepUpCredential) bool { return c.ID == id }) {
			return errNoMFADevice
		}
		u.DefaultMFA = id
		return nil
	})
}

// POST /users/mfa/auth/totp {id?, code, requestedScopes?, createMfaToken?}. A code for a device whose enrolment has begun also
// finishes that: the JavaScript SDK has no other call for it.
func (i *Issuer) stepUpByTOTP(r *http.Request, s session) (any, error) {
	var body struct {
		ID   string `json:"id"`
		Code string `json:"code"`
		asked
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return i.stepUpBy(s, body.asked, func(_ *bolt.Tx, u *user) error {
		d := u.totp(true)
		if d == nil && s.complete() {
			d = u.totp(false)
		}
		if body.ID != "" {
			d = u.findTOTP(func(d totpDevice) bool { return d.ID == body.ID && (d.VerifiedAt != nil || s.complete()) })
		}
		if d == nil {
			return errNoMFADevice
		}
		if err := d.accept(body.Code, i.cfg.Now()); err != nil {
			return err
		}
		if d.VerifiedAt == nil {
			if len(body.RequestedScopes) > 0 || body.CreateMFAToken != nil {
				return errNoMFADevice // what has only just been enrolled steps nobody up
			}
			now := i.cfg.Now()
			d.VerifiedAt = &now
		}
		return nil
	})
}

// DELETE /users/mfa/{id}
func (i *Issuer) deleteMFA(r *http.Request, s session) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	return nil, i.change(s.User, func(_ *bolt.Tx, u *user) error {
		before := len(u.MFA)
		u.MFA = slices.DeleteFunc(u.MFA, func(d totpDevice) bool { return d.ID == r.PathValue("id") })
		if len(u.MFA) == before {
			return errNoMFADevice
		}
		u.withoutMFA()
		return nil
	})
}
