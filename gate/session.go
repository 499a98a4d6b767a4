package gate

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/token"
)

// single returns the only value of a header, whose name is in net/http's form, "" when it is absent, and false when it is
// repeated.
func single(h http.Header, name string) (string, bool) {
	if name == "" {
		return "", true
	}
	values := h[name]
	switch len(values) {
	case 0:
		return "", true
	case 1:
		return values[0], true
	}
	return "", false
}

// proveSession sets d.session, or d.sessionErr when a token was sent that cannot be proven. Only a request that no client
// has reason to send (a repeated header, two different tokens) is refused here.
func (g *Gate) proveSession(ctx context.Context, r *Request, d *decision) reason.Reason {
	raw, why := g.sessionToken(r.Header)
	if why != reason.None || raw == "" {
		return why
	}
	d.sessionToken = raw
	d.session, d.sessionErr = g.config.Session.Verify(ctx, raw)
	if d.sessionErr != nil {
		d.session = nil
	}
	return reason.None
}

// sessionToken finds the token in header and cookie: both are fine when they are equal (design.md section 10, item 2).
func (g *Gate) sessionToken(h http.Header) (string, reason.Reason) {
	value, ok := single(h, g.config.Session.Header)
	if !ok {
		return "", reason.InvalidRequest
	}
	fromHeader := bearer(value)
	if g.config.Session.Cookie == "" {
		return fromHeader, reason.None
	}
	fromCookie, ok := cookie(h, g.config.Session.Cookie)
	switch {
	case !ok, value != "" && fromCookie != "" && fromHeader != fromCookie: // also a header of another scheme
		return "", reason.InvalidRequest
	case fromHeader != "":
		return fromHeader, reason.None
	}
	return fromCookie, reason.None
}

// bearer returns the token of "Bearer <token>" (RFC 6750 section 2.1; the scheme's case does not matter) and "" for other
// schemes, which are not ours to judge.
func bearer(value string) string {
	const scheme = "Bearer "
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return ""
	}
	return strings.TrimLeft(value[len(scheme):], " ")
}

// cookie returns the only cookie of that name, and false when it is repeated or there is another that a backend could take
// for it: many trim what stands before "=", some ignore case.
func cookie(h http.Header, name string) (string, bool) {
	value, found := "", false
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			k, v, _ := strings.Cut(strings.Trim(part, " \t"), "=")
			if k != name && !strings.EqualFold(strings.TrimSpace(k), name) {
				continue
			}
			if found || k != name {
				return "", false
			}
			value, found = strings.Trim(v, `"`), true
		}
	}
	return value, true
}

// sessionFailure maps why there is no proven session to its reason.
func sessionFailure(err error) reason.Reason {
	switch {
	case err == nil:
		return reason.SessionRequired
	case errors.Is(err, token.ErrUnavailable):
		return reason.VerificationUnavailable
	}
	return reason.SessionInvalid
}

// environment is where a request belongs, and how that is known.
type environment struct {
	id string
	// trusted: a verified session, the configuration or the path names it, not a header alone.
	trusted bool
	// mismatch: the candidates disagree; unnamed: a session names no environment and none is fixed; repeated: the header
	// is there more than once.
	mismatch, unnamed, repeated bool
}

func (e environment) faulty() bool { return e.mismatch || e.unnamed || e.repeated }

// environmentOf settles design.md section 10, item 1: the session decides; a fixed id, a route parameter and a header are
// candidates that must agree with it and with each other, and count alone only where there is no session.
func (g *Gate) environmentOf(r *Request, d *decision) environment {
	header, ok := single(r.Header, g.config.Environment.Header)
	e := environment{repeated: !ok}
	e.candidate(g.config.Environment.Fixed, true)
	e.candidate(r.Environment, true)
	if d.session != nil {
		e.candidate(d.session.Environment, true)
		e.unnamed = e.id == ""
	}
	if name := g.config.Environment.Param; name != "" {
		for _, p := range d.match.Params {
			if p.Name == name {
				e.candidate(p.Value, true)
			}
		}
	}
	e.candidate(header, false)
	if e.id != "" && (!isEnvironmentID(e.id) || d.snapshot.ImitatesEnvironment(e.id)) {
		e.mismatch = true
	}
	return e
}

// isEnvironmentID bounds what a client can have logged and remembered under the name of an environment.
func isEnvironmentID(id string) bool {
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '%' {
			return false
		}
	}
	return len(id) <= 128
}

func (e *environment) candidate(id string, trusted bool) {
	switch {
	case id == "":
	case e.id == "":
		e.id, e.trusted = id, trusted
	case e.id != id:
		e.mismatch = true
	}
}
