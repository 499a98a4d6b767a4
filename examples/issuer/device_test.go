package issuer_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/issuer"
)

const tokenHeader = "x-dynamic-device-registration-token"

func newDevice(t *testing.T) *issuer.Device {
	t.Helper()
	d, err := issuer.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAnUnknownDeviceIsRegisteredByMail(t *testing.T) {
	w := newWorld(t)
	phone, laptop := newDevice(t), newDevice(t)
	first := w.signIn("ann@example.com", w.from(phone))
	if first.User.Scope != "user:basic" {
		t.Fatalf("first device: got scope %q", first.User.Scope)
	}
	if again := w.signIn("ann@example.com", w.from(phone)); again.User.Scope != "user:basic" {
		t.Errorf("known device: got scope %q", again.User.Scope)
	}

	pending := w.signIn("ann@example.com", w.from(laptop))
	if pending.User.Scope != "device:register" {
		t.Fatalf("unknown device: got scope %q", pending.User.Scope)
	}
	refuse(t, w.do("PUT", "/users", m{"alias": "x"}, bearer(pending.JWT)), 401, "unauthorized")
	refuse(t, w.do("DELETE", "/deviceRegistrations", nil, bearer(pending.JWT)), 401, "unauthorized")
	mail, ok := w.issuer.Mail("ann@example.com")
	if !ok || !strings.HasPrefix(mail.Link, audience+"/?deviceRegistrationToken=") {
		t.Fatalf("got mail %+v", mail)
	}
	const path = "/deviceRegistration"
	stranger := w.signIn("bob@example.com", w.from(newDevice(t)))
	refuse(t, w.do("POST", path, nil, bearer(stranger.JWT), header(tokenHeader, mail.Token), w.from(laptop)),
		403, "invalid_device_registration_token")
	refuse(t, w.do("POST", path, nil, bearer(pending.JWT), header(tokenHeader, mail.Token), w.from(newDevice(t))),
		403, "invalid_device_registration_token")
	refuse(t, w.do("POST", path, nil, bearer(pending.JWT), header(tokenHeader, "guess"), w.from(laptop)),
		403, "invalid_device_registration_token")

	done := w.do("POST", path, nil, bearer(pending.JWT), header(tokenHeader, mail.Token), w.from(laptop))
	if done.Status != 200 || done.User.Scope != "user:basic" || done.User.ID != first.User.ID {
		t.Fatalf("register: got %d %s, user %+v", done.Status, done.Code, done.User)
	}
	refuse(t, w.do("POST", path, nil, bearer(pending.JWT), header(tokenHeader, mail.Token), w.from(laptop)),
		403, "invalid_device_registration_token")

	list := w.do("GET", "/deviceRegistrations", nil, bearer(done.JWT))
	if list.Count != 2 || list.DeviceRegistrations[0].IsCurrentDevice || !list.DeviceRegistrations[1].IsCurrentDevice {
		t.Errorf("got devices %+v", list.DeviceRegistrations)
	}
}

func TestTheOtherSpellingOfTheTokenHeader(t *testing.T) {
	w := newWorld(t)
	w.signIn("ann@example.com")
	d := newDevice(t)
	pending := w.signIn("ann@example.com", w.from(d))
	mail, _ := w.issuer.Mail("ann@example.com")
	got := w.do("POST", "/deviceRegistration", nil, bearer(pending.JWT),
		header("x-dynamic-device-token-registration", mail.Token), w.from(d))
	if got.Status != 200 {
		t.Errorf("got %d %s", got.Status, got.Code)
	}
}

func TestAWindowForTheLink(t *testing.T) {
	w := newWorld(t)
	w.signIn("ann@example.com")
	d := newDevice(t)
	pending := w.signIn("ann@example.com", w.from(d))
	mail, _ := w.issuer.Mail("ann@example.com")
	w.pass(16 * time.Minute)
	refuse(t, w.do("POST", "/deviceRegistration", nil, bearer(pending.JWT), header(tokenHeader, mail.Token), w.from(d)),
		403, "invalid_device_registration_token")
}

func TestADeviceHasToHaveAKey(t *testing.T) {
	w := newWorld(t)
	w.signIn("ann@example.com")
	pending := w.signIn("ann@example.com")
	mail, _ := w.issuer.Mail("ann@example.com")
	refuse(t, w.do("POST", "/deviceRegistration", nil, bearer(pending.JWT), header(tokenHeader, mail.Token)),
		400, "invalid_device_signature")
}

func TestDeviceSignatures(t *testing.T) {
	w := newWorld(t)
	d := newDevice(t)
	fresh := func() http.Header {
		h := http.Header{}
		w.from(d)(h)
		return h
	}
	used := fresh()
	w.signIn("ann@example.com", func(h http.Header) { copyTo(h, used) })

	otherNonce := fresh()
	otherNonce.Set("x-dynamic-device-nonce", fresh().Get("x-dynamic-device-nonce"))
	otherKey := fresh()
	otherDevice := http.Header{}
	w.from(newDevice(t))(otherDevice)
	otherKey.Set("x-dynamic-device-publickey", otherDevice.Get("x-dynamic-device-publickey"))
	badKey := fresh()
	badKey.Set("x-dynamic-device-publickey", "05"+strings.Repeat("00", 32))
	noHex := fresh()
	noHex.Set("x-dynamic-device-signed-nonce", "zz")
	late := fresh()

	tests := map[string]http.Header{
		"a nonce twice": used, "another nonce": otherNonce, "another key": otherKey, "a key off the curve": badKey, "no hex": noHex,
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			got := w.do("POST", "/emailVerifications/signin", w.proof("ann@example.com"), func(to http.Header) { copyTo(to, h) })
			refuse(t, got, 400, "invalid_device_signature")
		})
	}
	t.Run("a nonce after a day", func(t *testing.T) {
		w.pass(25 * time.Hour)
		got := w.do("POST", "/emailVerifications/signin", w.proof("ann@example.com"), func(to http.Header) { copyTo(to, late) })
		refuse(t, got, 400, "invalid_device_signature")
	})
}

func copyTo(to, from http.Header) {
	for name, values := range from {
		to[name] = values
	}
}

func TestNonces(t *testing.T) {
	w := newWorld(t)
	tests := map[string]struct{ status, count int }{
		"": {200, 1}, "?count=5": {200, 5}, "?count=0": {400, 0}, "?count=21": {400, 0}, "?count=x": {400, 0},
	}
	for query, want := range tests {
		if got := w.do("GET", "/nonces"+query, nil); got.Status != want.status || len(got.Nonces) != want.count {
			t.Errorf("%q: got %d with %d nonces, want %+v", query, got.Status, len(got.Nonces), want)
		}
	}
}

func TestRevokingADeviceEndsItsSessions(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com", w.from(newDevice(t)))
	id := w.do("GET", "/deviceRegistrations", nil, bearer(ann.JWT)).DeviceRegistrations[0].ID
	refuse(t, w.do("DELETE", "/deviceRegistrations/unknown", nil, bearer(ann.JWT)), 404, "not_found")
	if got := w.do("DELETE", "/deviceRegistrations/"+id, nil, bearer(ann.JWT)); got.Status != 200 || !got.CurrentDeviceRevoked {
		t.Errorf("got %d, current device revoked %v", got.Status, got.CurrentDeviceRevoked)
	}
	refuse(t, w.do("GET", "/session", nil, bearer(ann.JWT)), 401, "unauthorized")
	refuse(t, w.do("POST", "/refresh", nil, bearer(ann.JWT)), 401, "unauthorized")
}

func TestRevokingAllDevices(t *testing.T) {
	w := newWorld(t)
	w.signIn("ann@example.com", w.from(newDevice(t)))
	other, err := w.issuer.SessionToken(w.signIn("ann@example.com").User.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.do("DELETE", "/deviceRegistrations", nil, bearer(other)); got.Status != 200 || got.CurrentDeviceRevoked {
		t.Errorf("got %d, current device revoked %v", got.Status, got.CurrentDeviceRevoked)
	}
	refuse(t, w.do("GET", "/deviceRegistrations", nil, bearer(other)), 401, "unauthorized")
}
