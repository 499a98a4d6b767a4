package issuer_test

import (
	"testing"
	"time"
)

// sms asks for a code to a number and returns the body that proves it.
func (w *world) sms(number string) m {
	w.t.Helper()
	a := w.do("POST", "/smsVerifications/create", m{"phoneCountryCode": "1", "phoneNumber": number, "isoCountryCode": "US"})
	if a.Status != 200 || a.VerificationUUID == "" || a.PhoneNumber != "5550100" && number == "555-0100" || a.ISOCountryCode != "US" {
		w.t.Fatalf("create SMS verification: %+v", a)
	}
	return m{"verificationUUID": a.VerificationUUID, "verificationToken": demoCode}
}

func TestCodesBySMS(t *testing.T) {
	w := newWorld(t)
	ann := w.do("POST", "/smsVerifications/signin", w.sms("555-0100"), w.from(newDevice(t)))
	if ann.Status != 200 || !ann.User.NewUser || ann.User.PhoneNumber != "+15550100" || ann.User.VerifiedCredentials[0].Format != "phoneNumber" {
		t.Fatalf("got %d %s %+v", ann.Status, ann.Code, ann.User)
	}
	if sms, ok := w.issuer.Mail("+15550100"); !ok || sms.Code != demoCode {
		t.Errorf("got message %+v", sms)
	}
	stepUp := w.sms("555-0100")
	stepUp["requestedScopes"] = []string{"wallet:sign"}
	if got := w.do("POST", "/smsVerifications/verify", stepUp, bearer(ann.JWT)); w.verify(got.ElevatedAccessToken)["scope"] != "wallet:sign" {
		t.Errorf("step-up: got %d %s", got.Status, got.Code)
	}
	refuse(t, w.do("POST", "/smsVerifications/verify", stepUp, bearer(ann.JWT)), 422, "invalid_sms_verification")

	linked := w.do("POST", "/emailVerifications/verify", w.proof("ann@example.com"), bearer(ann.JWT))
	if linked.Status != 200 || w.signIn("ann@example.com").User.ID != ann.User.ID {
		t.Errorf("link: got %d %s", linked.Status, linked.Code)
	}
	pending := w.do("POST", "/smsVerifications/signin", w.sms("555-0100"), w.from(newDevice(t)))
	if mail, _ := w.issuer.Mail("ann@example.com"); pending.User.Scope != "device:register" || mail.Link == "" {
		t.Errorf("unknown device: scope %q, mail %+v", pending.User.Scope, mail)
	}
}

func TestCodesBySMSThatDoNotWork(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	for _, number := range []string{"", "1", "5550x00", "123456789012345"} {
		body := m{"phoneCountryCode": "1", "phoneNumber": number, "isoCountryCode": "US"}
		refuse(t, w.do("POST", "/smsVerifications/create", body), 422, "invalid_phone")
	}
	// A code by one way is none by the other: an address could be taken for a number.
	refuse(t, w.do("POST", "/smsVerifications/signin", w.proof("ann@example.com")), 422, "invalid_sms_verification")
	refuse(t, w.do("POST", "/emailVerifications/signin", w.sms("555-0100")), 422, "invalid_email_verification")

	wrong := w.sms("555-0100")
	wrong["verificationToken"] = "000000"
	for range 5 {
		refuse(t, w.do("POST", "/smsVerifications/signin", wrong), 422, "wrong_sms_verification_token")
	}
	refuse(t, w.do("POST", "/smsVerifications/signin", wrong), 422, "too_many_sms_verification_attempts")
	w.pass(11 * time.Minute)

	stranger := w.sms("555-0199")
	stranger["requestedScopes"] = []string{"wallet:export"}
	refuse(t, w.do("POST", "/smsVerifications/verify", stranger, bearer(ann.JWT)), 422, "invalid_verification")
	if got := w.do("POST", "/smsVerifications/verify", w.sms("555-0100"), bearer(ann.JWT)); got.Status != 200 {
		t.Fatalf("link: got %d %s", got.Status, got.Code)
	}
	bob := w.signIn("bob@example.com")
	refuse(t, w.do("POST", "/smsVerifications/verify", w.sms("555-0100"), bearer(bob.JWT)), 422, "sms_already_exists")
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	stepUp := w.sms("555-0100")
	stepUp["requestedScopes"] = []string{"wallet:export"}
	refuse(t, w.do("POST", "/smsVerifications/verify", stepUp, bearer(ann.JWT)), 403, "mfa_required")
}
