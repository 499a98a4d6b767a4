package issuer

import (
	"net/http"
	"time"

	bolt "go.etcd.io/bbolt"
)

const headerSessionKey = "x-dyn-session-public-key"

// verifyResponse is the answer of all calls that establish who somebody is (models/VerifyResponse.js of sdk-api-core).
type verifyResponse struct {
	User sdkUser `json:"user"`
	// JWT and MinifiedJWT are the same token here; the service leaves most claims out of the second.
	JWT                 string `json:"jwt,omitempty"`
	MinifiedJWT         string `json:"minifiedJwt,omitempty"`
	ExpiresAt           int64  `json:"expiresAt"`
	ElevatedAccessToken string `json:"elevatedAccessToken,omitempty"`
	MFAToken            string `json:"mfaToken,omitempty"`
	NextView            string `json:"nextView,omitempty"` // in the answer of PUT /users, which has it and all of these

	cookies []*http.Cookie
}

func (v verifyResponse) setCookies() []*http.Cookie { return v.cookies }

// newSession is what a session token is made from.
type newSession struct {
	user     user
	created  bool
	device   string // the id of its registration; empty for an unknown device
	scope    string
	original string // the first session of the chain; empty for a new one
	refresh  int64  // when that chain ends; zero for a new one
	key      string
	signIn   string // the id of the credential that began the chain
	last     string // the id of the credential that was verified last
	elevated string
	mfaToken string
	view     string
	cookies  []*http.Cookie
}

// respond signs a session token and says who it is for.
func (i *Issuer) respond(n newSession) (verifyResponse, error) {
	answer := verifyResponse{ElevatedAccessToken: n.elevated, MFAToken: n.mfaToken, NextView: n.view}
	var err error
	if answer.User, err = i.describe(n.user); err != nil {
		return answer, err
	}
	answer.User.NewUser, answer.User.Scope, answer.User.LastCredential = n.created, n.scope, n.last
	token, err := i.SessionToken(n.user.ID, func(c map[string]any) {
		n.claim(c)
		c["verified_credentials"] = answer.User.Credentials
		answer.User.SessionID, _ = c["sid"].(string)
		answer.ExpiresAt, _ = c["exp"].(int64)
	})
	if i.keepsCookies() {
		answer.cookies = append(n.cookies, i.cookie(sessionCookie, token, refreshWindow))
	} else {
		answer.JWT, answer.MinifiedJWT = token, token
	}
	return answer, err
}

// claim adds the claims of a session to those that every token has. What there is nothing to say about has no claim.
func (n newSession) claim(c map[string]any) {
	hashes := map[string]string{}
	for _, format := range []string{formatEmail, formatPhone, formatWallet, formatOAuth, formatExternal} {
		if first := n.user.first(format); first != "" {
			hashes[format] = hash(first)
		}
	}
	c["scope"], c["verifiedCredentialsHashes"] = n.scope, hashes
	for name, value := range map[string]string{
		"email": n.user.first(formatEmail), "last_verified_credential_id": n.last, "signin_credential_id": n.signIn,
		"deviceRegistrationId": n.device, "session_public_key": n.key,
	} {
		if value != "" {
			c[name] = value
		}
	}
	if n.original != "" {
		c["originalSid"], c["refreshExp"] = n.original, n.refresh
	}
}

// asked is the part that the bodies of sign-ins and step-ups have in common.
type asked struct {
	SessionPublicKey   string           `json:"sessionPublicKey"`
	RequestedScopes    []string         `json:"requestedScopes"`
	CreateMFAToken     *mfaTokenOptions `json:"createMfaToken"`
	AllowNewMFALinking bool             `json:"allowNewMFALinking"`
}

// prover proves, within a transaction, that somebody has a credential.
type prover func(tx *bolt.Tx) (credential, error)

// signInBy signs in whoever has a credential, and makes the user if there is none.
func (i *Issuer) signInBy(r *http.Request, a asked, prove prover) (any, error) {
	n := newSession{scope: scopeBasic, key: a.SessionPublicKey}
	if n.key == "" {
		n.key = r.Header.Get(headerSessionKey)
	}
	var mail *Mail
	err := i.update(func(tx *bolt.Tx) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		if publicKey == "" && i.keepsCookies() {
			secret := newID()
			publicKey = hash(secret)
			n.cookies = []*http.Cookie{i.cookie(deviceCookie, secret, deviceCookieLifetime)}
		}
		c, err := prove(tx)
		if err != nil {
			return err
		}
		if n.user, n.created, err = createUser(tx, c); err != nil {
			return err
		}
		if own := n.user.own(c); own != nil {
			n.signIn, n.last = own.ID, own.ID
		}
		mail, err = i.admit(tx, r, &n, publicKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	if mail != nil {
		i.deliver(*mail)
	}
	if n.elevated, err = i.firstMFA(n, a); err != nil {
		return nil, err
	}
	return i.respond(n)
}

// firstMFA returns, to a client that asks for it, an elevated token by which a user who has no second factor yet can enrol one
// right after signing in by a code.
func (i *Issuer) firstMFA(n newSession, a asked) (string, error) {
	if !a.AllowNewMFALinking || n.scope != scopeBasic || n.user.hasMFA() {
		return "", nil
	}
	return i.elevate(n.user.ID, []string{"credential:link"})
}

// GET /session
func (i *Issuer) sessionCheck(*http.Request, session) (any, error) { return nil, nil }

// POST /refresh takes a token whose exp has passed too, until its refreshExp.
func (i *Issuer) refresh(r *http.Request) (any, error) {
	s, err := i.session(r)
	if err != nil {
		return nil, err
	}
	if i.cfg.Now().Unix() >= s.Refresh {
		return nil, errUnauthorized
	}
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	return i.respond(s.next(u))
}

// next is the session that follows s: it may do what s may, and ends its chain when s would have.
func (s session) next(u user) newSession {
	return newSession{
		user: u, scope: s.Scope, device: s.Device, key: s.Key, original: s.Original, refresh: s.Refresh,
		signIn: s.SignIn, last: s.LastCredential,
	}
}

// POST /revoke signs out: this session, and those that came out of the same sign-in.
func (i *Issuer) revoke(_ *http.Request, s session) (any, error) {
	return i.farewell(), i.update(func(tx *bolt.Tx) error { return i.endSession(tx, s) })
}

func (i *Issuer) endSession(tx *bolt.Tx, s session) error {
	if err := sweep(tx, bucketRevoked, i.cfg.Now()); err != nil {
		return err
	}
	ends := expiring{time.Unix(max(s.Refresh, s.ExpiresAt.Unix()), 0)}
	for _, id := range []string{s.ID, s.Original} {
		if id == "" {
			continue
		}
		if err := put(tx, bucketRevoked, id, ends); err != nil {
			return err
		}
	}
	return nil
}

func (i *Issuer) expiry(d time.Duration) expiring { return expiring{i.cfg.Now().Add(d)} }
