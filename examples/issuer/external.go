package issuer

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	bolt "go.etcd.io/bbolt"
)

// External is an authority that the customer runs, whose tokens sign in and step up (externalAuth of GET settings).
type External struct {
	Issuer   string // the claim iss; empty takes any
	Audience string // the claim aud; empty takes any
	JWKSURL  string
}

// assertionLifetime is the longest that an assertion may have to live. The service's limit is not documented.
const assertionLifetime = 10 * time.Minute

// assertion is a token that says what its user may do.
type assertion struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

var errExternal = unprocessable("invalid_external_auth", "External token not accepted")

func (i *Issuer) externalAuth() object {
	e := i.cfg.External
	if e == nil {
		return object{"enabled": false}
	}
	return object{"enabled": true, "iss": e.Issuer, "aud": e.Audience, "jwksUrl": e.JWKSURL}
}

type externalBody struct {
	JWT              string `json:"jwt"`
	SessionPublicKey string `json:"sessionPublicKey"`
}

// external verifies a token of the authority. Why one is refused is logged, and not told.
func (i *Issuer) external(ctx context.Context, raw string) (assertion, error) {
	var a assertion
	if i.cfg.External == nil {
		return a, errExternal
	}
	from := authority{i.cfg.External.Issuer, i.cfg.External.Audience, i.cfg.External.JWKSURL}
	if err := i.verify(ctx, from, raw, &a); err != nil {
		i.cfg.Log.InfoContext(ctx, "external token refused", "error", err)
		return a, errExternal
	}
	if a.Subject == "" {
		return a, errExternal
	}
	return a, nil
}

func (a assertion) credential() credential {
	return credential{Format: formatExternal, PublicIdentifier: a.Subject}
}

// POST /externalAuth/signin {jwt}. The same token signs in as long as it lives: it is the session of the customer's own site. One that
// says what its user may do is none.
func (i *Issuer) signInExternally(r *http.Request) (any, error) {
	var body externalBody
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	a, err := i.external(r.Context(), body.JWT)
	if err != nil {
		return nil, err
	}
	if a.Scope != "" {
		return nil, errExternal
	}
	return i.signInBy(r, asked{SessionPublicKey: body.SessionPublicKey}, func(*bolt.Tx) (credential, error) {
		return a.credential(), nil
	})
}

// POST /externalAuth/verify {jwt} answers an assertion with an elevated token, and leaves the session as it is. An assertion is
// for the user that is signed in, names scopes, and works once.
func (i *Issuer) stepUpExternally(r *http.Request, s session) (any, error) {
	var body externalBody
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	a, err := i.external(r.Context(), body.JWT)
	if err != nil {
		return nil, err
	}
	scopes := strings.Fields(a.Scope)
	if a.ID == "" || len(scopes) == 0 || a.ExpiresAt.After(i.cfg.Now().Add(assertionLifetime)) {
		return nil, errExternal
	}
	if err := mayElevate(s, asked{RequestedScopes: scopes}); err != nil {
		return nil, err
	}
	err = i.update(func(tx *bolt.Tx) error {
		u, err := load(tx, s.User)
		switch {
		case err != nil:
			return err
		case u.own(a.credential()) == nil:
			return errExternal
		case u.hasMFA():
			return errMFARequired
		}
		return i.spendAssertion(tx, a)
	})
	if err != nil {
		return nil, err
	}
	token, err := i.elevate(s.User, scopes)
	return map[string]string{"elevatedAccessToken": token}, err
}

// spendAssertion remembers an assertion until it has expired.
func (i *Issuer) spendAssertion(tx *bolt.Tx, a assertion) error {
	if err := sweep(tx, bucketAssertions, i.cfg.Now()); err != nil {
		return err
	}
	key := hash(a.ID)
	if spent, err := get(tx, bucketAssertions, key, new(expiring)); err != nil || spent {
		if err != nil {
			return err
		}
		return errExternal
	}
	return put(tx, bucketAssertions, key, expiring{a.ExpiresAt.Time})
}
