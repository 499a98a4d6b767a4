package issuer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/examples/issuer"
)

// raw is do for answers that are not decoded.
func (w *world) raw(method, path string, body any, edits ...headers) (int, string) {
	w.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, bytes.NewReader(text))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range edits {
		e(r.Header)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(out)
}

// realNow is for libraries that ask the machine what time it is.
func realNow(c *issuer.Config) { c.Now = time.Now }

var party = virtualwebauthn.RelyingParty{Name: "Stepward example", ID: "wallet.example", Origin: audience}

// authenticator is one in software, with one credential for a user.
type authenticator struct {
	device     virtualwebauthn.Authenticator
	credential virtualwebauthn.Credential
}

func newAuthenticator(user string) *authenticator {
	return &authenticator{
		device:     virtualwebauthn.NewAuthenticatorWithOptions(virtualwebauthn.AuthenticatorOptions{UserHandle: []byte(user)}),
		credential: virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2),
	}
}

func (a *authenticator) register(t *testing.T, w *world, session string) answer {
	t.Helper()
	_, text := w.raw("GET", "/users/passkeys/register", nil, bearer(session))
	options, err := virtualwebauthn.ParseAttestationOptions(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	made := virtualwebauthn.CreateAttestationResponse(party, a.device, a.credential, *options)
	// As the SDK's generated client spells it.
	return w.do("POST", "/users/passkeys/register", strings.Replace(made, "clientDataJSON", "clientDataJson", 1), bearer(session))
}

// assert answers a challenge; edit changes the assertion.
func (a *authenticator) assert(t *testing.T, w *world, session string, scopes []string) string {
	t.Helper()
	_, text := w.raw("GET", "/users/passkeys/authenticate", nil, bearer(session))
	options, err := virtualwebauthn.ParseAssertionOptions(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	a.credential.Counter++
	var body map[string]any
	if err := json.Unmarshal([]byte(virtualwebauthn.CreateAssertionResponse(party, a.device, a.credential, *options)), &body); err != nil {
		t.Fatal(err)
	}
	body["requestedScopes"] = scopes
	out, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestPasskeys(t *testing.T) {
	w := newWorld(t, realNow)
	w.pass(time.Since(w.clock()) + time.Second) // the test's own clock with it
	ann := w.signIn("ann@example.com")
	key := newAuthenticator(ann.User.ID)
	refuse(t, w.do("GET", "/users/passkeys/authenticate", nil, bearer(ann.JWT)), 422, "mfa_device_not_found")
	if got := key.register(t, w, ann.JWT); got.Status != 200 {
		t.Fatalf("register: %d %s", got.Status, got.Error)
	}
	scopes := []string{"wallet:export"}
	assertion := key.assert(t, w, ann.JWT, scopes)
	got := w.do("POST", "/users/mfa/auth/passkey", assertion, bearer(ann.JWT))
	if got.Status != 200 || w.verify(got.ElevatedAccessToken)["scope"] != "wallet:export" {
		t.Fatalf("step up: %d %s", got.Status, got.Error)
	}
	refuse(t, w.do("POST", "/users/mfa/auth/passkey", assertion, bearer(ann.JWT)), 422, "invalid_passkey") // its challenge is spent

	bob := w.signIn("bob@example.com")
	other := newAuthenticator(bob.User.ID)
	if got := other.register(t, w, bob.JWT); got.Status != 200 {
		t.Fatalf("register: %d %s", got.Status, got.Error)
	}
	refuse(t, w.do("POST", "/users/mfa/auth/passkey", key.assert(t, w, bob.JWT, scopes), bearer(bob.JWT)), 422, "invalid_passkey")
	forged := *key
	forged.credential.Key = other.credential.Key
	refuse(t, w.do("POST", "/users/mfa/auth/passkey", forged.assert(t, w, ann.JWT, scopes), bearer(ann.JWT)), 422, "invalid_passkey")
	elsewhere := party
	elsewhere.Origin = "https://evil.example"
	party, elsewhere = elsewhere, party
	refuse(t, w.do("POST", "/users/mfa/auth/passkey", key.assert(t, w, ann.JWT, scopes), bearer(ann.JWT)), 422, "invalid_passkey")
	party = elsewhere

	// With a passkey a mailed code is no way to step up any more.
	proof := w.proof("ann@example.com")
	proof["requestedScopes"] = scopes
	refuse(t, w.do("POST", "/emailVerifications/verify", proof, bearer(ann.JWT)), 403, "mfa_required")

	_, list := w.raw("GET", "/users/passkeys", nil, bearer(ann.JWT))
	var keys struct{ Passkeys []struct{ ID string } }
	if err := json.Unmarshal([]byte(list), &keys); err != nil || len(keys.Passkeys) != 1 {
		t.Fatalf("list: %s", list)
	}
	refuse(t, w.do("DELETE", "/users/passkeys", m{"passkeyId": keys.Passkeys[0].ID}, bearer(bob.JWT)), 422, "mfa_device_not_found")
	if got := w.do("DELETE", "/users/passkeys", m{"passkeyId": keys.Passkeys[0].ID}, bearer(ann.JWT)); got.Status != 204 {
		t.Errorf("delete: %d", got.Status)
	}
}

func TestRecoveryCodes(t *testing.T) {
	w := newWorld(t)
	plain := w.signIn("bob@example.com")
	refuse(t, w.do("GET", "/users/mfa/recovery", nil, bearer(plain.JWT)), 422, "mfa_device_not_found")
	session, _ := enrolled(t, w)
	codes := func(method string) []string {
		t.Helper()
		_, text := w.raw(method, "/users/mfa/recovery", nil, bearer(session))
		var a struct {
			Codes []string `json:"recoveryCodes"`
		}
		if err := json.Unmarshal([]byte(text), &a); err != nil || len(a.Codes) == 0 {
			t.Fatalf("codes: %s", text)
		}
		return a.Codes
	}
	first := codes("GET")
	if again := codes("GET"); again[0] != first[0] {
		t.Error("asking again makes new codes")
	}
	use := func(code string) answer {
		t.Helper()
		return w.do("POST", "/users/mfa/auth/recovery", m{"code": code, "requestedScopes": []string{"wallet:export"}}, bearer(session))
	}
	if got := use(strings.ToUpper(first[0])); got.Status != 200 || got.ElevatedAccessToken == "" {
		t.Errorf("a good code: %d %s", got.Status, got.Code)
	}
	refuse(t, use(first[0]), 422, "mfa_invalid_code")
	refuse(t, use(""), 422, "mfa_invalid_code")
	fresh := codes("POST")
	refuse(t, use(first[1]), 422, "mfa_invalid_code")
	if got := use(fresh[1]); got.Status != 200 {
		t.Errorf("a new code: %d %s", got.Status, got.Code)
	}
}

func TestExternalTokens(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *issuer.Config) {
		c.External = &issuer.External{Issuer: "https://backend.example", Audience: "stepward-example", Key: func(string) crypto.PublicKey { return key.Public() }}
	})
	token := func(edit func(jwt.MapClaims)) string {
		t.Helper()
		claims := jwt.MapClaims{
			"iss": "https://backend.example", "aud": "stepward-example", "sub": "ann", "jti": rand.Text(), "iat": w.clock().Unix(),
			"exp": w.clock().Add(time.Minute).Unix(),
		}
		if edit != nil {
			edit(claims)
		}
		signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	signIn := token(nil)
	ann := w.do("POST", "/externalAuth/signin", m{"jwt": signIn})
	if ann.Status != 200 || !ann.User.NewUser {
		t.Fatalf("sign in: %d %s", ann.Status, ann.Code)
	}
	refuse(t, w.do("POST", "/externalAuth/signin", m{"jwt": signIn}), 422, "invalid_external_auth")
	if again := w.do("POST", "/externalAuth/signin", m{"jwt": token(nil)}); again.User.ID != ann.User.ID || again.User.NewUser {
		t.Errorf("again: %+v", again.User)
	}
	stepUp := func(edit func(jwt.MapClaims)) answer {
		t.Helper()
		return w.do("POST", "/externalAuth/verify", m{"jwt": token(func(c jwt.MapClaims) {
			c["scope"] = "wallet:export"
			if edit != nil {
				edit(c)
			}
		})}, bearer(ann.JWT))
	}
	if got := stepUp(nil); got.Status != 200 || w.verify(got.ElevatedAccessToken)["sub"] != ann.User.ID || got.JWT != "" {
		t.Errorf("step up: %+v", got)
	}
	for name, edit := range map[string]func(jwt.MapClaims){
		"another user": func(c jwt.MapClaims) { c["sub"] = "bob" }, "no user": func(c jwt.MapClaims) { delete(c, "sub") },
		"no id": func(c jwt.MapClaims) { delete(c, "jti") }, "no end": func(c jwt.MapClaims) { delete(c, "exp") },
		"over":           func(c jwt.MapClaims) { c["exp"] = w.clock().Add(-time.Second).Unix() },
		"for a year":     func(c jwt.MapClaims) { c["exp"] = w.clock().Add(time.Hour * 24 * 365).Unix() },
		"another issuer": func(c jwt.MapClaims) { c["iss"] = "https://evil.example" }, "another audience": func(c jwt.MapClaims) { c["aud"] = "x" },
		"no scope": func(c jwt.MapClaims) { delete(c, "scope") }, "from tomorrow": func(c jwt.MapClaims) { c["iat"] = w.clock().Add(time.Hour * 24).Unix() },
	} {
		if got := stepUp(edit); got.Status != 422 || got.ElevatedAccessToken != "" {
			t.Errorf("%s: %d %q", name, got.Status, got.Code)
		}
	}
	refuse(t, stepUp(func(c jwt.MapClaims) { c["scope"] = "console:sso:update" }), 422, "invalid_scopes")
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, stepUp(nil), 403, "mfa_required")
	refuse(t, newWorld(t).do("POST", "/externalAuth/signin", m{"jwt": token(nil)}), 422, "invalid_external_auth") // nobody is trusted there
}

// The old MFA token is opaque; whoever may ask is told whose it is.
func TestMFATokens(t *testing.T) {
	w := newWorld(t, func(c *issuer.Config) { c.IntrospectionSecret = "s3cret" })
	session, secret := enrolled(t, w)
	_, text := w.raw("POST", "/users/mfa/auth/totp", m{"code": w.code(secret), "createMfaToken": m{"singleUse": true}}, bearer(session))
	var made struct{ MFAToken string }
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.MFAToken == "" {
		t.Fatalf("no token: %s", text)
	}
	ask := func(token, secret string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/mfaTokens/introspect", strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+secret)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(out)
	}
	if status, text := ask(made.MFAToken, "s3cret"); status != 200 || !strings.Contains(text, `"active":true`) || !strings.Contains(text, `"token_type":"mfa_token"`) {
		t.Errorf("a good token: %d %s", status, text)
	}
	if status, text := ask("other", "s3cret"); status != 200 || !strings.Contains(text, `"active":false`) {
		t.Errorf("another: %d %s", status, text)
	}
	if status, _ := ask(made.MFAToken, "wrong"); status != 401 {
		t.Errorf("somebody else asks: %d", status)
	}
	w.pass(31 * 24 * time.Hour)
	if _, text := ask(made.MFAToken, "s3cret"); !strings.Contains(text, `"active":false`) {
		t.Errorf("after its session: %s", text)
	}
}
