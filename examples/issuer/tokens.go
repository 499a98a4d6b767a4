package issuer

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	bolt "go.etcd.io/bbolt"
)

const (
	scopeBasic          = "user:basic"
	scopeDeviceRegister = "device:register"

	singleUseLifetime = 5 * time.Minute
	multiUseLifetime  = 10 * time.Minute
	refreshWindow     = 30 * 24 * time.Hour
)

// Edit changes the claims of a token before it is signed, so that tests can make tokens that the endpoints never would.
type Edit func(claims map[string]any)

// session is what a verified session token says.
type session struct {
	User     string `json:"sub"`
	ID       string `json:"sid"`
	Original string `json:"originalSid"`
	Scope    string `json:"scope"`
	Device   string `json:"deviceRegistrationId"`
	Key      string `json:"session_public_key"`
	Refresh  int64  `json:"refreshExp"`
	SignIn   string `json:"signin_credential_id"`

	LastCredential string `json:"last_verified_credential_id"`

	Environment string `json:"environment_id"`
	SingleUse   *bool  `json:"singleUse"`
	jwt.RegisteredClaims
}

// complete says whether the sign-in is: on an unregistered device, for one, it is not.
func (s session) complete() bool { return slices.Contains(strings.Fields(s.Scope), scopeBasic) }

// SessionToken signs a session token for the user with this id, who need not exist. Without edits it is one of a completed
// sign-in, with the scope user:basic.
func (i *Issuer) SessionToken(sub string, edits ...Edit) (string, error) {
	now, sid := i.cfg.Now(), newID()
	k := i.keys.Load().current
	claims := jwt.MapClaims{
		"kid":            k.id,
		"iss":            i.cfg.Issuer,
		"aud":            i.cfg.Audience,
		"sub":            sub,
		"sid":            sid,
		"originalSid":    sid,
		"iat":            now.Unix(),
		"exp":            now.Add(i.cfg.SessionLifetime).Unix(),
		"refreshExp":     now.Add(refreshWindow).Unix(),
		"environment_id": i.cfg.Environment,
		"scope":          scopeBasic,
	}
	return k.sign(claims, edits)
}

// ElevatedToken signs an elevated access token for the user with this id: single-use ones last five minutes, others ten.
func (i *Issuer) ElevatedToken(sub string, scopes []string, singleUse bool, edits ...Edit) (string, error) {
	now, lifetime := i.cfg.Now(), multiUseLifetime
	if singleUse {
		lifetime = singleUseLifetime
	}
	claims := jwt.MapClaims{
		"iss":            i.cfg.Issuer,
		"aud":            i.cfg.Audience,
		"sub":            sub,
		"jti":            newID(),
		"iat":            now.Unix(),
		"exp":            now.Add(lifetime).Unix(),
		"environment_id": i.cfg.Environment,
		"scope":          strings.Join(scopes, " "),
		"singleUse":      singleUse,
	}
	return i.keys.Load().current.sign(claims, edits)
}

func (k key) sign(claims jwt.MapClaims, edits []Edit) (string, error) {
	for _, edit := range edits {
		edit(claims)
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(k.algorithm), claims)
	token.Header["kid"] = k.id
	signed, err := token.SignedString(k.private)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}

// withSession lets h see only requests that bring a valid session token, as a bearer token or in Dynamic's cookie.
func (i *Issuer) withSession(h sessionFunc) handlerFunc {
	return func(r *http.Request) (any, error) {
		s, err := i.session(r)
		if err != nil {
			return nil, err
		}
		if i.cfg.Now().After(s.ExpiresAt.Time) {
			return nil, errUnauthorized
		}
		return h(r, s)
	}
}

// session verifies all but the expiry of a request's session token, which the caller judges: a refresh may come late.
func (i *Issuer) session(r *http.Request) (session, error) {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if cookie, err := r.Cookie(sessionCookie); !ok && err == nil {
		raw = cookie.Value
	}
	var s session
	keys := i.keys.Load()
	parser := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}))
	_, err := parser.ParseWithClaims(raw, &s, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if public, ok := keys.find(id, t.Method.Alg()); ok {
			return public, nil
		}
		return nil, errors.New("unknown key")
	})
	if err != nil {
		return session{}, errUnauthorized
	}
	named := len(s.Audience) == 1 && s.Audience[0] == i.cfg.Audience && s.Issuer == i.cfg.Issuer && s.Environment == i.cfg.Environment
	// An elevated token comes from the same issuer and key. It must not pass for a session.
	if !named || s.SingleUse != nil || s.User == "" || s.ID == "" || s.ExpiresAt == nil {
		return session{}, errUnauthorized
	}
	return s, i.stillGood(s)
}

// stillGood refuses a session that was signed out, or whose device was.
func (i *Issuer) stillGood(s session) error {
	return i.db.View(func(tx *bolt.Tx) error {
		for _, id := range []string{s.ID, s.Original} {
			if revoked, err := get(tx, bucketRevoked, id, new(expiring)); err != nil || revoked {
				return errors.Join(err, errUnauthorized)
			}
		}
		if s.Device == "" {
			return nil
		}
		u, err := load(tx, s.User)
		if err != nil || u.device(s.Device) == nil {
			return errors.Join(err, errUnauthorized)
		}
		return nil
	})
}
