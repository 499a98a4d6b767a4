// Package door holds what every door does alike: which peers are trusted, how a request that cannot be judged is called, which
// of the client's credentials go no further, and how the backend is told what was verified.
package door

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/canon"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/internal/reason"
)

// Identity names the headers that tell the backend verified facts; "" tells none.
type Identity struct{ Subject, Scopes, DecisionID, Environment string }

// Canonical returns i with its names in net/http's form, which Tell passes on.
func (i Identity) Canonical() Identity {
	for _, name := range []*string{&i.Subject, &i.Scopes, &i.DecisionID, &i.Environment} {
		*name = http.CanonicalHeaderKey(*name)
	}
	return i
}

// Names are those that are not "".
func (i *Identity) Names() []string {
	var names []string
	for _, name := range []string{i.Subject, i.Scopes, i.DecisionID, i.Environment} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Tell calls set for each fact of v that has a name and a value. A client's own copies must be gone.
func (i *Identity) Tell(v *gate.Verdict, set func(name, value string)) {
	tell := func(name, value string) {
		if name != "" && value != "" {
			set(name, value)
		}
	}
	tell(i.DecisionID, v.DecisionID)
	tell(i.Subject, FieldValue(v.Subject))
	if v.EnvironmentProven {
		tell(i.Environment, FieldValue(v.Environment))
	}
	if i.Scopes != "" && len(v.Scopes) > 0 {
		tell(i.Scopes, FieldValue(strings.Join(v.Scopes, " ")))
	}
}

// FieldValue percent-encodes what is not printable ASCII, and "%" itself so that it can be undone.
func FieldValue(s string) string {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			plain = false
		}
	}
	if plain && strings.TrimSpace(s) == s {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Credentials names where a client's tokens travel, and which of them the backend gets.
type Credentials struct {
	SessionHeader, SessionCookie                string
	ElevatedHeader, MFAHeader                   string
	ForwardSession, ForwardElevated, ForwardMFA bool
}

// Canonical returns c with its names in net/http's form, which Withhold looks for.
func (c Credentials) Canonical() Credentials {
	for _, name := range []*string{&c.SessionHeader, &c.ElevatedHeader, &c.MFAHeader} {
		*name = http.CanonicalHeaderKey(*name)
	}
	return c
}

// Withhold removes from h what the backend is not to have. A preflight has no use for any of it.
func (c *Credentials) Withhold(h http.Header, preflight bool) {
	if !c.ForwardElevated || preflight {
		delete(h, c.ElevatedHeader)
	}
	if !c.ForwardMFA || preflight {
		delete(h, c.MFAHeader)
	}
	switch {
	case preflight:
		delete(h, c.SessionHeader)
		delete(h, "Authorization")
		delete(h, "Cookie")
		for _, name := range gate.RegistrationTokenHeaders() {
			delete(h, name)
		}
	case !c.ForwardSession:
		delete(h, c.SessionHeader)
		removeCookie(h, c.SessionCookie)
	}
}

// removeCookie takes one cookie out of the Cookie header and leaves the others as they were spelled.
func removeCookie(h http.Header, name string) {
	values := h["Cookie"]
	if name == "" || len(values) == 0 {
		return
	}
	var kept []string
	for _, value := range values {
		for pair := range strings.SplitSeq(value, ";") {
			pair = strings.TrimSpace(pair)
			if key, _, _ := strings.Cut(pair, "="); pair != "" && strings.TrimSpace(key) != name {
				kept = append(kept, pair)
			}
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = []string{strings.Join(kept, "; ")}
}

// Peers are networks.
type Peers []netip.Prefix

// Trust reports whether address, as net/http spells RemoteAddr, is in one of them.
func (p Peers) Trust(address string) bool {
	if len(p) == 0 {
		return false
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	ip := at.Addr().Unmap()
	for _, network := range p {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// RequestID is a trusted proxy's, if its form is good, or "".
func RequestID(h http.Header, trusted bool) string {
	if values := h["X-Request-Id"]; trusted && len(values) == 1 && isRequestID(values[0]) {
		return values[0]
	}
	return ""
}

func isRequestID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return len(s) >= 8 && len(s) <= 128
}

// FramingReason is the reason for an error of package framing.
func FramingReason(err error) reason.Reason {
	if errors.Is(err, framing.ErrRepeated) || errors.Is(err, framing.ErrQuery) {
		return reason.InvalidRequest
	}
	return reason.AmbiguousRequest
}

// SafeMethod keeps what a client made up out of the decision log.
func SafeMethod(method string) string {
	if canon.Method(method) != nil {
		return "other"
	}
	return method
}
