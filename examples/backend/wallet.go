package backend

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/http"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Wallet is a user's wallet as others may know it.
type Wallet struct {
	ID      string
	Address string            // base58, as Solana spells public keys
	Public  ed25519.PublicKey // the same
}

// CreateWallet makes a wallet for the user with this id.
func (b *Backend) CreateWallet(userID string) (Wallet, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Wallet{}, fmt.Errorf("backend: generate key: %w", err)
	}
	w := wallet{ID: newID(), User: userID, Address: base58(public), Seed: private.Seed(), Created: b.cfg.Now()}
	err = b.update(func(tx *bolt.Tx) error {
		u, err := load(tx, userID)
		if err != nil {
			return err
		}
		u.Wallets = append(u.Wallets, w.ID)
		if err := put(tx, bucketUsers, userID, u); err != nil {
			return err
		}
		return put(tx, bucketWallets, w.ID, w)
	})
	if err != nil {
		return Wallet{}, fmt.Errorf("backend: create wallet: %w", err)
	}
	return Wallet{ID: w.ID, Address: w.Address, Public: public}, nil
}

// POST /waas/create {chain}
func (b *Backend) createWallet(r *http.Request, user string) (any, error) {
	var body struct {
		Chain string `json:"chain"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Chain != "" && body.Chain != "SVM" {
		return nil, unprocessable("invalid_chain", "This example keeps wallets for Solana only")
	}
	w, err := b.CreateWallet(user)
	if err != nil {
		return nil, err
	}
	return object{"roomId": newID(), "serverKeygenIds": []string{newID()}, "walletId": w.ID, "accountAddress": w.Address}, nil
}

// POST /waas/{walletId}/signMessage {message} adds the member signature to the answer: hex of Ed25519 over the message's bytes.
func (b *Backend) signMessage(r *http.Request, user string) (any, error) {
	var body struct {
		Message string `json:"message"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	w, err := b.wallet(r, user)
	if err != nil {
		return nil, err
	}
	signature := ed25519.Sign(ed25519.NewKeyFromSeed(w.Seed), []byte(body.Message))
	return object{"roomId": newID(), "walletId": w.ID, "signature": hex.EncodeToString(signature)}, nil
}

// exportInfo binds the ciphertext to its purpose (RFC 9180 section 5.1).
const exportInfo = "stepward example export"

// POST /waas/{walletId}/privateKey/export {exportId}: here the exportId is a public key, which the answer's member
// encryptedPrivateKey is encrypted to. ExportKey is the client's side of it.
func (b *Backend) exportKey(r *http.Request, user string) (any, error) {
	var body struct {
		ExportID string `json:"exportId"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(body.ExportID)
	if err != nil {
		return nil, unprocessable("invalid_export_id", "exportId is not base64url")
	}
	to, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(raw)
	if err != nil {
		return nil, unprocessable("invalid_export_id", "exportId is not an X25519 public key")
	}
	w, err := b.wallet(r, user)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(exportInfo), w.Seed)
	if err != nil { // a point of low order, which NewPublicKey does not look for
		return nil, unprocessable("invalid_export_id", "exportId is not a usable public key")
	}
	return object{"roomId": newID(), "serverKeygenIds": []string{newID()}, "walletId": w.ID, "accountAddress": w.Address,
		"encryptedPrivateKey": base64.RawURLEncoding.EncodeToString(sealed)}, nil
}

// POST /waas/{walletId}/refresh
func (b *Backend) refreshShares(r *http.Request, user string) (any, error) {
	w, err := b.changeWallet(r, user, func(w *wallet) { w.Shares++ })
	return object{"roomId": newID(), "serverKeygenIds": []string{newID()}, "walletId": w.ID, "accountAddress": w.Address}, err
}

// DELETE /users/embeddedWallets/{walletId}/softDelete
func (b *Backend) softDelete(r *http.Request, user string) (any, error) {
	_, err := b.changeWallet(r, user, func(w *wallet) { w.Deleted = true })
	return nil, err
}

// PUT /users/embeddedWallets/{walletId}/restore
func (b *Backend) restore(r *http.Request, user string) (any, error) {
	_, err := b.changeWallet(r, user, func(w *wallet) { w.Deleted = false })
	return nil, err
}

// GET /waas/byWalletAddress/{address}
func (b *Backend) walletByAddress(r *http.Request, userID string) (any, error) {
	var found any
	err := b.db.View(func(tx *bolt.Tx) error {
		u, err := load(tx, userID)
		if err != nil {
			return err
		}
		for _, id := range u.Wallets {
			w, err := loadWallet(tx, id, userID)
			if err != nil {
				return err
			}
			if w.Address == r.PathValue("address") && !w.Deleted {
				found = object{"walletId": w.ID, "accountAddress": w.Address, "chain": "SVM"}
				return nil
			}
		}
		return notFound("Wallet")
	})
	return found, err
}

// wallet finds the wallet of a request's path; deleted ones can do nothing.
func (b *Backend) wallet(r *http.Request, user string) (wallet, error) {
	var w wallet
	err := b.db.View(func(tx *bolt.Tx) error {
		var err error
		if w, err = loadWallet(tx, r.PathValue("walletId"), user); err == nil && w.Deleted {
			err = notFound("Wallet")
		}
		return err
	})
	return w, err
}

func (b *Backend) changeWallet(r *http.Request, user string, f func(*wallet)) (wallet, error) {
	var w wallet
	err := b.update(func(tx *bolt.Tx) error {
		var err error
		if w, err = loadWallet(tx, r.PathValue("walletId"), user); err != nil {
			return err
		}
		f(&w)
		return put(tx, bucketWallets, w.ID, w)
	})
	return w, err
}

const base58Digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// base58 is Bitcoin's alphabet without a checksum; each leading zero byte is a leading 1.
func base58(raw []byte) string {
	var digits []byte
	rest, digit := new(big.Int).SetBytes(raw), new(big.Int)
	for rest.Sign() > 0 {
		rest.DivMod(rest, big.NewInt(int64(len(base58Digits))), digit)
		digits = append(digits, base58Digits[digit.Int64()])
	}
	for n := 0; n < len(raw) && raw[n] == 0; n++ {
		digits = append(digits, base58Digits[0])
	}
	slices.Reverse(digits)
	return string(digits)
}
