package issuer

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// mfaToken is the old action-based token: opaque, without scopes, for environments below 2026_04_01.
type mfaToken struct {
	User      string    `json:"user"`
	SingleUse bool      `json:"singleUse"`
	IssuedAt  time.Time `json:"issuedAt"`
	expiring            // with the session's chain
}

// mintMFAToken makes one and keeps its hash.
func (i *Issuer) mintMFAToken(tx *bolt.Tx, s session, singleUse bool) (string, error) {
	if err := sweep(tx, bucketMFATokens, i.cfg.Now()); err != nil {
		return "", err
	}
	token := strings.ToLower(rand.Text())
	return token, put(tx, bucketMFATokens, hash(token), mfaToken{
		User: s.User, SingleUse: singleUse, IssuedAt: i.cfg.Now(), expiring: expiring{time.Unix(max(s.Refresh, s.ExpiresAt.Unix()), 0)},
	})
}

// POST /mfaTokens/introspect, with the form of RFC 7662 and the bearer token of Config.IntrospectionSecret, tells the gate about an
// MFA token. Dynamic has no such endpoint: it is for backends that want Stepward to check such tokens. That a single-use one works
// once is the gate's to see to.
func (i *Issuer) introspect(r *http.Request) (any, error) {
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if i.cfg.IntrospectionSecret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(i.cfg.IntrospectionSecret)) != 1 {
		return nil, errUnauthorized
	}
	var t mfaToken
	var known bool
	err := i.db.View(func(tx *bolt.Tx) (err error) {
		known, err = get(tx, bucketMFATokens, hash(r.PostFormValue("token")), &t)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !known || i.cfg.Now().After(t.Expires) {
		return map[string]any{"active": false}, nil
	}
	return map[string]any{
		"active": true, "sub": t.User, "iat": t.IssuedAt.Unix(), "exp": t.Expires.Unix(), "token_type": "mfa_token",
		"environment_id": i.cfg.Environment,
	}, nil
}

var errMFARequired = fail(http.StatusForbidden, "mfa_required", "Use the registered MFA device")
