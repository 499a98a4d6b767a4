package issuer

// Mail is a message that a real issuer would send. This one only puts it into a mailbox.
type Mail struct {
	To string
	// Code is the verification code, in mails that carry one.
	Code string
	// Link leads back to the web site and carries Token in its query; both are set in mails that approve a device.
	Link  string
	Token string
}

// Mail returns the last message to an address, and whether there is one.
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
