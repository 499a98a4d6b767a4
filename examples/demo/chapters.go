package demo

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/issuer"
)

const ann = "ann@wallet.example"

func (s *story) signUp() (err error) {
	s.out.prose("A code comes by mail. A new user's first device is registered with the sign-up, by the signature of its key.")
	if s.laptop, err = s.newBrowser("Ann's laptop", s.cfg.Environment); err != nil {
		return err
	}
	if err := s.signIn(s.laptop, ann); err != nil {
		return err
	}
	return s.out.check("the session is complete: its scope is user:basic", scopeOf(s.laptop.session) == "user:basic", scopeOf(s.laptop.session))
}

func (s *story) newBrowser(name string, home Environment) (*browser, error) {
	key, err := issuer.NewDevice()
	return &browser{name: name, home: home, key: key}, err
}

// signIn signs somebody in by a mailed code.
func (s *story) signIn(b *browser, as string) error {
	proof, err := s.mailedCode(b, as)
	if err != nil {
		return err
	}
	a, err := s.call(b, request{
		method: "POST", path: "/emailVerifications/signin", body: proof, signed: true,
	}, ok("user.scope", "jwt"))
	b.session = a.body.text("jwt")
	return err
}

// emailProof is the part of a body that proves an address.
type emailProof struct {
	ID     string   `json:"verificationUUID"`
	Code   string   `json:"verificationToken"`
	Scopes []string `json:"requestedScopes,omitempty"`
}

// mailedCode has a code mailed.
func (s *story) mailedCode(b *browser, to string) (emailProof, error) {
	a, err := s.call(b, request{method: "POST", path: "/emailVerifications/create", body: object{"email": to}}, ok())
	if err != nil {
		return emailProof{}, err
	}
	mail, err := s.mail(b, to)
	return emailProof{ID: a.body.text("verificationUUID"), Code: mail.Code}, err
}

func (s *story) makeWallet() error {
	s.out.prose("No step-up is asked for this. Stepward verified the session and tells the backend who asks, in Stepward-Subject.")
	return s.newWallet(s.laptop)
}

func (s *story) newWallet(b *browser) error {
	a, err := s.call(b, request{method: "POST", path: "/waas/create", body: object{"chain": "SVM"}}, ok("walletId", "accountAddress"))
	if err != nil {
		return err
	}
	b.wallet, b.address = a.body.text("walletId"), a.body.text("accountAddress")
	if b.wallet == "" || b.address == "" {
		return errors.New("expected a wallet with an address, got none")
	}
	return nil
}

func (b *browser) exportPath() string { return "/waas/" + b.wallet + "/privateKey/export" }

// exports asks for the private key, with a token if there is one.
func (s *story) exports(b *browser, elevated string, w want) (answer, *backend.ExportKey, error) {
	key, err := backend.NewExportKey()
	if err != nil {
		return answer{}, nil, err
	}
	a, err := s.call(b, request{method: "POST", path: b.exportPath(), body: object{"exportId": key.ID()}, elevated: elevated}, w)
	return a, key, err
}

// counted checks how many exports the backend has executed.
func (s *story) counted(b *browser, n int, what string) error {
	got := b.home.Executions(b.home.prefix() + b.exportPath())
	return s.out.check(fmt.Sprintf("the backend's count of exports is %d: %s", n, what), got == n, fmt.Sprint(got))
}

func (s *story) exportWithSession() error {
	s.out.prose("Stepward refuses with a challenge: what the client lacks, how to get it, and where to put it. 403, because " +
		"Dynamic's SDKs take a 401 for the end of the session.")
	a, _, err := s.exports(s.laptop, "", refusal("elevated_access_token_required"))
	if err != nil {
		return err
	}
	for _, name := range []string{"WWW-Authenticate", "Step-Up-Challenge"} {
		if a.header.Get(name) == "" {
			return errors.New("expected the header " + name + ", got none")
		}
	}
	return s.counted(s.laptop, 0, "it was never asked")
}

func (s *story) verifyForLinking() error {
	s.out.prose("To enrol an authenticator app she needs an elevated access token too, of scope credential:link. It comes from " +
		"the issuer, by way of Stepward.")
	proof, err := s.mailedCode(s.laptop, ann)
	if err != nil {
		return err
	}
	proof.Scopes = []string{"credential:link"}
	a, err := s.call(s.laptop, request{method: "POST", path: "/emailVerifications/verify", body: proof}, ok("elevatedAccessToken"))
	if err != nil {
		return err
	}
	s.linking = s.laptop.adopt(a)
	s.out.prose("It does not open the export:")
	_, _, err = s.exports(s.laptop, s.linking, refusal("elevated_access_token_insufficient_scope", "detail", "token_state"))
	if err != nil {
		return err
	}
	return s.counted(s.laptop, 0, "still")
}

// adopt takes over the new session that comes with each verification, and returns the elevated access token.
func (b *browser) adopt(a answer) string {
	b.session = a.body.text("jwt")
	return a.body.text("elevatedAccessToken")
}

func (s *story) enrol() error {
	s.out.prose("The token of the last step is made for this. It is not single-use, so it serves both calls.")
	const path = "/users/mfa/register/totp"
	a, err := s.call(s.laptop, request{method: "GET", path: path, elevated: s.linking}, ok("type", "secret"))
	if err != nil {
		return err
	}
	s.app.secret = a.body.text("secret")
	code, err := s.app.next(s.ctx)
	if err != nil {
		return err
	}
	_, err = s.call(s.laptop, request{
		method: "POST", path: path, body: object{"type": "totp", "code": code}, elevated: s.linking,
	}, ok("type", "verified"))
	return err
}

// verify steps up by the authenticator app.
func (s *story) verify(scope string) (string, error) {
	code, err := s.app.next(s.ctx)
	if err != nil {
		return "", err
	}
	body := struct {
		Code   string   `json:"code"`
		Scopes []string `json:"requestedScopes"`
	}{code, []string{scope}}
	a, err := s.call(s.laptop, request{method: "POST", path: "/users/mfa/auth/totp", body: body}, ok("elevatedAccessToken"))
	if err != nil {
		return "", err
	}
	token := s.laptop.adopt(a)
	return token, s.out.check("the token is single-use and of scope "+scope, scopeOf(token) == scope && isSingleUse(token), describe(token))
}

func (s *story) stepUp() (err error) {
	s.out.prose("The challenge named the scope. By what she can verify, the issuer says: now that she has an app, only by that.")
	if _, err = s.call(s.laptop, request{method: "POST", path: "/stepUp/check", body: object{"scope": "wallet:export"}},
		ok("isRequired", "credentials")); err != nil {
		return err
	}
	s.exporting, err = s.verify("wallet:export")
	return err
}

func (s *story) export() error {
	s.out.prose("Stepward proves the token, spends it on disk, and only then lets the request through. The token stays with " +
		"Stepward; the backend does not see it.")
	a, key, err := s.exports(s.laptop, s.exporting, ok("accountAddress", "encryptedPrivateKey"))
	if err != nil {
		return err
	}
	private, err := key.Open(a.body.text("encryptedPrivateKey"))
	if err != nil {
		return fmt.Errorf("expected a private key that opens: %w", err)
	}
	message := []byte("signed with the exported key")
	public, isKey := private.Public().(ed25519.PublicKey)
	opened := isKey && ed25519.Verify(public, message, ed25519.Sign(private, message)) && a.body.text("accountAddress") == s.laptop.address
	if err := s.out.check("what came back decrypts to a private key, and the key signs", opened, "one that does not"); err != nil {
		return err
	}
	return s.counted(s.laptop, 1, "this one")
}

func (s *story) exportAgain() error {
	s.out.prose("A retry, a second tab, a thief who read the header: the token is worth nothing now, also after a restart of " +
		"Stepward.")
	a, _, err := s.exports(s.laptop, s.exporting, refusal("elevated_access_token_consumed", "detail", "challenge.kind", "token_state", "decision_id"))
	if err != nil {
		return err
	}
	s.refused = a.body.text("decision_id")
	return s.counted(s.laptop, 1, "executed exactly once")
}

func (s *story) wrongScope() error {
	const scope = "business_account:transfer_ownership"
	s.out.prose("Another single-use token, for the transfer of a business account, does not open the export, and is not spent by " +
		"the attempt: afterwards it does what it is for.")
	token, err := s.verify(scope)
	if err != nil {
		return err
	}
	if _, _, err := s.exports(s.laptop, token, refusal("elevated_access_token_insufficient_scope", "detail", "token_state")); err != nil {
		return err
	}
	s.out.prose("Such a transfer takes two calls: the backend answers 202 with an intent, which the second call confirms. The policy " +
		"knows that 202 means \"nothing done yet\" and gives the token back.")
	transfer := request{
		method: "POST", path: "/businessAccounts/acme/transferOwnership", elevated: token, body: object{"newOwnerUserId": "bob"},
	}
	a, err := s.call(s.laptop, transfer, want{status: http.StatusAccepted, shows: []string{"reason", "intent"}})
	if err != nil {
		return err
	}
	transfer.body = object{"newOwnerUserId": "bob", "intent": a.body.text("intent")}
	if _, err := s.call(s.laptop, transfer, ok("id", "transferred")); err != nil {
		return err
	}
	if _, err := s.call(s.laptop, transfer, refusal("elevated_access_token_consumed", "token_state")); err != nil {
		return err
	}
	return s.counted(s.laptop, 1, "as before")
}

func (s *story) strangeDevice() (err error) {
	s.out.prose("The mailed code is right, so the issuer gives a session; but it is one that may only register the device, and " +
		"Stepward holds it to that.")
	if s.phone, err = s.newBrowser("Ann's phone", s.cfg.Environment); err != nil {
		return err
	}
	if err := s.signIn(s.phone, ann); err != nil {
		return err
	}
	_, err = s.call(s.phone, request{method: "GET", path: "/users"}, refusal("device_verification_required"))
	return err
}

func (s *story) followLink() error {
	mail, err := s.mail(s.phone, ann)
	if err != nil {
		return err
	}
	link, err := url.Parse(mail.Link)
	if err != nil || link.Query().Get("deviceRegistrationToken") == "" {
		return errors.New("expected a mail with a link that registers the device, got another")
	}
	s.out.prose("The mail: %s", discreet(mail.Link))
	a, err := s.call(s.phone, request{
		method: "POST", path: "/deviceRegistration", signed: true, deviceToken: link.Query().Get("deviceRegistrationToken"),
	}, ok("user.scope", "jwt"))
	if err != nil {
		return err
	}
	s.phone.session = a.body.text("jwt")
	s.out.prose("The same call as before:")
	if a, err = s.call(s.phone, request{method: "GET", path: "/users"}, ok("id")); err != nil {
		return err
	}
	return s.out.check("it lists her wallet", bytes.Contains(a.raw, []byte(s.laptop.address)), "a list without it")
}

func (s *story) readLog() error {
	s.out.prose("Each decision is one line of JSON. This is the one that refused the token's second use. It names neither token nor " +
		"user: token_id and subject_hash are keyed hashes.")
	log, err := s.cfg.Decisions()
	if err != nil {
		return err
	}
	for line := range bytes.Lines(log) {
		var record object
		if err := json.Unmarshal(line, &record); err != nil {
			return fmt.Errorf("expected JSON in the decision log: %w", err)
		}
		if record.text("decision_id") == s.refused && record.text("phase") != "intent" { // which it also writes, before it spends
			s.out.json("  ", bytes.TrimSpace(line))
			return s.out.check("it gives the reason that the client got", record.text("reason") == "elevated_access_token_consumed",
				record.text("reason"))
		}
	}
	return errors.New("expected a line with decision_id " + s.refused + " in the decision log, found none")
}
