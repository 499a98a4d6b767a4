package issuer

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	codeLifetime = 10 * time.Minute
	codeGuesses  = 5
)

// verification is a code that was sent to an address or a number.
type verification struct {
	Credential credential `json:"credential"`
	Code       string     `json:"code"`
	expiring
}

// guesses are the wrong ones for an address or a number, whichever of its codes they were for: a code costs nothing to ask for. So
// anybody can lock anybody out of codes for as long as one lives.
type guesses struct {
	Wrong int `json:"wrong"`
	expiring
}

// otpProof is the body that brings a code back.
type otpProof struct {
	ID    string `json:"verificationUUID"`
	Token string `json:"verificationToken"`
	asked
}

// channel is how codes travel: "email" or "sms", as it stands in the codes of refusals, and the credential that they prove.
type channel struct{ name, format string }

var (
	byMail = channel{"email", formatEmail}
	bySMS  = channel{"sms", formatPhone}
)

// sendCode begins a verification and returns its id.
func (i *Issuer) sendCode(c credential) (id string, err error) {
	v := verification{Credential: c, Code: i.code(), expiring: i.expiry(codeLifetime)}
	id = newID()
	err = i.update(func(tx *bolt.Tx) error {
		for _, bucket := range []string{bucketVerification, bucketGuesses} {
			if err := sweep(tx, bucket, i.cfg.Now()); err != nil {
				return err
			}
		}
		return put(tx, bucketVerification, id, v)
	})
	if err == nil {
		i.deliver(Mail{To: c.PublicIdentifier, Code: v.Code})
	}
	return id, err
}

// prove takes a code that came by ch. It works once; wrong guesses are counted even though they fail.
func (i *Issuer) prove(ch channel, p otpProof) prover {
	return func(tx *bolt.Tx) (credential, error) {
		var v verification
		known, err := get(tx, bucketVerification, p.ID, &v)
		if err != nil {
			return credential{}, err
		}
		address, now := v.Credential.key(), i.cfg.Now()
		g := guesses{expiring: i.expiry(codeLifetime)}
		if _, err := get(tx, bucketGuesses, address, &g); err != nil {
			return credential{}, err
		}
		if now.After(g.Expires) {
			g = guesses{expiring: i.expiry(codeLifetime)}
		}
		switch {
		case !known || v.Credential.Format != ch.format || now.After(v.Expires):
			return credential{}, unprocessable("invalid_"+ch.name+"_verification", "Unknown or expired verification")
		case g.Wrong >= codeGuesses:
			return credential{}, unprocessable("too_many_"+ch.name+"_verification_attempts", "Too many attempts")
		case subtle.ConstantTimeCompare([]byte(v.Code), []byte(p.Token)) != 1:
			g.Wrong++
			if err := put(tx, bucketGuesses, address, g); err != nil {
				return credential{}, err
			}
			return credential{}, &kept{unprocessable("wrong_"+ch.name+"_verification_token", "Wrong code")}
		}
		return v.Credential, errors.Join(remove(tx, bucketVerification, p.ID), remove(tx, bucketGuesses, address))
	}
}

// POST /emailVerifications/signin and /smsVerifications/signin {verificationUUID, verificationToken, allowNewMFALinking?}
func (i *Issuer) signInByCode(ch channel) handlerFunc {
	return func(r *http.Request) (any, error) {
		var body otpProof
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		return i.signInBy(r, body.asked, i.prove(ch, body))
	}
}

// POST /emailVerifications/verify and /smsVerifications/verify {verificationUUID, verificationToken, requestedScopes?}
func (i *Issuer) verifyByCode(ch channel) sessionFunc {
	return func(r *http.Request, s session) (any, error) {
		var body otpProof
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		return i.verifyBy(s, body.asked, i.prove(ch, body))
	}
}

func (i *Issuer) code() string {
	if i.cfg.Code != "" {
		return i.cfg.Code
	}
	n, _ := rand.Int(rand.Reader, big.NewInt(1_000_000)) // fails only for a maximum that is not positive
	return fmt.Sprintf("%06d", n)
}
