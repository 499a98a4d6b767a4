package issuer

import (
	"crypto/rand"
	"crypto/subtle"
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
	Guesses    int        `json:"guesses"`
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
		if err := sweep(tx, bucketVerification, i.cfg.Now()); err != nil {
			return err
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
		switch {
		case err != nil:
			return credential{}, err
		case !known || v.Credential.Format != ch.format || i.cfg.Now().After(v.Expires):
			return credential{}, unprocessable("invalid_"+ch.name+"_verification", "Unknown or expired verification")
		case v.Guesses >= codeGuesses:
			return credential{}, unprocessable("too_many_"+ch.name+"_verification_attempts", "Too many attempts")
		case subtle.ConstantTimeCompare([]byte(v.Code), []byte(p.Token)) != 1:
			v.Guesses++
			if err := put(tx, bucketVerification, p.ID, v); err != nil {
				return credential{}, err
			}
			return credential{}, &kept{unprocessable("wrong_"+ch.name+"_verification_token", "Wrong code")}
		}
		return v.Credential, remove(tx, bucketVerification, p.ID)
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
