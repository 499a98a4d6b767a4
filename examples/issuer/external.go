package issuer

import (
	"crypto"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	bolt "go.etcd.io/bbolt"
)

// External says whose tokens sign people in and step them up: the app's own backend's.
type External struct {
	Issuer   string // the claim iss of its tokens
	Audience string // the claim aud; "" asks for none
	// Key returns the public key with this id, nil if there is none. A production issuer reads a JWK Set.
	Key func(kid string) crypto.PublicKey
}

// maxAssertion is the longest that an assertion may live: its jti is remembered for so long.
const maxAssertion = 10 * time.Minute

// assertion is what the app's own backend says.
type assertion struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

var errAssertion = unprocessable("invalid_external_auth", "External token not accepted")

// assert verifies a token of the app's backend and spends its jti: it works once.
func (i *Issuer) assert(tx *bolt.Tx, raw string) (assertion, error) {
	var a assertion
	if i.cfg.External == nil {
		return a, errAssertion
	}
	now := i.cfg.Now()
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}), jwt.WithIssuer(i.cfg.External.Issuer), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithTimeFunc(func() time.Time { return now }),
	}
	if i.cfg.External.Audience != "" {
		options = append(options, jwt.WithAudience(i.cfg.External.Audience))
	}
	_, err := jwt.NewParser(options...).ParseWithClaims(raw, &a, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if key := i.cfg.External.Key(kid); key != nil {
			return key, nil
		}
		return nil, errors.New("unknown key")
	})
	if err != nil || a.Subject == "" || a.ID == "" || a.ExpiresAt.Sub(now) > maxAssertion {
		return a, errAssertion
	}
	if err := sweep(tx, bucketAssertions, now); err != nil {
		return a, err
	}
	if used, err := get(tx, bucketAssertions, hash(a.ID), new(expiring)); err != nil || used {
		return a, errors.Join(err, errAssertion)
	}
	return a, put(tx, bucketAssertions, hash(a.ID), expiring{a.ExpiresAt.Time})
}

type externalRequest struct {
	JWT              string `json:"jwt"`
	SessionPublicKey string `json:"sessionPublicKey"`
}

// POST /externalAuth/signin {jwt} signs in whoever the app's backend says it is.
func (i *Issuer) signInExternally(r *http.Request) (any, error) {
	var body externalRequest
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	n := newSession{scope: scopeBasic, key: body.SessionPublicKey}
	err := i.update(func(tx *bolt.Tx) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		a, err := i.assert(tx, body.JWT)
		if err != nil {
			return err
		}
		if n.user, n.created, err = createOwner(tx, bucketExternal, a.Subject, func(u *user) { u.External = a.Subject }); err != nil {
			return err
		}
		if n.created && publicKey != "" {
			n.device = n.user.register(r, publicKey, i.cfg.Now())
			return put(tx, bucketUsers, n.user.ID, n.user)
		}
		// There is no address for a link, and the app's backend has seen who it is: the device is not asked for.
		return nil
	})
	if err != nil {
		return nil, err
	}
	return i.respond(n)
}

// POST /externalAuth/verify {jwt} steps up by an assertion about the signed-in user, whose claim scope says for what. The session
// stays as it is.
func (i *Issuer) stepUpExternally(r *http.Request, s session) (any, error) {
	var body externalRequest
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	var scopes []string
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		if u.hasSecondFactor() {
			return errMFARequired
		}
		a, err := i.assert(tx, body.JWT)
		if err != nil {
			return err
		}
		scopes = strings.Fields(a.Scope)
		if a.Subject != u.External || len(scopes) == 0 {
			return &kept{errAssertion}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := mayElevate(s, scopes); err != nil {
		return nil, err
	}
	token, err := i.elevate(s, slices.Clone(scopes))
	return map[string]string{"elevatedAccessToken": token}, err
}
