package issuer

import (
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// The formats of credentials.
const (
	formatEmail    = "email"
	formatPhone    = "phoneNumber"
	formatWallet   = "blockchain"
	formatOAuth    = "oauth"
	formatExternal = "externalUser"
)

// credential is something that a user signs in with. It is kept as it is told: as JwtVerifiedCredential, whose members are
// spelled in both ways (models/JwtVerifiedCredential.js of sdk-api-core).
type credential struct {
	ID               string `json:"id"`
	Format           string `json:"format"`
	PublicIdentifier string `json:"public_identifier"`
	SignInEnabled    bool   `json:"signInEnabled"`

	Email string `json:"email,omitempty"`

	PhoneNumber      string `json:"phoneNumber,omitempty"`
	PhoneCountryCode string `json:"phoneCountryCode,omitempty"`
	ISOCountryCode   string `json:"isoCountryCode,omitempty"`

	Address        string `json:"address,omitempty"`
	Chain          string `json:"chain,omitempty"`
	WalletName     string `json:"wallet_name,omitempty"`
	WalletProvider string `json:"wallet_provider,omitempty"`

	OAuthProvider  string `json:"oauth_provider,omitempty"`
	OAuthAccountID string `json:"oauth_account_id,omitempty"`
	OAuthUsername  string `json:"oauth_username,omitempty"`

	OAuthEmails []string `json:"oauth_emails,omitempty"` // that the provider has verified
}

func emailCredential(address string) credential {
	return credential{Format: formatEmail, PublicIdentifier: address, Email: address}
}

// key names a credential among all. Two users never have the same.
func (c credential) key() string {
	switch c.Format {
	case formatOAuth:
		return c.Format + ":" + c.OAuthProvider + ":" + c.OAuthAccountID
	case formatWallet:
		return c.Format + ":" + c.Chain + ":" + strings.ToLower(c.Address)
	}
	return c.Format + ":" + c.PublicIdentifier
}

// own returns the user's credential that is the same as c, nil if there is none.
func (u *user) own(c credential) *credential {
	n := slices.IndexFunc(u.Credentials, func(o credential) bool { return o.key() == c.key() })
	if n < 0 {
		return nil
	}
	return &u.Credentials[n]
}

// first returns the first identifier of a format, empty if there is none.
func (u *user) first(format string) string {
	for _, c := range u.Credentials {
		if c.Format == format {
			return c.PublicIdentifier
		}
	}
	return ""
}

// mailbox is where a message reaches the user: an address, a number, or an address that a social account has; empty if there is
// none.
func (u *user) mailbox() string {
	to := first(u.first(formatEmail), u.first(formatPhone))
	for _, c := range u.Credentials {
		if to == "" && len(c.OAuthEmails) > 0 {
			to = c.OAuthEmails[0]
		}
	}
	return to
}

// createUser returns the user with this credential, and whether it had to be made.
func createUser(tx *bolt.Tx, c credential) (u user, created bool, err error) {
	var id string
	known, err := get(tx, bucketCredentials, c.key(), &id)
	if err != nil {
		return user{}, false, err
	}
	if known {
		u, err = load(tx, id)
		return u, false, err
	}
	u = user{ID: newID()}
	if err := link(tx, &u, c); err != nil {
		return user{}, false, err
	}
	return u, true, put(tx, bucketUsers, u.ID, u)
}

// taken is what the service says of a credential that somebody else has.
var taken = map[string]string{
	formatEmail: "email_already_exists", formatPhone: "sms_already_exists", formatWallet: "reassign_wallet_error",
	formatOAuth: "social_account_already_exists", formatExternal: "invalid_external_auth",
}

// link gives a user a credential that nobody has.
func link(tx *bolt.Tx, u *user, c credential) error {
	var owner string
	known, err := get(tx, bucketCredentials, c.key(), &owner)
	if err != nil {
		return err
	}
	if known {
		return unprocessable(taken[c.Format], "It belongs to another user")
	}
	c.ID, c.SignInEnabled = newID(), true
	u.Credentials = append(u.Credentials, c)
	return put(tx, bucketCredentials, c.key(), u.ID)
}
