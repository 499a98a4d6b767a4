package issuer

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/crypto/sha3"
)

// walletProof is the part of a body that proves a wallet: a message and the wallet's signature over it.
type walletProof struct {
	Address          string   `json:"publicWalletAddress"`
	Chain            string   `json:"chain"`
	Message          string   `json:"messageToSign"`
	Signature        string   `json:"signedMessage"`
	SessionPublicKey string   `json:"sessionPublicKey"`
	RequestedScopes  []string `json:"requestedScopes"`
}

var errWallet = unprocessable("invalid_wallet_signature", "Wallet signature not accepted")

// GET /nonce is for the message that a wallet signs.
func (i *Issuer) getNonce(*http.Request) (any, error) {
	nonce := newID()
	err := i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketNonces, i.cfg.Now()); err != nil {
			return err
		}
		return put(tx, bucketNonces, nonce, i.expiry(nonceLifetime))
	})
	return map[string]string{"nonce": nonce}, err
}

// prove returns the address, in lower case, that a proof proves. The message's nonce is spent in the caller's transaction.
func (i *Issuer) proveWallet(tx *bolt.Tx, p walletProof) (string, error) {
	m, ok := parseSIWE(p.Message)
	now := i.cfg.Now()
	audience, err := url.Parse(i.cfg.Audience)
	switch {
	case err != nil, p.Chain != "EVM", !ok:
		return "", errWallet
	case m.domain != audience.Host || m.uri != i.cfg.Audience && !strings.HasPrefix(m.uri, i.cfg.Audience+"/"): // signed for another site
		return "", errWallet
	case !strings.EqualFold(m.address, p.Address):
		return "", errWallet
	case m.issuedAt.After(now.Add(time.Minute)), m.issuedAt.Before(now.Add(-codeLifetime)), !m.expires.IsZero() && !now.Before(m.expires),
		now.Before(m.notBefore):
		return "", errWallet
	}
	signer, ok := recoverSigner(p.Message, p.Signature)
	if !ok || signer != strings.ToLower(m.address) {
		return "", errWallet
	}
	var e expiring
	known, err := get(tx, bucketNonces, m.nonce, &e)
	if err != nil {
		return "", err
	}
	if !known || now.After(e.Expires) {
		return "", errWallet
	}
	return signer, remove(tx, bucketNonces, m.nonce)
}

// siwe is a "Sign-In with Ethereum" message (EIP-4361), as far as it matters here.
type siwe struct {
	domain, address, uri, nonce  string
	issuedAt, expires, notBefore time.Time
}

// parseSIWE reads a message strictly: its fields in their order, each once, and nothing that it does not know.
func parseSIWE(text string) (m siwe, ok bool) {
	lines := strings.Split(text, "\n")
	if len(lines) < 8 {
		return m, false
	}
	m.domain, ok = strings.CutSuffix(lines[0], " wants you to sign in with your Ethereum account:")
	m.address = lines[1]
	if !ok || lines[2] != "" || !isAddress(m.address) {
		return m, false
	}
	rest := lines[3:]
	if rest[0] != "" && !strings.HasPrefix(rest[0], "URI: ") { // a statement, with an empty line behind it
		rest = rest[1:]
	}
	if len(rest) > 0 && rest[0] == "" {
		rest = rest[1:]
	}
	field := func(name string, optional bool) string {
		if len(rest) == 0 {
			ok = ok && optional
			return ""
		}
		value, is := strings.CutPrefix(rest[0], name+": ")
		if !is {
			ok = ok && optional
			return ""
		}
		rest = rest[1:]
		return value
	}
	date := func(name string, optional bool) time.Time {
		text := field(name, optional)
		if text == "" {
			return time.Time{}
		}
		at, err := time.Parse(time.RFC3339, text)
		ok = ok && err == nil
		return at
	}
	m.uri = field("URI", false)
	ok = field("Version", false) == "1" && ok
	_, err := strconv.ParseUint(field("Chain ID", false), 10, 64)
	ok = ok && err == nil
	m.nonce = field("Nonce", false)
	m.issuedAt = date("Issued At", false)
	m.expires = date("Expiration Time", true)
	m.notBefore = date("Not Before", true)
	field("Request ID", true)
	if len(rest) > 0 && rest[0] == "Resources:" {
		rest = slices.DeleteFunc(slices.Clone(rest[1:]), func(line string) bool { return strings.HasPrefix(line, "- ") })
	}
	return m, ok && len(rest) == 0 && !m.issuedAt.IsZero()
}

func isAddress(s string) bool {
	raw, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	return err == nil && len(raw) == 20 && strings.HasPrefix(s, "0x")
}

// recoverSigner returns the address, in lower case, whose key signed a message as wallets do (EIP-191, version 0x45).
func recoverSigner(message, signature string) (string, bool) {
	sig, err := hex.DecodeString(strings.TrimPrefix(signature, "0x"))
	if err != nil || len(sig) != 65 {
		return "", false
	}
	v := sig[64]
	if v >= 27 {
		v -= 27
	}
	if v > 1 {
		return "", false
	}
	key, _, err := ecdsa.RecoverCompact(append([]byte{27 + v}, sig[:64]...), keccak([]byte("\x19Ethereum Signed Message:\n"+strconv.Itoa(len(message))+message)))
	if err != nil {
		return "", false
	}
	return "0x" + hex.EncodeToString(keccak(key.SerializeUncompressed()[1:])[12:]), true
}

func keccak(data []byte) []byte {
	h := sha3.NewLegacyKeccak256()
	h.Write(data)
	return h.Sum(nil)
}

// POST /verify signs in by a wallet. A wallet has no address for a mail: its user's devices are not asked for.
func (i *Issuer) signInByWallet(r *http.Request) (any, error) {
	var body walletProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	n := newSession{scope: scopeBasic, key: body.SessionPublicKey}
	err := i.update(func(tx *bolt.Tx) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		address, err := i.proveWallet(tx, body)
		if err != nil {
			return err
		}
		n.user, n.created, err = createOwner(tx, bucketWallets, address, func(u *user) {
			u.Wallets = []walletCredential{{ID: newID(), Address: body.Address, Chain: body.Chain}}
		})
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

// walletCredential is a wallet that signs its user in.
type walletCredential struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Chain   string `json:"chain"`
}

// POST /wallets/verify {…, requestedScopes} steps up by a wallet of the user's.
func (i *Issuer) stepUpByWallet(r *http.Request, s session) (any, error) {
	var body walletProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return i.stepUp(s, stepUpRequest{RequestedScopes: body.RequestedScopes}, func(tx *bolt.Tx, u *user) error {
		if u.hasSecondFactor() {
			return errMFARequired
		}
		address, err := i.proveWallet(tx, body)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(u.Wallets, func(w walletCredential) bool { return strings.EqualFold(w.Address, address) }) {
			return errWallet
		}
		return nil
	})
}
