package issuer

import (
	"net/http"
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

// Introspection says what an opaque MFA token is worth (RFC 7662): POST, with the token in a form. It is not part of Handler,
// and asks nobody who they are, where section 2.1 wants that: mount it where only the gate gets to.
func (i *Issuer) Introspection() http.Handler {
	return i.serve(func(r *http.Request) (any, error) {
		if r.Method != http.MethodPost {
			return nil, fail(http.StatusMethodNotAllowed, "method_not_allowed", "Method not allowed: use POST")
		}
		if err := r.ParseForm(); err != nil || r.PostForm.Get("token") == "" {
			return nil, fail(http.StatusBadRequest, "invalid_request", "Send token as a form member")
		}
		return i.introspect(r.PostForm.Get("token"))
	})
}

func (i *Issuer) introspect(token string) (any, error) {
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
		answer["active"], answer["sub"] = true, t.User
		answer["iat"], answer["exp"] = t.Issued.Unix(), t.Expires.Unix()
		return nil
	})
}
