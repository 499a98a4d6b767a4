package backend

import (
	"net/http"

	bolt "go.etcd.io/bbolt"
)

// Credentials returns a user's wallets as the credentials that SDKs know them by (models/JwtVerifiedCredential.js of
// sdk-api-core). Who users are, and what else they have, the issuer knows.
func (b *Backend) Credentials(user string) ([]map[string]any, error) {
	credentials := []object{}
	err := b.db.View(func(tx *bolt.Tx) error {
		u, err := load(tx, user)
		if err != nil {
			return err
		}
		for _, id := range u.Wallets {
			w, err := loadWallet(tx, id, u.ID)
			if err != nil {
				return err
			}
			if w.Deleted {
				continue
			}
			credentials = append(credentials, object{"id": w.ID, "format": "blockchain", "chain": "solana", "address": w.Address,
				"public_identifier": w.Address, "wallet_name": "dynamicwaas", "wallet_provider": "embeddedWallet",
				"embedded_wallet_id": w.ID, "signInEnabled": false})
		}
		return nil
	})
	return credentials, err
}

// deleteUser forgets a user's wallets, and leaves the rest to Config.Next.
func (b *Backend) deleteUser(w http.ResponseWriter, r *http.Request) {
	user := r.Header.Get(headerSubject)
	if user == "" {
		b.answer(w, r, nil, errUnauthorized)
		return
	}
	err := b.update(func(tx *bolt.Tx) error {
		u, err := load(tx, user)
		if err != nil {
			return err
		}
		for _, id := range u.Wallets {
			if err := remove(tx, bucketWallets, id); err != nil {
				return err
			}
		}
		return remove(tx, bucketUsers, user)
	})
	if err != nil {
		b.answer(w, r, nil, err)
		return
	}
	b.cfg.Next.ServeHTTP(w, r)
}

// POST /businessAccounts/{id}/transferOwnership {newOwnerUserId, intent?, intentSignature?} is a governed change: the first call
// is answered with an intent, and only the second, which brings it back, does something.
func (b *Backend) transferOwnership(r *http.Request, _ string) (any, error) {
	var body struct{ Intent string }
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	account := r.PathValue("id")
	var answer any = object{"id": account, "transferred": true}
	err := b.update(func(tx *bolt.Tx) error {
		if body.Intent == "" {
			intent := newID()
			answer = accepted{object{"reason": "INTENT_REQUIRED", "intent": intent}}
			return put(tx, bucketIntents, intent, account)
		}
		var of string
		if known, err := get(tx, bucketIntents, body.Intent, &of); err != nil || !known || of != account {
			if err == nil {
				err = unprocessable("invalid_intent", "Unknown intent")
			}
			return err
		}
		return remove(tx, bucketIntents, body.Intent)
	})
	return answer, err
}

func (b *Backend) emptyList(name string) userFunc {
	return func(*http.Request, string) (any, error) { return object{"count": 0, name: []any{}}, nil }
}
