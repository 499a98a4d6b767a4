package issuer

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	codeLifetime = 10 * time.Minute
	codeGuesses  = 5
)

// verification is a code that was sent to an address.
type verification struct {
	Email   string `json:"email,omitempty"`
	Phone   string `json:"phone,omitempty"` // one of the two
	Code    string `json:"code"`
	Guesses int    `json:"guesses"`
	expiring
}

// verifyResponse is the answer of all calls that establish who somebody is.
type verifyResponse struct {
	User sdkUser `json:"user"`
	// JWT and MinifiedJWT are the same token here; the service leaves most claims out of the second.
	JWT                 string `json:"jwt"`
	MinifiedJWT         string `json:"minifiedJwt"`
	ExpiresAt           int64  `json:"expiresAt"`
	ElevatedAccessToken string `json:"elevatedAccessToken,omitempty"`
	MFAToken            string `json:"mfaToken,omitempty"`
}

type sdkUser struct {
	ID          string               `json:"id"`
	Environment string               `json:"projectEnvironmentId"`
	SessionID   string               `json:"sessionId"`
	Email       string               `json:"email,omitempty"`
	NewUser     bool                 `json:"newUser"`
	Scope       string               `json:"scope"`
	Credentials []verifiedCredential `json:"verifiedCredentials"`
}

type verifiedCredential struct {
	ID               string `json:"id"`
	Format           string `json:"format"`
	Email            string `json:"email,omitempty"`
	PublicIdentifier string `json:"publicIdentifier"`
	SignInEnabled    bool   `json:"signInEnabled"`
}

// newSession is what a session token is made from.
type newSession struct {
	user     user
	created  bool
	device   string // the id of its registration; empty for an unknown device
	scope    string
	original string // the first session of the chain; empty for a new one
	refresh  int64  // when that chain ends; zero for a new one
	key      string
	elevated string
	mfa      string // the old MFA token
}

// respond signs a session token and says who it is for.
func (i *Issuer) respond(n newSession) (verifyResponse, error) {
	answer := verifyResponse{ElevatedAccessToken: n.elevated, MFAToken: n.mfa}
	answer.User = sdkUser{ID: n.user.ID, Environment: i.cfg.Environment, NewUser: n.created, Scope: n.scope}
	hashes := map[string]string{}
	for _, c := range n.user.Emails {
		answer.User.Email = n.user.Emails[0].Email
		answer.User.Credentials = append(answer.User.Credentials,
			verifiedCredential{ID: c.ID, Format: "email", Email: c.Email, PublicIdentifier: c.Email, SignInEnabled: true})
		hashes["email"] = hash(n.user.Emails[0].Email)
	}
	if n.user.External != "" {
		answer.User.Credentials = append(answer.User.Credentials,
			verifiedCredential{ID: n.user.ID, Format: "externalUser", PublicIdentifier: n.user.External, SignInEnabled: true})
	}
	for _, c := range n.user.Phones {
		answer.User.Credentials = append(answer.User.Credentials, verifiedCredential{ID: c.ID, Format: "phoneNumber", PublicIdentifier: c.Phone, SignInEnabled: true})
	}
	for _, c := range n.user.Wallets {
		answer.User.Credentials = append(answer.User.Credentials, verifiedCredential{ID: c.ID, Format: "blockchain", PublicIdentifier: c.Address, SignInEnabled: true})
	}
	for _, c := range n.user.Accounts {
		answer.User.Credentials = append(answer.User.Credentials, verifiedCredential{ID: c.ID, Format: "oauth", PublicIdentifier: c.Email, SignInEnabled: true})
	}
	for _, c := range n.user.secondFactors() {
		answer.User.Credentials = append(answer.User.Credentials, verifiedCredential{ID: c.ID, Format: c.Format, PublicIdentifier: c.ID})
	}
	token, err := i.SessionToken(n.user.ID, func(c map[string]any) {
		c["verified_credentials"] = answer.User.Credentials
		c["scope"] = n.scope
		c["verifiedCredentialsHashes"] = hashes
		if answer.User.Email != "" {
			c["email"] = answer.User.Email
			c["last_verified_credential_id"], c["signin_credential_id"] = n.user.Emails[0].ID, n.user.Emails[0].ID
		}
		if n.device != "" {
			c["deviceRegistrationId"] = n.device
		}
		if n.key != "" {
			c["session_public_key"] = n.key
		}
		if n.original != "" {
			c["originalSid"], c["refreshExp"] = n.original, n.refresh
		}
		answer.User.SessionID, _ = c["sid"].(string)
		answer.ExpiresAt, _ = c["exp"].(int64)
	})
	answer.JWT, answer.MinifiedJWT = token, token
	return answer, err
}

// POST /emailVerifications/create {email}
func (i *Issuer) createEmailVerification(r *http.Request) (any, error) {
	var body struct {
		Email string `json:"email"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	email := normal(body.Email)
	if name, domain, ok := strings.Cut(email, "@"); !ok || name == "" || domain == "" {
		return nil, unprocessable("invalid_email", "Invalid email")
	}
	v := verification{Email: email, Code: i.code(), expiring: i.expiry(codeLifetime)}
	id := newID()
	err := i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketVerification, i.cfg.Now()); err != nil {
			return err
		}
		return put(tx, bucketVerification, id, v)
	})
	if err != nil {
		return nil, err
	}
	i.deliver(Mail{To: email, Code: v.Code})
	return map[string]string{"verificationUUID": id, "email": email}, nil
}

// codeProof is the part of a body that proves an address or a number by the code that was sent there.
type codeProof struct {
	ID               string   `json:"verificationUUID"`
	Token            string   `json:"verificationToken"`
	SessionPublicKey string   `json:"sessionPublicKey"`
	RequestedScopes  []string `json:"requestedScopes"`
}

var errVerification = unprocessable("invalid_email_verification", "Unknown or expired verification")

// check returns the verification that a proof proves. A code works once; wrong guesses are counted even though they fail.
func (i *Issuer) check(tx *bolt.Tx, p codeProof) (verification, error) {
	var v verification
	known, err := get(tx, bucketVerification, p.ID, &v)
	if err != nil {
		return v, err
	}
	if !known || i.cfg.Now().After(v.Expires) {
		return v, errVerification
	}
	if v.Guesses >= codeGuesses {
		return v, unprocessable("too_many_email_verification_attempts", "Too many attempts")
	}
	if subtle.ConstantTimeCompare([]byte(v.Code), []byte(p.Token)) != 1 {
		v.Guesses++
		if err := put(tx, bucketVerification, p.ID, v); err != nil {
			return v, err
		}
		code := "wrong_email_verification_token"
		if v.Phone != "" {
			code = "wrong_sms_verification_token"
		}
		return v, &kept{unprocessable(code, "Wrong code")}
	}
	return v, remove(tx, bucketVerification, p.ID)
}

// POST /emailVerifications/signin {verificationUUID, verificationToken}
func (i *Issuer) signIn(r *http.Request) (any, error) {
	var body codeProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	n := newSession{scope: scopeBasic, key: body.SessionPublicKey}
	var mail *Mail
	err := i.update(func(tx *bolt.Tx) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		v, err := i.check(tx, body)
		if err != nil {
			return err
		}
		email := v.Email
		if email == "" {
			return errVerification
		}
		if n.user, n.created, err = createUser(tx, email); err != nil {
			return err
		}
		mail, err = i.admit(tx, r, &n, email, publicKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	if mail != nil {
		i.deliver(*mail)
	}
	return i.respond(n)
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
	return newSession{user: u, scope: s.Scope, device: s.Device, key: s.Key, original: s.Original, refresh: s.Refresh}
}

// POST /revoke signs out: this session, and those that came out of the same sign-in.
func (i *Issuer) revoke(_ *http.Request, s session) (any, error) {
	return nil, i.update(func(tx *bolt.Tx) error {
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
	})
}

func (i *Issuer) expiry(d time.Duration) expiring { return expiring{i.cfg.Now().Add(d)} }

func (i *Issuer) code() string {
	if i.cfg.Code != "" {
		return i.cfg.Code
	}
	n, _ := rand.Int(rand.Reader, big.NewInt(1_000_000)) // fails only for a maximum that is not positive
	return fmt.Sprintf("%06d", n)
}

func normal(email string) string { return strings.ToLower(strings.TrimSpace(email)) }
