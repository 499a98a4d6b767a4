package issuer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	bolt "go.etcd.io/bbolt"
)

const ceremonyLifetime = 5 * time.Minute

// passkey is a registered WebAuthn credential. Here it is a second factor; the service also signs in with them.
type passkey struct {
	ID         string              `json:"id"`
	Credential webauthn.Credential `json:"credential"`
	UserAgent  string              `json:"userAgent"`
	Origin     string              `json:"origin"`
	CreatedAt  time.Time           `json:"createdAt"`
}

// key names a passkey among those of all users; see bucketCredentials.
func (p passkey) key() string { return "passkey:" + p.credentialID() }

func (p passkey) credentialID() string { return base64.RawURLEncoding.EncodeToString(p.Credential.ID) }

// publicPasskeys are the passkeys as clients see them (models/UserPasskey.js of sdk-api-core).
func (u *user) publicPasskeys() []object {
	list := []object{}
	for _, p := range u.Passkeys {
		list = append(list, object{
			"id": p.ID, "credentialId": p.credentialID(), "userAgent": p.UserAgent, "origin": p.Origin, "createdAt": p.CreatedAt,
		})
	}
	return list
}

// ceremony is a WebAuthn ceremony that has begun. Its challenge is good for one answer, right or wrong.
type ceremony struct {
	Data webauthn.SessionData `json:"data"`
	expiring
}

// The purposes of ceremonies.
const (
	toRegister     = "register:"
	toAuthenticate = "authenticate:"
)

// webauthnUser is a user as the library wants one.
type webauthnUser struct{ *user }

func (u webauthnUser) WebAuthnID() []byte          { return []byte(u.ID) }
func (u webauthnUser) WebAuthnDisplayName() string { return u.WebAuthnName() }

func (u webauthnUser) WebAuthnName() string {
	if email := u.first(formatEmail); email != "" {
		return email
	}
	return u.ID
}

func (u webauthnUser) WebAuthnCredentials() []webauthn.Credential {
	list := make([]webauthn.Credential, 0, len(u.Passkeys))
	for _, p := range u.Passkeys {
		list = append(list, p.Credential)
	}
	return list
}

// relyingParty is the site that passkeys are for.
func (i *Issuer) relyingParty() (*webauthn.WebAuthn, error) {
	site, err := url.Parse(i.cfg.Audience)
	if err != nil {
		return nil, fmt.Errorf("audience: %w", err)
	}
	party, err := webauthn.New(&webauthn.Config{
		RPID: first(i.cfg.RelyingParty, site.Hostname()), RPDisplayName: displayName, RPOrigins: i.cfg.Origins,
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("relying party: %w", err)
	}
	return party, nil
}

// GET /users/passkeys/register
func (i *Issuer) beginPasskey(_ *http.Request, s session) (any, error) {
	return i.beginCeremony(s, toRegister, func(party *webauthn.WebAuthn, u webauthnUser) (any, *webauthn.SessionData, error) {
		known := webauthn.Credentials(u.WebAuthnCredentials()).CredentialDescriptors()
		creation, data, err := party.BeginRegistration(u, webauthn.WithExclusions(known))
		if err != nil {
			return nil, nil, fmt.Errorf("begin registration: %w", err)
		}
		return creation.Response, data, nil
	})
}

// GET /users/passkeys/authenticate
func (i *Issuer) beginPasskeyStepUp(_ *http.Request, s session) (any, error) {
	return i.beginCeremony(s, toAuthenticate, func(party *webauthn.WebAuthn, u webauthnUser) (any, *webauthn.SessionData, error) {
		if len(u.Passkeys) == 0 {
			return nil, nil, errNoMFADevice
		}
		assertion, data, err := party.BeginLogin(u)
		if err != nil {
			return nil, nil, fmt.Errorf("begin login: %w", err)
		}
		return assertion.Response, data, nil
	})
}

// beginCeremony answers with the options of begin, and with those that the SDK takes for granted.
func (i *Issuer) beginCeremony(s session, purpose string,
	begin func(*webauthn.WebAuthn, webauthnUser) (any, *webauthn.SessionData, error),
) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	party, err := i.relyingParty()
	if err != nil {
		return nil, err
	}
	answer := object{"timeout": ceremonyLifetime.Milliseconds(), "excludeCredentials": []any{}, "attestation": "none"}
	if purpose == toAuthenticate {
		answer = object{}
	}
	return answer, i.change(s.User, func(tx *bolt.Tx, u *user) error {
		options, data, err := begin(party, webauthnUser{u})
		if err != nil {
			return err
		}
		if err := overlay(answer, options); err != nil {
			return err
		}
		if err := sweep(tx, bucketCeremonies, i.cfg.Now()); err != nil {
			return err
		}
		data.Expires = time.Time{} // the clock is ours
		return put(tx, bucketCeremonies, purpose+s.Original, ceremony{*data, i.expiry(ceremonyLifetime)})
	})
}

// overlay puts the members of v into o.
func overlay(o object, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode options: %w", err)
	}
	return json.Unmarshal(raw, &o)
}

// passkeyBody is what a browser's authenticator answered, and what is asked for in return.
type passkeyBody struct {
	publicKeyCredential
	asked
}

type publicKeyCredential struct {
	ID       string `json:"id"`
	RawID    string `json:"rawId"`
	Type     string `json:"type"`
	Response struct {
		// The SDK writes clientDataJson at registration, which encoding/json takes for the same.
		ClientDataJSON    string   `json:"clientDataJSON"`
		AttestationObject string   `json:"attestationObject,omitempty"`
		Transports        []string `json:"transports,omitempty"`
		AuthenticatorData string   `json:"authenticatorData,omitempty"`
		Signature         string   `json:"signature,omitempty"`
		UserHandle        string   `json:"userHandle,omitempty"`
	} `json:"response"`
}

// takeCeremony returns what the session's ceremony began with, and forgets it.
func (i *Issuer) takeCeremony(tx *bolt.Tx, s session, purpose string) (webauthn.SessionData, error) {
	var c ceremony
	key := purpose + s.Original
	known, err := get(tx, bucketCeremonies, key, &c)
	if err != nil {
		return c.Data, err
	}
	if !known || i.cfg.Now().After(c.Expires) {
		return c.Data, errPasskey
	}
	return c.Data, remove(tx, bucketCeremonies, key)
}

var errPasskey = unprocessable("invalid_verification", "Passkey not verified")

// refused keeps that the challenge is spent, and logs why the library said no.
func (i *Issuer) refused(r *http.Request, why error) error {
	i.cfg.Log.InfoContext(r.Context(), "passkey refused", "error", why)
	return &kept{errPasskey}
}

// POST /users/passkeys/register
func (i *Issuer) finishPasskey(r *http.Request, s session) (any, error) {
	var body passkeyBody
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	party, err := i.relyingParty()
	if err != nil {
		return nil, err
	}
	n := s.next(user{})
	first := false
	err = i.change(s.User, func(tx *bolt.Tx, u *user) error {
		first = !u.hasMFA()
		data, err := i.takeCeremony(tx, s, toRegister)
		if err != nil {
			return err
		}
		c, err := body.register(party, u, data)
		if err != nil {
			return i.refused(r, err)
		}
		p := passkey{ID: newID(), Credential: *c, UserAgent: r.UserAgent(), Origin: i.site(r), CreatedAt: i.cfg.Now()}
		if known, err := get(tx, bucketCredentials, p.key(), new(string)); err != nil || known {
			if err != nil {
				return err
			}
			return &kept{errPasskey}
		}
		u.Passkeys = append(u.Passkeys, p)
		n.user = *u
		return put(tx, bucketCredentials, p.key(), u.ID)
	})
	if err != nil {
		return nil, err
	}
	if !first { // what is enrolled beside another factor proves nothing yet
		body.CreateMFAToken = nil
	}
	return i.elevated(s, n, asked{CreateMFAToken: body.CreateMFAToken})
}

func (c publicKeyCredential) register(party *webauthn.WebAuthn, u *user, data webauthn.SessionData) (*webauthn.Credential, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(raw)
	if err != nil {
		return nil, err
	}
	return party.CreateCredential(webauthnUser{u}, data, parsed)
}

// POST /users/mfa/auth/passkey
func (i *Issuer) stepUpByPasskey(r *http.Request, s session) (any, error) {
	var body passkeyBody
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	party, err := i.relyingParty()
	if err != nil {
		return nil, err
	}
	return i.stepUpBy(s, body.asked, func(tx *bolt.Tx, u *user) error {
		data, err := i.takeCeremony(tx, s, toAuthenticate)
		if err != nil {
			return err
		}
		c, err := body.authenticate(party, u, data)
		if err != nil {
			return i.refused(r, err)
		}
		n := slices.IndexFunc(u.Passkeys, func(p passkey) bool { return slices.Equal(p.Credential.ID, c.ID) })
		if n < 0 {
			return &kept{errPasskey}
		}
		u.Passkeys[n].Credential = *c
		// The counter went back: somebody has a copy (WebAuthn section 6.1.1). The warning is kept, and locks the key.
		if c.Authenticator.CloneWarning {
			return &kept{errPasskey}
		}
		return nil
	})
}

func (c publicKeyCredential) authenticate(party *webauthn.WebAuthn, u *user, data webauthn.SessionData) (*webauthn.Credential, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(raw)
	if err != nil {
		return nil, err
	}
	return party.ValidateLogin(webauthnUser{u}, data, parsed)
}

// GET /users/passkeys
func (i *Issuer) listPasskeys(_ *http.Request, s session) (any, error) {
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	list := u.publicPasskeys()
	return object{"count": len(list), "passkeys": list}, nil
}

// DELETE /users/passkeys {passkeyId}
func (i *Issuer) deletePasskey(r *http.Request, s session) (any, error) {
	var body struct {
		ID string `json:"passkeyId"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	return nil, i.change(s.User, func(tx *bolt.Tx, u *user) error {
		n := slices.IndexFunc(u.Passkeys, func(p passkey) bool { return p.ID == body.ID })
		if n < 0 {
			return errNoMFADevice
		}
		if err := remove(tx, bucketCredentials, u.Passkeys[n].key()); err != nil {
			return err
		}
		u.Passkeys = slices.Delete(u.Passkeys, n, n+1)
		u.withoutMFA()
		return nil
	})
}
