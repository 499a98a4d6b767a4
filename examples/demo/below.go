package demo

import (
	"errors"
	"net/http"
	"time"

	"github.com/stepward/stepward/examples/backend"
)

// forgetPhone ends what followLink began.
func (s *story) forgetPhone() error {
	s.out.prose("Any of her devices may forget another. Sessions end with their device, whatever their tokens say.")
	a, err := s.call(s.laptop, request{method: "GET", path: "/deviceRegistrations"}, ok("count"))
	if err != nil {
		return err
	}
	var phone string
	list, _ := a.body["deviceRegistrations"].([]any)
	for _, item := range list {
		if d, is := item.(map[string]any); is && d["isCurrentDevice"] == false {
			phone, _ = d["id"].(string)
		}
	}
	if phone == "" {
		return errors.New("expected the phone among the devices, found it not")
	}
	if _, err := s.call(s.laptop, request{method: "DELETE", path: "/deviceRegistrations/" + phone}, ok("currentDeviceRevoked")); err != nil {
		return err
	}
	a, err = s.send(s.phone, request{method: "GET", path: "/users"})
	if err != nil {
		return err
	}
	return s.out.check("the phone's session is over", a.status == http.StatusUnauthorized, a.String())
}

// below is an environment that has not raised its minimum.
func (s *story) below() error {
	const henry = "henry@wallet.example"
	s.out.prose("Its settings say minimum API version 2026_01_01, and MFA for the export: the old kind, for users who have a method. " +
		"Henry has none yet.")
	b, err := s.newBrowser("Henry's browser", s.cfg.Old)
	if err != nil {
		return err
	}
	if err := s.quietly(func() error { return errors.Join(s.signIn(b, henry), s.newWallet(b)) }); err != nil {
		return err
	}
	if _, _, err := s.exports(b, "", ok("accountAddress")); err != nil {
		return err
	}
	s.out.prose("He enrols an authenticator app, for which nobody asks him to step up here. Now he has a method:")
	app := authenticator{now: time.Now}
	if err := s.quietly(func() error { return s.enrolApp(b, &app) }); err != nil {
		return err
	}
	if _, _, err := s.exports(b, "", refusal("mfa_token_required", "detail", "challenge.kind", "token_state")); err != nil {
		return err
	}
	code, err := app.next(s.ctx)
	if err != nil {
		return err
	}
	a, err := s.call(b, request{method: "POST", path: "/users/mfa/auth/totp", body: object{
		"code": code, "createMfaToken": object{"singleUse": true},
	}}, ok("mfaToken"))
	if err != nil {
		return err
	}
	b.session = a.body.text("jwt")
	s.out.prose("That token has no scope and no claims: Stepward asks the issuer about it, and spends it like any other.")
	key, err := backend.NewExportKey()
	if err != nil {
		return err
	}
	export := request{method: "POST", path: b.exportPath(), mfa: a.body.text("mfaToken"), body: object{"exportId": key.ID()}}
	if _, err := s.call(b, export, ok("accountAddress")); err != nil {
		return err
	}
	if _, err := s.call(b, export, refusal("mfa_token_consumed", "detail", "token_state")); err != nil {
		return err
	}
	return s.counted(b, 2, "one without MFA, one with it")
}

// enrolApp gives a user below the floor an authenticator app, and a session that knows of it.
func (s *story) enrolApp(b *browser, app *authenticator) error {
	const path = "/users/mfa/register/totp"
	a, err := s.call(b, request{method: "GET", path: path}, ok())
	if err != nil {
		return err
	}
	app.secret = a.body.text("secret")
	code, err := app.next(s.ctx)
	if err != nil {
		return err
	}
	if _, err = s.call(b, request{method: "POST", path: path, body: object{"type": "totp", "code": code}}, ok()); err != nil {
		return err
	}
	a, err = s.call(b, request{method: "POST", path: "/refresh"}, ok())
	b.session = a.body.text("jwt")
	return err
}
