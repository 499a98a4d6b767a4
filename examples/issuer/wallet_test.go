package issuer_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/stepward/stepward/examples/issuer"
)

// siweFields are what a wallet shows.
type siweFields struct{ domain, address, statement, uri, version, chain, nonce, issued, more string }

func (f siweFields) String() string {
	statement := "\n\n" + f.statement
	if f.statement == "" {
		statement = "\n"
	}
	return fmt.Sprintf("%s wants you to sign in with your Ethereum account:\n%s%s\n\nURI: %s\nVersion: %s\nChain ID: %s\nNonce: %s\nIssued At: %s%s",
		f.domain, f.address, statement, f.uri, f.version, f.chain, f.nonce, f.issued, f.more)
}

func (w *world) siwe(e *issuer.EthereumWallet) siweFields {
	w.t.Helper()
	return siweFields{"wallet.example", e.Address, "Welcome.", audience + "/", "1", "1", w.do("GET", "/nonce", nil).Nonce,
		w.clock().Format(time.RFC3339), "\nRequest ID: " + environment}
}

// The first address that everybody knows the key of.
func TestTheAddressOfKeyOne(t *testing.T) {
	if got := issuer.WalletOf(1).Address; got != "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf" {
		t.Errorf("got %s", got)
	}
}

func TestWalletsSignInStepUpAndAreLinked(t *testing.T) {
	w := newWorld(t)
	key, other := issuer.WalletOf(1), issuer.WalletOf(2)
	ann := w.do("POST", "/verify", key.Proof(w.siwe(key).String()), w.from(newDevice(t)))
	if ann.Status != 200 || !ann.User.NewUser || ann.User.VerifiedCredentials[0].Address != key.Address || ann.User.Scope != "user:basic" {
		t.Fatalf("sign in: got %d %s %+v", ann.Status, ann.Code, ann.User)
	}
	elevated := w.do("POST", "/wallets/verify", key.Proof(w.siwe(key).String(), "wallet:export"), bearer(ann.JWT))
	if got := w.verify(elevated.ElevatedAccessToken)["scope"]; got != "wallet:export" {
		t.Errorf("step-up: got %d %s, scope %v", elevated.Status, elevated.Code, got)
	}
	refuse(t, w.do("POST", "/wallets/verify", key.Proof(w.siwe(key).String()), bearer(ann.JWT)), 422, "invalid_scopes")
	refuse(t, w.do("POST", "/wallets/verify", other.Proof(w.siwe(other).String(), "wallet:export"), bearer(ann.JWT)), 422, "invalid_verification")

	linked := w.do("POST", "/verify/link", other.Proof(w.siwe(other).String(), "wallet:export"), bearer(ann.JWT))
	if linked.Status != 200 || len(linked.User.VerifiedCredentials) != 2 || linked.ElevatedAccessToken != "" {
		t.Fatalf("link: got %d %s %+v", linked.Status, linked.Code, linked.User)
	}
	bob := w.signIn("bob@example.com")
	refuse(t, w.do("POST", "/verify/link", other.Proof(w.siwe(other).String()), bearer(bob.JWT)), 422, "reassign_wallet_error")
	first, second := linked.User.VerifiedCredentials[0].ID, linked.User.VerifiedCredentials[1].ID
	refuse(t, w.do("POST", "/verify/unlink", m{"walletId": second}, bearer(bob.JWT)), 422, "invalid_unlink_request")
	for _, name := range []string{"walletId", "verifiedCredentialId", "verifiedCrentialId", "primaryWalletId"} {
		got := w.do("POST", "/verify/unlink", m{name: second}, bearer(ann.JWT))
		if got.Status != 200 || len(got.User.VerifiedCredentials) != 1 {
			t.Errorf("unlink by %s: got %d %s", name, got.Status, got.Code)
		}
		again := w.do("POST", "/verify/link", other.Proof(w.siwe(other).String()), bearer(ann.JWT))
		second = again.User.VerifiedCredentials[1].ID
	}
	w.do("POST", "/verify/unlink", m{"walletId": second}, bearer(ann.JWT))
	refuse(t, w.do("POST", "/verify/unlink", m{"walletId": first}, bearer(ann.JWT)), 422, "cannot_delete_last_sign_in_verified_credential")

	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, w.do("POST", "/wallets/verify", key.Proof(w.siwe(key).String(), "wallet:export"), bearer(ann.JWT)), 403, "mfa_required")
}

func TestSpellingsOfWalletMessages(t *testing.T) {
	w := newWorld(t)
	key := issuer.WalletOf(1)
	tests := map[string]func(*siweFields){
		"as the SDK writes it": func(*siweFields) {},
		"without a statement":  func(f *siweFields) { f.statement = "" },
		"with a checksum":      func(f *siweFields) { f.address = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf" },
		"with milliseconds":    func(f *siweFields) { f.issued = w.clock().Format("2006-01-02T15:04:05.000Z") },
		"with an end": func(f *siweFields) {
			f.more = "\nExpiration Time: " + w.clock().Add(time.Minute).Format(time.RFC3339) +
				"\nNot Before: " + w.clock().Format(time.RFC3339) + "\nRequest ID: " + environment + "\nResources:\n- https://a\n- https://b"
		},
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			f := w.siwe(key)
			edit(&f)
			if got := w.do("POST", "/verify", key.Proof(f.String())); got.Status != 200 {
				t.Errorf("got %d %s", got.Status, got.Code)
			}
		})
	}
}

func TestWalletMessagesThatAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	key, thief := issuer.WalletOf(1), issuer.WalletOf(2)
	fields := map[string]func(*siweFields){
		"another site":        func(f *siweFields) { f.domain, f.uri = "wa11et.example", "https://wa11et.example/" },
		"another URI":         func(f *siweFields) { f.uri = "https://wa11et.example/" },
		"another domain":      func(f *siweFields) { f.domain = "wa11et.example" },
		"no TLS":              func(f *siweFields) { f.uri = "http://wallet.example/" },
		"another address":     func(f *siweFields) { f.address = thief.Address },
		"a wrong checksum":    func(f *siweFields) { f.address = "0x7e5F4552091A69125d5DfCb7b8C2659029395Bdf" },
		"a short address":     func(f *siweFields) { f.address = f.address[:40] },
		"a made-up nonce":     func(f *siweFields) { f.nonce = strings.Repeat("a", 32) },
		"a short nonce":       func(f *siweFields) { f.nonce = "abc" },
		"another chain":       func(f *siweFields) { f.chain = "137" },
		"a chain in hex":      func(f *siweFields) { f.chain = "0x1" },
		"another version":     func(f *siweFields) { f.version = "2" },
		"an old one":          func(f *siweFields) { f.issued = w.clock().Add(-11 * time.Minute).Format(time.RFC3339) },
		"one to come":         func(f *siweFields) { f.issued = w.clock().Add(2 * time.Minute).Format(time.RFC3339) },
		"no time":             func(f *siweFields) { f.issued = "yesterday" },
		"one that is over":    func(f *siweFields) { f.more = "\nExpiration Time: " + w.clock().Format(time.RFC3339) },
		"one before its time": func(f *siweFields) { f.more = "\nNot Before: " + w.clock().Add(time.Second).Format(time.RFC3339) },
		"another environment": func(f *siweFields) { f.more = "\nRequest ID: 7c0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b22" },
		"fields out of order": func(f *siweFields) { f.more = "\nRequest ID: " + environment + "\nNot Before: " + f.issued },
		"something after it":  func(f *siweFields) { f.more = "\nChain ID: 1" },
		"a second statement":  func(f *siweFields) { f.statement = "Welcome.\nURI: https://wallet.example/" },
	}
	for name, edit := range fields {
		t.Run(name, func(t *testing.T) {
			f := w.siwe(key)
			edit(&f)
			body := key.Proof(f.String())
			delete(body, "network") // it would have to be the message's
			refuse(t, w.do("POST", "/verify", body), 422, "invalid_verification")
		})
	}
	bodies := map[string]func(body m){
		"signed by another":         func(b m) { b["signedMessage"] = thief.Sign(b["messageToSign"].(string)) },
		"claimed by another":        func(b m) { b["publicWalletAddress"] = thief.Address },
		"changed after signing":     func(b m) { b["messageToSign"] = strings.Replace(b["messageToSign"].(string), "Welcome", "Hello", 1) },
		"no signature":              func(b m) { b["signedMessage"] = "0x" },
		"a chain that is not known": func(b m) { b["chain"] = "SOL" },
		"another network":           func(b m) { b["network"] = "137" },
		"nothing":                   func(b m) { b["messageToSign"] = "" },
		"the other s of the two":    func(b m) { b["signedMessage"] = mirrored(t, b["signedMessage"].(string)) },
	}
	for name, edit := range bodies {
		t.Run(name, func(t *testing.T) {
			body := key.Proof(w.siwe(key).String())
			edit(body)
			refuse(t, w.do("POST", "/verify", body), 422, "invalid_verification")
		})
	}
	t.Run("used before", func(t *testing.T) {
		body := key.Proof(w.siwe(key).String())
		if got := w.do("POST", "/verify", body); got.Status != 200 {
			t.Fatalf("got %d %s", got.Status, got.Code)
		}
		refuse(t, w.do("POST", "/verify", body), 422, "invalid_verification")
	})
	t.Run("after a failure the nonce is spent", func(t *testing.T) {
		message := w.siwe(key).String()
		body := key.Proof(message)
		body["signedMessage"] = thief.Sign(message)
		refuse(t, w.do("POST", "/verify", body), 422, "invalid_verification")
		refuse(t, w.do("POST", "/verify", key.Proof(message)), 422, "invalid_verification")
	})
}

// mirrored makes of a signature the other one that fits: n - s, and the other v.
func mirrored(t *testing.T, signature string) string {
	t.Helper()
	raw, err := hex.DecodeString(signature[2:])
	if err != nil {
		t.Fatal(err)
	}
	var s secp256k1.ModNScalar
	s.SetByteSlice(raw[32:64])
	mirror := s.Negate().Bytes()
	copy(raw[32:64], mirror[:])
	raw[64] = 27 + 28 - raw[64]
	return "0x" + hex.EncodeToString(raw)
}
