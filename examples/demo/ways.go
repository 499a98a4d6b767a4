package demo

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stepward/stepward/examples/issuer"
)

const exportScope = "wallet:export"

// way is one to sign in by, and to step up by afterwards.
type way struct {
	name           string
	signIn, verify string // the calls' paths
	// prove makes the body of both calls, without requestedScopes. The scope is empty for a sign-in.
	prove func(b *browser, scope string) (object, error)
}

// otherWays steps somebody up in each way that Ann did not use.
func (s *story) otherWays() error {
	s.out.prose("Signing up is left out here. What is verified is the issuer's business; to Stepward a token is a token, whatever it " +
		"was given for. Each of these opens one export.")
	wallet, err := issuer.NewEthereumWallet()
	if err != nil {
		return err
	}
	for _, w := range []way{
		{"A code in an SMS", "/smsVerifications/signin", "/smsVerifications/verify", s.proveNumber},
		{"The signature of a wallet that the user brought (EIP-4361)", "/verify", "/wallets/verify", s.proveWallet(wallet)},
		{"A social account (OpenID Connect)", social + "/signIn", social + "/verify", s.proveAccount},
		{"The word of the wallet's own backend, which asks the user itself", "/externalAuth/signin", "/externalAuth/verify", s.proveByBackend},
	} {
		if err := s.stepUpBy(w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return s.passkeyAndRecovery()
}

func (s *story) stepUpBy(w way) error {
	b, err := s.newBrowser("a browser", s.cfg.Environment)
	if err != nil {
		return err
	}
	if err := s.quietly(func() error {
		body, err := w.prove(b, "")
		if err != nil {
			return err
		}
		a, err := s.call(b, request{method: "POST", path: w.signIn, body: body, signed: true}, ok())
		if err != nil {
			return err
		}
		b.session = a.body.text("jwt")
		return s.newWallet(b)
	}); err != nil {
		return err
	}
	s.out.blank()
	s.out.prose("%s:", w.name)
	body, err := w.prove(b, exportScope)
	if err != nil {
		return err
	}
	body["requestedScopes"] = []string{exportScope}
	return s.stepsUp(b, request{method: "POST", path: w.verify, body: body}, 1)
}

// stepsUp verifies, and spends the token that it brings. It is the user's nth export.
func (s *story) stepsUp(b *browser, verify request, nth int) error {
	a, err := s.call(b, verify, ok("elevatedAccessToken"))
	if err != nil {
		return err
	}
	if a.body.text("jwt") != "" { // the word of a backend leaves the session as it is
		b.session = a.body.text("jwt")
	}
	if _, _, err := s.exports(b, a.body.text("elevatedAccessToken"), ok("accountAddress")); err != nil {
		return err
	}
	return s.counted(b, nth, "it went through")
}

// quietly does what is not worth telling.
func (s *story) quietly(do func() error) error {
	aloud := s.out
	defer func() { s.out = aloud }()
	s.out = &narrator{w: io.Discard, named: map[string]bool{}}
	return do()
}

func (s *story) proveNumber(b *browser, _ string) (object, error) {
	const number = "5550100"
	a, err := s.call(b, request{method: "POST", path: "/smsVerifications/create", body: object{
		"phoneCountryCode": "1", "phoneNumber": number, "isoCountryCode": "US",
	}}, ok())
	if err != nil {
		return nil, err
	}
	sms, err := s.mail(b, "+1"+number)
	return object{"verificationUUID": a.body.text("verificationUUID"), "verificationToken": sms.Code}, err
}

func (s *story) proveWallet(wallet *issuer.EthereumWallet) func(b *browser, scope string) (object, error) {
	return func(b *browser, _ string) (object, error) {
		a, err := s.call(b, request{method: "GET", path: "/nonce"}, ok("nonce"))
		if err != nil {
			return nil, err
		}
		site, err := url.Parse(s.cfg.Site)
		if err != nil {
			return nil, err
		}
		message := wallet.Message(site.Host, s.cfg.Site+"/", b.home.ID, a.body.text("nonce"), time.Now())
		return wallet.Proof(message), nil
	}
}

const social = "/providers/google"

// proveAccount goes to the provider and says who the user is, as a person does on its page.
func (s *story) proveAccount(b *browser, _ string) (object, error) {
	state := rand.Text()
	if _, err := s.call(b, request{
		method: "POST", path: social + "/initAuth", body: object{"state": state, "redirectUrl": s.cfg.Site + "/"},
	}, want{status: http.StatusNoContent}); err != nil {
		return nil, err
	}
	a, err := s.send(b, request{method: "GET", path: "/settings"})
	if err != nil {
		return nil, err
	}
	var settings struct {
		Providers []struct{ ClientID, BaseAuthURL, RedirectURL, Scopes string }
	}
	if err := json.Unmarshal(a.raw, &settings); err != nil || len(settings.Providers) == 0 {
		return nil, fmt.Errorf("GET /settings: expected a provider, got %s", a)
	}
	p := settings.Providers[0]
	query := url.Values{
		"client_id": {p.ClientID}, "redirect_uri": {p.RedirectURL}, "response_type": {"code"}, "scope": {p.Scopes}, "state": {state},
	}
	back, err := s.hop(http.MethodPost, p.BaseAuthURL+"?"+query.Encode(), url.Values{"email": {"frank@social.example"}})
	if err != nil {
		return nil, err
	}
	s.out.prose("(the browser goes to the provider, where he says who he is, and comes back by Stepward)")
	page, err := s.hop(http.MethodGet, back, nil)
	if err != nil {
		return nil, err
	}
	to, err := url.Parse(page)
	if err != nil {
		return nil, err
	}
	return object{"state": to.Query().Get("dynamicOauthState"), "code": to.Query().Get("dynamicOauthCode")}, nil
}

// hop sends a browser to an address, and returns where that sends it on to.
func (s *story) hop(method, to string, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(s.ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	next, err := res.Location()
	if err != nil {
		return "", fmt.Errorf("%s %s: expected to be sent on, got %s", method, req.URL.Redacted(), res.Status)
	}
	return next.String(), nil
}

// proveByBackend has the wallet's own backend sign what it knows. With a scope, that is an assertion.
func (s *story) proveByBackend(_ *browser, scope string) (object, error) {
	raw, err := json.Marshal(object{"environment": s.cfg.Environment.ID, "user": "grace", "scope": scope})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.cfg.Site+"/token", bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer object
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.text("jwt") == "" {
		return nil, fmt.Errorf("POST %s/token: expected a token, got %s", s.cfg.Site, res.Status)
	}
	return object{"jwt": answer.text("jwt")}, nil
}

// passkeyAndRecovery steps Carol up by the passkey that she enrols, and by a code for who has lost it.
func (s *story) passkeyAndRecovery() error {
	b, err := s.newBrowser("Carol's browser", s.cfg.Environment)
	if err != nil {
		return err
	}
	key, err := issuer.NewAuthenticator(s.cfg.Site, "localhost")
	if err != nil {
		return err
	}
	if err := s.quietly(func() error { return s.enrolPasskey(b, key) }); err != nil {
		return fmt.Errorf("a passkey: %w", err)
	}
	s.out.blank()
	s.out.prose("A passkey (WebAuthn), which Carol has just enrolled with a token of scope credential:link:")
	a, err := s.call(b, request{method: "GET", path: "/users/passkeys/authenticate"}, ok("challenge", "rpId"))
	if err != nil {
		return err
	}
	body, err := key.Sign(a.body.text("challenge"), exportScope)
	if err != nil {
		return err
	}
	if err := s.stepsUp(b, request{method: "POST", path: "/users/mfa/auth/passkey", body: body, terse: true}, 1); err != nil {
		return err
	}
	s.out.blank()
	s.out.prose("A recovery code, for the day on which she loses it:")
	if a, err = s.call(b, request{method: "GET", path: "/users/mfa/recovery"}, ok("count")); err != nil {
		return err
	}
	var recovery struct{ RecoveryCodes []string }
	if err := json.Unmarshal(a.raw, &recovery); err != nil || len(recovery.RecoveryCodes) == 0 {
		return errors.New("expected recovery codes, got none")
	}
	return s.stepsUp(b, request{method: "POST", path: "/users/mfa/auth/recovery", body: object{
		"code": recovery.RecoveryCodes[0], "requestedScopes": []string{exportScope},
	}}, 2)
}

// enrolPasskey signs Carol up.
func (s *story) enrolPasskey(b *browser, key *issuer.Authenticator) error {
	const carol, path = "carol@wallet.example", "/users/passkeys/register"
	if err := s.signIn(b, carol); err != nil {
		return err
	}
	if err := s.newWallet(b); err != nil {
		return err
	}
	proof, err := s.mailedCode(b, carol)
	if err != nil {
		return err
	}
	proof.Scopes = []string{"credential:link"}
	a, err := s.call(b, request{method: "POST", path: "/emailVerifications/verify", body: proof}, ok())
	if err != nil {
		return err
	}
	linking := b.adopt(a)
	if a, err = s.call(b, request{method: "GET", path: path, elevated: linking}, ok()); err != nil {
		return err
	}
	body, err := key.Register(a.body.text("challenge"))
	if err != nil {
		return err
	}
	a, err = s.call(b, request{method: "POST", path: path, body: body, elevated: linking}, ok())
	b.session = a.body.text("jwt")
	return err
}
