package issuer

import (
	"net/http"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// elevatedScopes are the scopes that may be asked for. Those of Dynamic's own console are none of a wallet's business.
var elevatedScopes = strings.Fields(`
	credential:link credential:unlink credential:update user:update user:delete
	wallet:export wallet:sign wallet:delegate wallet:refresh wallet:reshare wallet:delete wallet:restore
	business_account:governance:update business_account:link_wallet business_account:member:add
	business_account:member:remove business_account:member:role:update business_account:proposal:approve
	business_account:proposal:veto business_account:role:define business_account:role:delete
	business_account:signer:add business_account:signer:remove business_account:transfer_ownership
	business_account:wallet:create business_account:wallet:remove`)

// singleUse says whether one of the scopes makes a token single-use: by Dynamic's defaults, those of wallets do, and the
// transfer of a business account. What the service does when such scopes are asked for together with others is not
// documented; here the stricter one decides.
func singleUse(scopes []string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool {
		return strings.HasPrefix(s, "wallet:") || s == "business_account:transfer_ownership"
	})
}

// elevate signs an elevated token for the scopes that a body requests, none for no scopes.
func (i *Issuer) elevate(s session, scopes []string) (string, error) {
	if len(scopes) == 0 {
		return "", nil
	}
	scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	token, err := i.ElevatedToken(s.User, scopes, singleUse(scopes))
	return token, err
}

// mayElevate refuses scopes that nobody may ask for, and sessions that are not complete: an unregistered device must not
// gain by a step-up what it lacks.
func mayElevate(s session, scopes []string) error {
	for _, scope := range scopes {
		if !slices.Contains(elevatedScopes, scope) {
			return unprocessable("invalid_scopes", "Unknown scope requested")
		}
	}
	if len(scopes) > 0 && !s.complete() {
		return fail(http.StatusForbidden, "forbidden", "Sign-in is not complete")
	}
	return nil
}

// stepUpCredential is something that a user can step up with.
type stepUpCredential struct {
	ID     string `json:"id"`
	Format string `json:"format"`
	Alias  string `json:"alias,omitempty"`
}

// POST /stepUp/check {scope}. The issuer does not know what the gate's policy asks for, so every known scope is required.
func (i *Issuer) stepUpCheck(r *http.Request, s session) (any, error) {
	var body struct {
		Scope string `json:"scope"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !slices.Contains(elevatedScopes, body.Scope) {
		return nil, unprocessable("invalid_scopes", "Unknown scope")
	}
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	credentials := u.stepUpCredentials()
	answer := map[string]any{"isRequired": true, "credentials": credentials}
	if len(credentials) > 0 {
		answer["defaultCredentialId"] = credentials[0].ID
	}
	return answer, nil
}

// secondFactors are those that u has enrolled.
func (u *user) secondFactors() []stepUpCredential {
	list := []stepUpCredential{}
	if d := u.totp(true); d != nil {
		list = append(list, stepUpCredential{ID: d.ID, Format: "totp"})
	}
	for _, p := range u.Passkeys {
		list = append(list, stepUpCredential{ID: p.ID, Format: "passkey"})
	}
	return list
}

// stepUpCredentials are what u can step up with. With a second factor enrolled, signing in anew is no longer a way.
func (u *user) stepUpCredentials() []stepUpCredential {
	list := u.secondFactors()
	if len(list) > 0 {
		return list
	}
	for _, c := range u.Emails {
		list = append(list, stepUpCredential{ID: c.ID, Format: "email", Alias: c.Email})
	}
	for _, c := range u.Phones {
		list = append(list, stepUpCredential{ID: c.ID, Format: "phoneNumber", Alias: c.Phone})
	}
	for _, c := range u.Wallets {
		list = append(list, stepUpCredential{ID: c.ID, Format: "blockchain", Alias: c.Address})
	}
	for _, a := range u.Accounts {
		list = append(list, stepUpCredential{ID: a.ID, Format: "oauth", Alias: a.Email})
	}
	if u.External != "" {
		list = append(list, stepUpCredential{ID: u.ID, Format: "externalUser"})
	}
	return list
}

// stepUpRequest is what all step-ups can be asked for: an elevated token for scopes, or the old MFA token.
type stepUpRequest struct {
	RequestedScopes []string `json:"requestedScopes"`
	CreateMFAToken  *struct {
		SingleUse bool `json:"singleUse"`
	} `json:"createMfaToken"`
}

// stepUp answers for a user who has proven a second factor, as prove says.
func (i *Issuer) stepUp(s session, asked stepUpRequest, prove func(tx *bolt.Tx, u *user) error) (any, error) {
	if err := mayElevate(s, asked.RequestedScopes); err != nil {
		return nil, err
	}
	n := s.next(user{})
	err := i.change(s.User, func(tx *bolt.Tx, u *user) (err error) {
		if err := prove(tx, u); err != nil {
			return err
		}
		if asked.CreateMFAToken != nil {
			if n.mfa, err = i.mintMFAToken(tx, s, asked.CreateMFAToken.SingleUse); err != nil {
				return err
			}
		}
		n.user = *u
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n.elevated, err = i.elevate(s, asked.RequestedScopes); err != nil {
		return nil, err
	}
	return i.respond(n)
}

// POST /users/mfa/auth/totp {id?, code, requestedScopes?, createMfaToken?}. The first code of an app whose enrolment has begun
// finishes that.
func (i *Issuer) stepUpByTOTP(r *http.Request, s session) (any, error) {
	var body struct {
		ID   string `json:"id"`
		Code string `json:"code"`
		stepUpRequest
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return i.stepUp(s, body.stepUpRequest, func(_ *bolt.Tx, u *user) error {
		d := u.totp(true)
		if begun := u.totp(false); begun != nil && begun.ID == body.ID && s.complete() {
			d = begun
		}
		if d == nil || body.ID != "" && body.ID != d.ID {
			return errNoMFADevice
		}
		if err := d.accept(body.Code, i.cfg.Now()); err != nil {
			return err
		}
		if d.VerifiedAt == nil {
			if len(body.RequestedScopes) > 0 || body.CreateMFAToken != nil {
				return errNoMFADevice // what has only just been enrolled steps nobody up
			}
			now := i.cfg.Now()
			d.VerifiedAt = &now
		}
		return nil
	})
}

// POST /emailVerifications/verify {verificationUUID, verificationToken, requestedScopes?} has two meanings, as at Dynamic: with
// scopes it steps up by a code to an address of the user's, without them it links the address to the user.
func (i *Issuer) verifyEmail(r *http.Request, s session) (any, error) {
	var body codeProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if err := mayElevate(s, body.RequestedScopes); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	n := s.next(user{})
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		if len(body.RequestedScopes) > 0 && u.hasSecondFactor() {
			return errMFARequired
		}
		v, err := i.check(tx, body)
		if err != nil {
			return err
		}
		email := v.Email
		if email == "" {
			return errVerification
		}
		own := slices.ContainsFunc(u.Emails, func(c credential) bool { return c.Email == email })
		switch {
		case len(body.RequestedScopes) > 0 && !own:
			err = unprocessable("invalid_email_verification", "Not an address of this user")
		case len(body.RequestedScopes) == 0 && !own:
			err = link(tx, u, email)
		}
		n.user = *u
		return err
	})
	if err != nil {
		return nil, err
	}
	if n.elevated, err = i.elevate(s, body.RequestedScopes); err != nil {
		return nil, err
	}
	return i.respond(n)
}

func link(tx *bolt.Tx, u *user, email string) error {
	var owner string
	if taken, err := get(tx, bucketEmails, email, &owner); err != nil || taken {
		if err != nil {
			return err
		}
		return unprocessable("email_already_exists", "Address belongs to another user")
	}
	u.Emails = append(u.Emails, credential{ID: newID(), Email: email})
	return put(tx, bucketEmails, email, u.ID)
}
