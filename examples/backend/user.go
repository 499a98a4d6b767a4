package backend

import (
	"net/http"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// GET /settings is where SDKs read which version the environment demands.
func (b *Backend) settings(r *http.Request) (any, error) {
	providers := []object{}
	for name, p := range b.cfg.Providers {
		providers = append(providers, object{
			"id": name, "provider": name, "clientId": p.ClientID, "baseAuthUrl": p.AuthorizeURL, "scopes": "openid email", "enabledAt": "2026-01-01T00:00:00Z",
			"redirectUrl": "http://" + r.Host + b.Prefix() + "/providers/" + name + "/redirect", // this host, as the client knows it
		})
	}
	return object{
		"providers": providers,
		"sdk":       object{"minApiVersion": b.cfg.MinimumAPIVersion, "multiWallet": true},
		"security":  object{"deviceRegistrationRequired": true, "mfa": object{"enabled": true, "actions": []any{}, "methods": []any{}}},
		"chains":    []any{}, "kyc": []any{}, "design": object{}, "general": object{}, "privacy": object{},
	}, nil
}

// GET /users
func (b *Backend) getUser(r *http.Request, id string) (any, error) {
	var answer any
	err := b.db.View(func(tx *bolt.Tx) error {
		u, err := load(tx, id)
		if err != nil {
			return err
		}
		answer, err = b.describe(tx, r, u)
		return err
	})
	return answer, err
}

// PUT /users
func (b *Backend) updateUser(r *http.Request, id string) (any, error) {
	var body struct{ Alias, FirstName, LastName *string }
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return b.changeUser(r, id, func(_ *bolt.Tx, u *user) error {
		for _, change := range []struct{ from, to *string }{
			{body.Alias, &u.Alias}, {body.FirstName, &u.FirstName}, {body.LastName, &u.LastName},
		} {
			if change.from != nil {
				*change.to = *change.from
			}
		}
		return nil
	})
}

// DELETE /users
func (b *Backend) deleteUser(_ *http.Request, id string) (any, error) {
	return nil, b.update(func(tx *bolt.Tx) error {
		u, err := load(tx, id)
		if err != nil {
			return err
		}
		for _, w := range u.Wallets {
			if err := remove(tx, bucketWallets, w); err != nil {
				return err
			}
		}
		return remove(tx, bucketUsers, id)
	})
}

// POST /verify/link {publicWalletAddress, chain, walletName}. The service also checks what the wallet signed; this does not.
func (b *Backend) linkWallet(r *http.Request, id string) (any, error) {
	var body struct{ PublicWalletAddress, Chain, WalletName string }
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.PublicWalletAddress == "" {
		return nil, unprocessable("invalid_verification", "publicWalletAddress is missing")
	}
	return b.changeUser(r, id, func(_ *bolt.Tx, u *user) error {
		if slices.ContainsFunc(u.Linked, func(l linked) bool { return l.Address == body.PublicWalletAddress }) {
			return unprocessable("reassign_wallet_error", "The wallet is linked already")
		}
		u.Linked = append(u.Linked, linked{newID(), body.Chain, body.PublicWalletAddress, body.WalletName})
		return nil
	})
}

// POST /verify/unlink {walletId}, or whichever other name for it a client uses: one of them is misspelt in Dynamic's own API.
func (b *Backend) unlink(r *http.Request, id string) (any, error) {
	var body struct{ WalletID, VerifiedCredentialID, VerifiedCrentialID, PrimaryWalletID string }
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	names := []string{body.WalletID, body.VerifiedCredentialID, body.VerifiedCrentialID, body.PrimaryWalletID}
	return b.changeUser(r, id, func(_ *bolt.Tx, u *user) error {
		before := len(u.Linked)
		u.Linked = slices.DeleteFunc(u.Linked, func(l linked) bool { return slices.Contains(names, l.ID) })
		if len(u.Linked) == before {
			return unprocessable("invalid_unlink_request", "No such credential")
		}
		return nil
	})
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

// changeUser applies f to a user in one transaction and answers with what became of them.
func (b *Backend) changeUser(r *http.Request, id string, f func(tx *bolt.Tx, u *user) error) (any, error) {
	var answer any
	err := b.update(func(tx *bolt.Tx) error {
		u, err := load(tx, id)
		if err != nil {
			return err
		}
		if err := f(tx, &u); err != nil {
			return err
		}
		if err := put(tx, bucketUsers, id, u); err != nil {
			return err
		}
		described, err := b.describe(tx, r, u)
		answer = object{"user": described}
		return err
	})
	return answer, err
}

// describe is a user as the SDK reads one.
func (b *Backend) describe(tx *bolt.Tx, r *http.Request, u user) (object, error) {
	credentials := []object{}
	for _, id := range u.Wallets {
		w, err := loadWallet(tx, id, u.ID)
		if err != nil {
			return nil, err
		}
		if w.Deleted {
			continue
		}
		credentials = append(credentials, object{"id": w.ID, "format": "blockchain", "chain": "solana", "address": w.Address,
			"publicIdentifier": w.Address, "walletProvider": "embeddedWallet", "embeddedWalletId": w.ID, "signInEnabled": false})
	}
	for _, l := range u.Linked {
		credentials = append(credentials, object{"id": l.ID, "format": "blockchain", "chain": l.Chain, "address": l.Address,
			"publicIdentifier": l.Address, "walletName": l.Name, "walletProvider": "browserExtension", "signInEnabled": true})
	}
	return object{"id": u.ID, "projectEnvironmentId": b.cfg.Environment, "scope": r.Header.Get(headerScopes),
		"alias": u.Alias, "firstName": u.FirstName, "lastName": u.LastName, "verifiedCredentials": credentials}, nil
}
