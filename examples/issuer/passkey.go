package issuer

import (
	"bytes"
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

// passkey is a WebAuthn credential, which is a second factor here.
type passkey struct {
	ID         string              `json:"id"`
	Credential webauthn.Credential `json:"credential"`
	UserAgent  string              `json:"userAgent"`
	CreatedAt  time.Time           `json:"createdAt"`
}

// ceremony is a registration or an authentication that has begun. A user has one of each kind.
type ceremony struct {
	Session webauthn.SessionData `json:"session"`
	expiring
}

func newRelyingParty(audience string) (*webauthn.WebAuthn, error) {
	origin, err := url.Parse(audience)
	if err != nil {
		return nil, fmt.Errorf("audience: %w", err)
	}
	return webauthn.New(&webauthn.Config{RPID: origin.Hostname(), RPDisplayName: "Stepward example", RPOrigins: []string{audience}})
}

// WebAuthnID and the other three methods are webauthn.User's.
func (u *user) WebAuthnID() []byte { return []byte(u.ID) }

func (u *user) WebAuthnName() string { return u.name() }

func (u *user) WebAuthnDisplayName() string { return u.name() }

func (u *user) WebAuthnCredentials() []webauthn.Credential {
	var list []webauthn.Credential
	for _, p := range u.Passkeys {
		list = append(list, p.Credential)
	}
	return list
}

func (u *user) name() string {
	if len(u.Emails) > 0 {
		return u.Emails[0].Email
	}
	return u.ID
}

func ceremonyKey(s session, kind string) string { return s.User + "/" + kind }

func (i *Issuer) keepCeremony(tx *bolt.Tx, s session, kind string, data *webauthn.SessionData) error {
	return put(tx, bucketCeremonies, ceremonyKey(s, kind), ceremony{*data, i.expiry(ceremonyLifetime)})
}

var errPasskey = unprocessable("invalid_passkey", "Passkey not accepted")

// takeCeremony returns what begin has kept, once.
func (i *Issuer) takeCeremony(tx *bolt.Tx, s session, kind string) (webauthn.SessionData, error) {
	var c ceremony
	known, err := get(tx, bucketCeremonies, ceremonyKey(s, kind), &c)
	switch {
	case err != nil:
		return c.Session, err
	case !known || i.cfg.Now().After(c.Expires):
		return c.Session, errPasskey
	}
	return c.Session, remove(tx, bucketCeremonies, ceremonyKey(s, kind))
}

// GET /users/passkeys/register
func (i *Issuer) beginPasskey(_ *http.Request, s session) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	var options *protocol.CredentialCreation
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		var data *webauthn.SessionData
		var err error
		options, data, err = i.relying.BeginRegistration(u,
			webauthn.WithExclusions(webauthn.Credentials(u.WebAuthnCredentials()).CredentialDescriptors()),
			webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
				ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
			}))
		if err != nil {
			return fmt.Errorf("begin registration: %w", err)
		}
		return i.keepCeremony(tx, s, "register", data)
	})
	if err != nil {
		return nil, err
	}
	return membersOf(options.Response, map[string]any{"excludeCredentials": []any{}, "attestation": "none", "timeout": ceremonyLifetime.Milliseconds()})
}

// membersOf is a value's JSON with members that the SDK cannot do without.
func membersOf(v any, needed map[string]any) (map[string]any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode options: %w", err)
	}
	members := map[string]any{}
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("decode options: %w", err)
	}
	for name, value := range needed {
		if members[name] == nil {
			members[name] = value
		}
	}
	return members, nil
}

// credentialOf is the part of a body that a browser's WebAuthn made. The SDK's generated client spells one member in its own way.
func credentialOf(body json.RawMessage) ([]byte, error) {
	var c map[string]any
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fail(http.StatusBadRequest, "bad_request", "Request body is no credential")
	}
	if response, ok := c["response"].(map[string]any); ok && response["clientDataJSON"] == nil {
		response["clientDataJSON"] = response["clientDataJson"]
	}
	return json.Marshal(c)
}

// POST /users/passkeys/register, with the browser's credential.
func (i *Issuer) finishPasskey(r *http.Request, s session) (any, error) {
	var body json.RawMessage
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	text, err := credentialOf(body)
	if err != nil {
		return nil, err
	}
	n := s.next(user{})
	err = i.change(s.User, func(tx *bolt.Tx, u *user) error {
		data, err := i.takeCeremony(tx, s, "register")
		if err != nil {
			return err
		}
		parsed, err := protocol.ParseCredentialCreationResponseBody(bytes.NewReader(text))
		if err != nil {
			return &kept{errPasskey}
		}
		c, err := i.relying.CreateCredential(u, data, parsed)
		if err != nil {
			return &kept{errPasskey}
		}
		u.Passkeys = append(u.Passkeys, passkey{ID: newID(), Credential: *c, UserAgent: r.UserAgent(), CreatedAt: i.cfg.Now()})
		n.user = *u
		return nil
	})
	if err != nil {
		return nil, err
	}
	return i.respond(n)
}

// GET /users/passkeys/authenticate
func (i *Issuer) beginPasskeyAuth(_ *http.Request, s session) (any, error) {
	var options *protocol.CredentialAssertion
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		if len(u.Passkeys) == 0 {
			return errNoMFADevice
		}
		var data *webauthn.SessionData
		var err error
		if options, data, err = i.relying.BeginLogin(u, webauthn.WithUserVerification(protocol.VerificationRequired)); err != nil {
			return fmt.Errorf("begin login: %w", err)
		}
		return i.keepCeremony(tx, s, "authenticate", data)
	})
	if err != nil {
		return nil, err
	}
	return membersOf(options.Response, nil)
}

// POST /users/mfa/auth/passkey, with the browser's assertion and requestedScopes beside its members.
func (i *Issuer) stepUpByPasskey(r *http.Request, s session) (any, error) {
	var body json.RawMessage
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	var asked stepUpRequest
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fail(http.StatusBadRequest, "bad_request", "Request body: requestedScopes or createMfaToken is not right")
	}
	text, err := credentialOf(body)
	if err != nil {
		return nil, err
	}
	return i.stepUp(s, asked, func(tx *bolt.Tx, u *user) error {
		data, err := i.takeCeremony(tx, s, "authenticate")
		if err != nil {
			return err
		}
		parsed, err := protocol.ParseCredentialRequestResponseBody(bytes.NewReader(text))
		if err != nil {
			return &kept{errPasskey}
		}
		c, err := i.relying.ValidateLogin(u, data, parsed)
		if err != nil || c.Authenticator.CloneWarning {
			return &kept{errPasskey}
		}
		for n := range u.Passkeys {
			if bytes.Equal(u.Passkeys[n].Credential.ID, c.ID) {
				u.Passkeys[n].Credential = *c // its counter goes on
			}
		}
		return nil
	})
}

// GET /users/passkeys
func (i *Issuer) listPasskeys(_ *http.Request, s session) (any, error) {
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	list := []map[string]any{}
	for _, p := range u.Passkeys {
		list = append(list, map[string]any{
			"id": p.ID, "credentialId": base64.RawURLEncoding.EncodeToString(p.Credential.ID), "userAgent": p.UserAgent, "createdAt": p.CreatedAt,
			"origin": i.cfg.Audience,
		})
	}
	return map[string]any{"passkeys": list, "count": len(list)}, nil
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
	return nil, i.change(s.User, func(_ *bolt.Tx, u *user) error {
		before := len(u.Passkeys)
		u.Passkeys = slices.DeleteFunc(u.Passkeys, func(p passkey) bool { return p.ID == body.ID })
		if len(u.Passkeys) == before {
			return errNoMFADevice
		}
		return nil
	})
}

var _ webauthn.User = (*user)(nil)
