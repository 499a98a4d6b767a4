package issuer_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

// ethereum is a wallet.
type ethereum struct{ key *secp256k1.PrivateKey }

func newEthereum(t *testing.T) ethereum {
	t.Helper()
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return ethereum{key}
}

func keccak(data []byte) []byte {
	h := sha3.NewLegacyKeccak256()
	h.Write(data)
	return h.Sum(nil)
}

func (e ethereum) address() string {
	return "0x" + hex.EncodeToString(keccak(e.key.PubKey().SerializeUncompressed()[1:])[12:])
}

// sign is personal_sign.
func (e ethereum) sign(message string) string {
	compact := ecdsa.SignCompact(e.key, keccak([]byte("\x19Ethereum Signed Message:\n"+strconv.Itoa(len(message))+message)), false)
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

// message is one of EIP-4361; edit changes it before it is signed.
func (w *world) message(address string, edit func(string) string) string {
	w.t.Helper()
	_, text := w.raw("GET", "/nonce", nil)
	var a struct{ Nonce string }
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Nonce == "" {
		w.t.Fatalf("nonce: %s", text)
	}
	m := fmt.Sprintf("wallet.example wants you to sign in with your Ethereum account:\n%s\n\nWelcome.\n\nURI: %s\nVersion: 1\nChain ID: 1\nNonce: %s\nIssued At: %s\nExpiration Time: %s",
		address, audience, a.Nonce, w.clock().Format(time.RFC3339), w.clock().Add(time.Minute).Format(time.RFC3339))
	if edit != nil {
		m = edit(m)
	}
	return m
}

func (w *world) walletProof(e ethereum, edit func(string) string) m {
	w.t.Helper()
	text := w.message(e.address(), edit)
	return m{"publicWalletAddress": e.address(), "chain": "EVM", "messageToSign": text, "signedMessage": e.sign(text), "walletName": "w", "walletProvider": "browserExtension"}
}

func TestWallets(t *testing.T) {
	w := newWorld(t)
	mine := newEthereum(t)
	proof := w.walletProof(mine, nil)
	ann := w.do("POST", "/verify", proof)
	if ann.Status != 200 || !ann.User.NewUser || len(ann.User.VerifiedCredentials) != 1 || ann.User.VerifiedCredentials[0].Format != "blockchain" {
		t.Fatalf("sign in: %d %s %+v", ann.Status, ann.Error, ann.User)
	}
	refuse(t, w.do("POST", "/verify", proof), 422, "invalid_wallet_signature") // its nonce is spent
	if again := w.do("POST", "/verify", w.walletProof(mine, nil)); again.User.ID != ann.User.ID || again.User.NewUser {
		t.Errorf("again: %+v", again.User)
	}
	replace := func(old, with string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, with, 1) }
	}
	for name, edit := range map[string]func(string) string{
		"another site":    replace("wallet.example wants", "evil.example wants"),
		"another address": replace(mine.address(), newEthereum(t).address()),
		"another URI":     replace("URI: "+audience, "URI: https://evil.example"),
		"a URI like ours": replace("URI: "+audience, "URI: "+audience+".evil.example"),
		"another version": replace("Version: 1", "Version: 2"),
		"no chain":        replace("Chain ID: 1\n", ""),
		"a nonce of mine": func(s string) string {
			i := strings.Index(s, "Nonce: ")
			return s[:i] + "Nonce: 12345678" + s[strings.Index(s[i:], "\n")+i:]
		},
		"expired": func(s string) string {
			return s[:strings.Index(s, "Expiration")] + "Expiration Time: 2020-01-01T00:00:00Z"
		},
		"from tomorrow":    replace(w.clock().Format("2006-01-02"), w.clock().AddDate(0, 0, 1).Format("2006-01-02")),
		"something behind": func(s string) string { return s + "\nAdmin: yes" },
		"twice":            func(s string) string { return s + "\n" + s },
	} {
		if got := w.do("POST", "/verify", w.walletProof(mine, edit)); got.Status != 422 {
			t.Errorf("%s: %d %s", name, got.Status, got.Code)
		}
	}
	forged := w.walletProof(mine, nil)
	forged["signedMessage"] = newEthereum(t).sign(forged["messageToSign"].(string))
	refuse(t, w.do("POST", "/verify", forged), 422, "invalid_wallet_signature")

	stepUp := func(e ethereum) answer {
		t.Helper()
		p := w.walletProof(e, nil)
		p["requestedScopes"] = []string{"wallet:export"}
		return w.do("POST", "/wallets/verify", p, bearer(ann.JWT))
	}
	if got := stepUp(mine); got.Status != 200 || w.verify(got.ElevatedAccessToken)["scope"] != "wallet:export" {
		t.Errorf("step up: %d %s", got.Status, got.Code)
	}
	refuse(t, stepUp(newEthereum(t)), 422, "invalid_wallet_signature")
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, stepUp(mine), 403, "mfa_required")
}

func TestSMS(t *testing.T) {
	w := newWorld(t)
	prove := func(number string) m {
		t.Helper()
		a := w.do("POST", "/smsVerifications/create", m{"phoneCountryCode": "1", "phoneNumber": number, "isoCountryCode": "US"})
		if mail, ok := w.issuer.Mail("+1" + number); !ok || mail.Code != demoCode {
			t.Errorf("message to %s: %+v", number, mail)
		}
		return m{"verificationUUID": a.VerificationUUID, "verificationToken": demoCode}
	}
	refuse(t, w.do("POST", "/smsVerifications/create", m{"phoneCountryCode": "1", "phoneNumber": "12"}), 422, "invalid_phone_number")
	proof := prove("5550100100")
	wrong := m{"verificationUUID": proof["verificationUUID"], "verificationToken": "000000"}
	refuse(t, w.do("POST", "/smsVerifications/signin", wrong), 422, "wrong_sms_verification_token")
	refuse(t, w.do("POST", "/emailVerifications/signin", proof), 422, "invalid_email_verification") // a number is no address
	ann := w.do("POST", "/smsVerifications/signin", prove("5550100100"))
	if ann.Status != 200 || !ann.User.NewUser {
		t.Fatalf("sign in: %d %s", ann.Status, ann.Code)
	}
	step := func(number string, scopes ...string) answer {
		t.Helper()
		p := prove(number)
		p["requestedScopes"] = scopes
		return w.do("POST", "/smsVerifications/verify", p, bearer(ann.JWT))
	}
	if got := step("5550100100", "wallet:export"); got.Status != 200 || got.ElevatedAccessToken == "" {
		t.Errorf("step up: %d %s", got.Status, got.Code)
	}
	refuse(t, step("5550100999", "wallet:export"), 422, "invalid_email_verification")
	if got := step("5550100999"); got.Status != 200 || got.ElevatedAccessToken != "" {
		t.Errorf("link: %d %s", got.Status, got.Code)
	}
	if got := step("5550100999", "wallet:export"); got.Status != 200 {
		t.Errorf("step up by a linked number: %d %s", got.Status, got.Code)
	}
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, step("5550100100", "wallet:export"), 403, "mfa_required")
}
