package issuer

import (
	"net/http"
	"strings"
)

// Mail is a message that a real issuer would send: a mail, or an SMS. This one only puts it into a mailbox.
type Mail struct {
	// To is an address, or a number such as +15550100.
	To string
	// Code is the verification code, in messages that carry one.
	Code string
	// Link leads back to the web site and carries Token in its query; both are set in messages that approve a device.
	Link  string
	Token string
}

// Mail returns the last message to an address or a number, and whether there is one.
func (i *Issuer) Mail(to string) (Mail, bool) {
	i.mailMu.Lock()
	defer i.mailMu.Unlock()
	m, ok := i.mail[normal(to)]
	return m, ok
}

func (i *Issuer) deliver(m Mail) {
	i.mailMu.Lock()
	i.mail[m.To] = m
	i.mailMu.Unlock()
	if i.cfg.Deliver != nil {
		i.cfg.Deliver(m)
	}
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
	id, err := i.sendCode(emailCredential(email))
	return map[string]string{"verificationUUID": id, "email": email}, err
}

func normal(email string) string { return strings.ToLower(strings.TrimSpace(email)) }
