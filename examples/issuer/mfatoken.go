package issuer

import (
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// mfaTokenOptions asks for a token of the old kind: createMfaToken, which below the floor is what an operation must bring.
type mfaTokenOptions struct {
	SingleUse bool `json:"singleUse"`
}

// mfaToken is what is known about one. It has no scope, and ends with the session (dynamic.md h). That a single-use one is spent
// is not known here: who accepts it keeps the book.
type mfaToken struct {
	User    string    `json:"user"`
	Session string    `json:"session"` // the first of the chain
	Issued  time.Time `json:"issued"`
	mfaTokenOptions
	expiring
}

// mfaToken makes an opaque token, none for no options.
func (i *Issuer) mfaToken(s session, options *mfaTokenOptions) (string, error) {
	if options == nil {
		return "", nil
	}
	token := "mfa_" + newID()
	ends := max(s.Refresh, s.ExpiresAt.Unix())
	record := mfaToken{s.User, s.Original, i.cfg.Now(), *options, expiring{time.Unix(ends, 0)}}
	return token, i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketMFATokens, i.cfg.Now()); err != nil {
			return err
		}
		return put(tx, bucketMFATokens, hash(token), record)
	})
}

// POST /mfaTokens/introspect, with the form of RFC 7662 and the bearer token of Config.IntrospectionSecret, tells the gate what an
// MFA token is worth. Dynamic has no such endpoint: it is for backends that want Stepward to check such tokens.
func (i *Issuer) introspect(r *http.Request) (any, error) {
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if i.cfg.IntrospectionSecret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(i.cfg.IntrospectionSecret)) != 1 {
		return nil, errUnauthorized
	}
	token := r.PostFormValue("token")
	if token == "" {
		return nil, fail(http.StatusBadRequest, "invalid_request", "Send token as a form member")
	}
	answer := object{"active": false}
	return answer, i.db.View(func(tx *bolt.Tx) error {
		var t mfaToken
		known, err := get(tx, bucketMFATokens, hash(token), &t)
		if err != nil || !known || !i.cfg.Now().Before(t.Expires) {
			return err
		}
		if ended, err := get(tx, bucketRevoked, t.Session, new(expiring)); err != nil || ended {
			return err
		}
		answer["active"], answer["sub"], answer["environment_id"] = true, t.User, i.cfg.Environment
		answer["iat"], answer["exp"], answer["token_type"] = t.Issued.Unix(), t.Expires.Unix(), "mfa_token"
		return nil
	})
}
