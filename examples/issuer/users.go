package issuer

import (
	"net/http"

	bolt "go.etcd.io/bbolt"
)

// profile is what users say about themselves.
type profile struct {
	Alias     string `json:"alias,omitempty"`
	FirstName string `json:"firstName,omitempty"`
	LastName  string `json:"lastName,omitempty"`
	Username  string `json:"username,omitempty"`
}

// sdkUser is a user as clients see one (models/SdkUser.js of sdk-api-core).
type sdkUser struct {
	ID             string `json:"id"`
	Environment    string `json:"projectEnvironmentId"`
	SessionID      string `json:"sessionId"`
	NewUser        bool   `json:"newUser"`
	Scope          string `json:"scope"`
	Email          string `json:"email,omitempty"`
	PhoneNumber    string `json:"phoneNumber,omitempty"`
	LastCredential string `json:"lastVerifiedCredentialId,omitempty"`
	Recovery       string `json:"mfaBackupCodeAcknowledgement,omitempty"`
	Credentials    []any  `json:"verifiedCredentials"`
	Missing        []any  `json:"missingFields"`
	profile
}

// describe shows a user, with the wallets that the backend keeps.
func (i *Issuer) describe(u user) (sdkUser, error) {
	answer := sdkUser{
		ID: u.ID, Environment: i.cfg.Environment, Email: u.first(formatEmail), PhoneNumber: u.first(formatPhone),
		Recovery: u.Recovery.State, Credentials: []any{}, Missing: []any{}, profile: u.Profile,
	}
	for _, c := range u.Credentials {
		answer.Credentials = append(answer.Credentials, c)
	}
	for _, f := range u.mfaCredentials() {
		answer.Credentials = append(answer.Credentials, credential{ID: f.ID, Format: f.Format, PublicIdentifier: f.ID})
	}
	if i.cfg.Wallets == nil {
		return answer, nil
	}
	wallets, err := i.cfg.Wallets(u.ID)
	for _, w := range wallets {
		answer.Credentials = append(answer.Credentials, w)
	}
	return answer, err
}

// GET /users
func (i *Issuer) getUser(_ *http.Request, s session) (any, error) {
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	answer, err := i.describe(u)
	answer.Scope, answer.SessionID, answer.LastCredential = s.Scope, s.ID, s.LastCredential
	return answer, err
}

// PUT /users {alias?, firstName?, lastName?, username?, mfaBackupCodeAcknowledgement?}
func (i *Issuer) updateUser(r *http.Request, s session) (any, error) {
	var body struct {
		Alias, FirstName, LastName, Username *string
		MFABackupCodeAcknowledgement         *string
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	n := s.next(user{})
	err := i.change(s.User, func(_ *bolt.Tx, u *user) error {
		for _, change := range []struct{ from, to *string }{
			{body.Alias, &u.Profile.Alias}, {body.FirstName, &u.Profile.FirstName},
			{body.LastName, &u.Profile.LastName}, {body.Username, &u.Profile.Username},
		} {
			if change.from != nil {
				*change.to = *change.from
			}
		}
		if told := body.MFABackupCodeAcknowledgement; told != nil && *told == recoveryComplete {
			u.Recovery.acknowledge()
		}
		n.user = *u
		return nil
	})
	if err != nil {
		return nil, err
	}
	n.view = "done"
	return i.respond(n)
}

// DELETE /users forgets a user and ends this session; those of registered devices end with the devices. What the backend keeps,
// it forgets itself.
func (i *Issuer) deleteUser(_ *http.Request, s session) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	return i.farewell(), i.update(func(tx *bolt.Tx) error {
		u, err := load(tx, s.User)
		if err != nil {
			return err
		}
		for _, c := range u.Credentials {
			if err := remove(tx, bucketCredentials, c.key()); err != nil {
				return err
			}
		}
		for _, p := range u.Passkeys {
			if err := remove(tx, bucketCredentials, p.key()); err != nil {
				return err
			}
		}
		if err := i.endSession(tx, s); err != nil {
			return err
		}
		return remove(tx, bucketUsers, u.ID)
	})
}
