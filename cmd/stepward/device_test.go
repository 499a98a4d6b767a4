package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/issuer"
)

const registrationToken = "X-Dynamic-Device-Registration-Token"

// signedIn is what an answer of the issuer says of a session.
type signedIn struct {
	JWT  string
	User struct{ ID, Scope string }

	VerificationUUID     string
	Nonces               []string
	DeviceRegistrations  []struct{ ID string }
	CurrentDeviceRevoked bool
}

func (w *world) issued(c callOf) (s signedIn) {
	w.t.Helper()
	a := w.do(c)
	if err := json.Unmarshal([]byte(a.Body), &s); err != nil || a.Status != 200 {
		w.t.Fatalf("%s %s: %d %s", c.method, c.path, a.Status, a.Body)
	}
	return s
}

// from signs a fresh nonce, as the SDK does for each request that is to say which device it comes from.
func (w *world) from(d *issuer.Device) map[string]string {
	w.t.Helper()
	h := http.Header{}
	nonces := w.issued(callOf{method: "GET", path: w.issuer.Prefix() + "/nonces?count=1"}).Nonces
	if err := d.Sign(h, nonces[0]); err != nil {
		w.t.Fatal(err)
	}
	headers := map[string]string{}
	for name := range h {
		headers[name] = h.Get(name)
	}
	return headers
}

func (w *world) signIn(email string, d *issuer.Device) signedIn {
	w.t.Helper()
	prefix := w.issuer.Prefix() + "/emailVerifications/"
	began := w.issued(callOf{method: "POST", path: prefix + "create", body: `{"email":"` + email + `"}`})
	mail, _ := w.issuer.Mail(email)
	header := w.from(d)
	header["Content-Type"] = "application/json"
	return w.issued(callOf{method: "POST", path: prefix + "signin", header: header,
		body: `{"verificationUUID":"` + began.VerificationUUID + `","verificationToken":"` + mail.Code + `"}`})
}

// proofs asks for a proof of the device's key where devices are registered and revoked.
func proofs(data string) string {
	return strings.Replace(data, "mfa_actions: []\n", "mfa_actions: []\n    device_proof: [device.register, device.revoke]\n", 1)
}

// TestADevicesLife is the whole story, with the issuer verifying what Stepward let pass: an unknown device, its link, its
// registration by a proof that passes once, and its end.
func TestADevicesLife(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(proofs)
	w.start("policy: {path: policy}", "device: {nonce_lifetime: 50m}", "log: {level: debug}",
		"session: {issuer: app.dynamicauth.com/"+testEnvironment+", audience: "+testAudience+", jwks_url: "+w.origin.URL+w.issuer.Prefix()+
			"/.well-known/jwks, algorithms: [ES256], check: {path: '/api/v0/sdk/{environmentId}/session', cache: 1h}}")
	prefix := w.issuer.Prefix()
	phone, laptop := must(issuer.NewDevice()), must(issuer.NewDevice())
	first := w.signIn("ann@example.com", phone)
	pending := w.signIn("ann@example.com", laptop)
	if first.User.Scope != "user:basic" || pending.User.Scope != "device:register" {
		t.Fatalf("scopes %q and %q", first.User.Scope, pending.User.Scope)
	}
	w.expect(w.do(callOf{method: "GET", path: prefix + "/users", session: pending.JWT}), 403, "device_verification_required")

	mail, _ := w.issuer.Mail("ann@example.com")
	register := func(headers map[string]string) answer {
		headers[registrationToken] = mail.Token
		return w.do(callOf{method: "POST", path: prefix + "/deviceRegistration", session: pending.JWT, header: headers})
	}
	w.expect(register(map[string]string{}), 403, "device_proof_required")
	forged := w.from(laptop)
	forged["X-Dynamic-Device-Publickey"] = w.from(phone)["X-Dynamic-Device-Publickey"]
	w.expect(register(forged), 403, "device_proof_invalid")
	proof := w.from(laptop)
	a := register(proof)
	w.expect(a, 200, "")
	var done signedIn
	if err := json.Unmarshal([]byte(a.Body), &done); err != nil {
		t.Fatal(err)
	}
	w.expect(register(proof), 403, "device_proof_invalid") // before the issuer, which would say so too, sees it again

	read := callOf{method: "GET", path: prefix + "/businessAccounts", session: done.JWT} // the backend's: the issuer would know
	export := callOf{method: "POST", path: w.wallet(done.User.ID), session: done.JWT, elevated: w.elevated(done.User.ID, "wallet:export"),
		body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`}
	w.expect(w.do(read), 200, "")

	devices := w.issued(callOf{method: "GET", path: prefix + "/deviceRegistrations", session: first.JWT}).DeviceRegistrations
	if len(devices) != 2 {
		t.Fatalf("devices %+v", devices)
	}
	revoke := callOf{method: "DELETE", path: prefix + "/deviceRegistrations/" + devices[1].ID, session: first.JWT}
	w.expect(w.do(revoke), 403, "device_proof_required")
	revoke.header = w.from(phone)
	w.expect(w.do(revoke), 200, "")

	w.expect(w.do(read), 200, "")                  // within session.check.cache
	w.expect(w.do(export), 401, "session_invalid") // at once, and the token is not spent
	w.expect(w.do(read), 401, "session_invalid")   // what was found out is remembered

	_, metrics := w.admin("/metrics")
	for _, line := range []string{
		`stepward_decisions_total{operation="device.register",outcome="refuse",reason="device_proof_invalid"} 2`,
		`stepward_session_checks_total{result="ended"} 1`, `stepward_session_checks_total{result="remembered"}`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("no metric %s", line)
		}
	}
	w.origin.CloseClientConnections()
	w.origin.Close()
	w.expect(w.do(callOf{method: "GET", path: prefix + "/deviceRegistrations", session: w.session(done.User.ID)}), 503, "verification_unavailable")
	w.stop()
	for name, text := range map[string]string{
		"stdout": w.stdout.String(), "stderr": w.stderr.String(), "decision log": w.file("decisions.jsonl"), "ledger": w.file("ledger.db"),
	} {
		for _, secret := range []string{mail.Token, proof["X-Dynamic-Device-Nonce"], proof["X-Dynamic-Device-Signed-Nonce"], proof["X-Dynamic-Device-Publickey"]} {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
}

// What framing does for tokens holds for those of the link and for proofs.
func TestHeadersOfDevicesAreNotAmbiguous(t *testing.T) {
	w := newWorld(t)
	w.start()
	register := callOf{method: "POST", path: w.issuer.Prefix() + "/deviceRegistration",
		session: w.session("ann", func(claims map[string]any) { claims["scope"] = "device:register" })}
	for _, c := range []struct {
		name   string
		header http.Header
		query  string
		status int
		code   string
	}{
		{"twice", http.Header{registrationToken: {"t", "t"}}, "", 400, "invalid_request"},
		{"the other name twice", http.Header{"X-Dynamic-Device-Token-Registration": {"t", "t"}}, "", 400, "invalid_request"},
		{"two nonces", http.Header{"X-Dynamic-Device-Nonce": {"a", "b"}}, "", 400, "invalid_request"},
		{"two values", http.Header{registrationToken: {"t"}, "X-Dynamic-Device-Token-Registration": {"u"}}, "", 400, "invalid_request"},
		{"in the query", nil, "?x-dynamic-device-registration-token=t", 400, "invalid_request"},
		{"in the query with underscores", nil, "?x_dynamic_device_token_registration=t", 400, "invalid_request"},
		{"with underscores", http.Header{"X_dynamic_device_registration_token": {"t"}}, "", 400, "ambiguous_request"},
		{"a signature with underscores", http.Header{"X_dynamic_device_signed_nonce": {"t"}}, "", 400, "ambiguous_request"},
		{"named by Connection", http.Header{registrationToken: {"t"}, "Connection": {registrationToken}}, "", 400, "ambiguous_request"},
		{"to the issuer, which does not know it", http.Header{registrationToken: {"t"}}, "", 403, "invalid_device_registration_token"},
	} {
		r := w.request(register)
		if c.query != "" {
			withQuery := register
			withQuery.path += c.query
			r = w.request(withQuery)
		}
		for name, values := range c.header {
			r.Header[name] = values
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.read(res); got.Status != c.status || got.Code != c.code {
			t.Errorf("%s: %d %q, want %d %q", c.name, got.Status, got.Code, c.status, c.code)
		}
	}
	refused := w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: register.session})
	if vary := refused.Header.Get("Vary"); !strings.Contains(vary, registrationToken) || !strings.Contains(vary, "X-Dynamic-Device-Signed-Nonce") {
		t.Errorf("Vary %q", vary)
	}
}
