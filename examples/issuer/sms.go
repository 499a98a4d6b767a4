package issuer

import (
	"net/http"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// phone is a number as the SDK splits it.
type phone struct {
	Country string `json:"phoneCountryCode"`
	Number  string `json:"phoneNumber"`
	ISO     string `json:"isoCountryCode"`
}

// e164 is "+" and all digits (ITU-T E.164), or "" for what is no number.
func (p phone) e164() string {
	digits := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, p.Country+p.Number)
	if len(digits) < 8 || len(digits) > 15 {
		return ""
	}
	return "+" + digits
}

// POST /smsVerifications/create {phoneCountryCode, phoneNumber, isoCountryCode}. The message goes where mails go.
func (i *Issuer) createSMSVerification(r *http.Request) (any, error) {
	var body phone
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	number := body.e164()
	if number == "" {
		return nil, unprocessable("invalid_phone_number", "Invalid phone number")
	}
	v := verification{Phone: number, Code: i.code(), expiring: i.expiry(codeLifetime)}
	id := newID()
	err := i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketVerification, i.cfg.Now()); err != nil {
			return err
		}
		return put(tx, bucketVerification, id, v)
	})
	if err != nil {
		return nil, err
	}
	i.deliver(Mail{To: number, Code: v.Code})
	return map[string]string{
		"verificationUUID": id, "phoneNumber": body.Number, "phoneCountryCode": body.Country, "isoCountryCode": body.ISO,
	}, nil
}

// POST /smsVerifications/signin {verificationUUID, verificationToken}. A number gets no link: its user's devices are not asked for.
func (i *Issuer) signInBySMS(r *http.Request) (any, error) {
	var body codeProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	n := newSession{scope: scopeBasic, key: body.SessionPublicKey}
	err := i.update(func(tx *bolt.Tx) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		v, err := i.check(tx, body)
		if err != nil {
			return err
		}
		if v.Phone == "" {
			return errVerification
		}
		n.user, n.created, err = createOwner(tx, bucketPhones, v.Phone, func(u *user) { u.Phones = []phoneCredential{{newID(), v.Phone}} })
		if err != nil || !n.created || publicKey == "" {
			return err
		}
		n.device = n.user.register(r, publicKey, i.cfg.Now())
		return put(tx, bucketUsers, n.user.ID, n.user)
	})
	if err != nil {
		return nil, err
	}
	return i.respond(n)
}

// phoneCredential is a number that signs its user in.
type phoneCredential struct {
	ID    string `json:"id"`
	Phone string `json:"phone"`
}

// POST /smsVerifications/verify {verificationUUID, verificationToken, requestedScopes?}: as for mails, with scopes it steps up and
// without them it links.
func (i *Issuer) verifySMS(r *http.Request, s session) (any, error) {
	var body codeProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	return i.stepUp(s, stepUpRequest{RequestedScopes: body.RequestedScopes}, func(tx *bolt.Tx, u *user) error {
		linking := len(body.RequestedScopes) == 0
		if !linking && u.hasSecondFactor() {
			return errMFARequired
		}
		v, err := i.check(tx, body)
		if err != nil {
			return err
		}
		own := slices.ContainsFunc(u.Phones, func(p phoneCredential) bool { return p.Phone == v.Phone })
		switch {
		case v.Phone == "", !linking && !own:
			return errVerification
		case linking && !own:
			return linkPhone(tx, u, v.Phone)
		}
		return nil
	})
}

func linkPhone(tx *bolt.Tx, u *user, number string) error {
	var owner string
	if taken, err := get(tx, bucketPhones, number, &owner); err != nil || taken {
		if err != nil {
			return err
		}
		return unprocessable("phone_already_exists", "Number belongs to another user")
	}
	u.Phones = append(u.Phones, phoneCredential{newID(), number})
	return put(tx, bucketPhones, number, u.ID)
}
