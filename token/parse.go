package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MaxBytes is the longest token that is looked at.
const MaxBytes = 8 << 10

// The longest accepted values, in bytes.
const (
	maxKid     = 128
	maxJTI     = 128
	maxSubject = 256
	maxName    = 512 // iss, environment_id
)

// maxSeconds bounds exp, iat and nbf: 2^40 seconds are in the year 36812, and far from any overflow.
const maxSeconds = 1 << 40

// The members that are read, by their folded names.
var (
	headerNames  = byFold("alg", "typ", "kid")
	payloadNames = byFold("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "singleUse", "environment_id")
)

func byFold(names ...string) map[string]string {
	m := make(map[string]string, len(names))
	for _, name := range names {
		m[fold(name)] = name
	}
	return m
}

// unverified is what a token says of itself. Nothing in it is proven.
type unverified struct {
	alg, typ, kid string
	claims        *Claims
	saysSingleUse bool // the claim singleUse is there, whatever its value
}

// parse reads a token for which there is exactly one reading and one spelling of header and payload. It looks at no key.
//
// A token that is not one by its form is ErrMalformed; one whose header or payload is not acceptable is ErrInvalid with the
// fault named, and with nothing of the token in the text.
func parse(raw string) (*unverified, error) {
	header, payload, err := segments(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	u := &unverified{}
	if err := u.readHeader(header); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	if err := u.readPayload(payload); err != nil {
		return nil, fmt.Errorf("%w: payload: %w", ErrInvalid, err)
	}
	u.claims.Input = sha256.Sum256([]byte(raw[:strings.LastIndexByte(raw, '.')]))
	return u, nil
}

// segments checks the form and decodes header and payload. The signature is decoded too, only to refuse a second spelling
// of it: newlines (which encoding/base64 skips even when strict) by the alphabet, padding bits by Strict.
func segments(raw string) (header, payload []byte, err error) {
	if len(raw) > MaxBytes {
		return nil, nil, errors.New("too long")
	}
	for i := range len(raw) {
		if !isTokenByte(raw[i]) {
			return nil, nil, errors.New("byte outside the alphabet")
		}
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("not three parts")
	}
	var decoded [3][]byte
	for i, part := range parts {
		decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(part) == 0 {
			return nil, nil, errors.New("part is empty or not base64url")
		}
	}
	return decoded[0], decoded[1], nil
}

func isTokenByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '_' || b == '.'
}

// readHeader takes alg, typ and kid. Other members are ignored, as RFC 7515 section 4 asks, except those that change how a
// token is to be read or bring keys along.
func (u *unverified) readHeader(text []byte) error {
	members, err := decodeObject(text)
	if err != nil {
		return err
	}
	for name := range members {
		if isRefusedHeader(name) {
			return errors.New("member that is never accepted")
		}
	}
	if err := exactNames(members, headerNames); err != nil {
		return err
	}
	r := reader{members: members}
	u.alg = r.text("alg", required, 16)
	u.typ = r.text("typ", optional, 64)
	u.kid = r.text("kid", required, maxKid)
	if r.err == nil && !isPrintable(u.kid) {
		return errors.New("kid is not printable")
	}
	return r.err
}

// isRefusedHeader: crit (RFC 7515 section 4.1.11) names extensions we do not know, b64 (RFC 7797) unencodes the payload, zip
// compresses it, cty nests another token, and the rest let the token bring its own key. Folded, since other readers fold.
func isRefusedHeader(name string) bool {
	switch name = fold(name); name {
	case "crit", "b64", "zip", "cty", "jku", "jwk":
		return true
	}
	return strings.HasPrefix(name, "x5") // x5u, x5c, x5t, x5t#S256
}

func (u *unverified) readPayload(text []byte) error {
	members, err := decodeObject(text)
	if err != nil {
		return err
	}
	if err := exactNames(members, payloadNames); err != nil {
		return err
	}
	r := reader{members: members}
	u.claims = &Claims{
		Issuer:      r.text("iss", required, maxName),
		Subject:     r.text("sub", optional, maxSubject),
		ID:          r.text("jti", optional, maxJTI),
		Environment: r.text("environment_id", optional, maxName),
		Audience:    r.texts("aud"),
		Scopes:      r.scopes("scope"),
		SingleUse:   r.boolean("singleUse"),
		IssuedAt:    r.date("iat"),
		NotBefore:   r.date("nbf"),
		Expires:     r.date("exp"),
		Members:     members,
	}
	_, u.saysSingleUse = members["singleUse"]
	return r.err
}

// exactNames refuses a member that differs from one of the names only by case: "EXP" and "ſcope" are exp and scope to a
// reader that folds. The names are given by their folded form.
func exactNames(members map[string]any, names map[string]string) error {
	for member := range members {
		if name, ok := names[fold(member)]; ok && member != name {
			return errors.New("member differs from a registered one by case")
		}
	}
	return nil
}

// required and optional say whether a member may be absent. A member that is there must be well formed.
const (
	required = true
	optional = false
)

// reader takes typed values out of members and keeps the first fault.
type reader struct {
	members map[string]any
	err     error
}

func (r *reader) fault(name, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s %s", name, what)
	}
}

func (r *reader) text(name string, needed bool, limit int) string {
	v, ok := r.members[name]
	if !ok {
		if needed {
			r.fault(name, "is missing")
		}
		return ""
	}
	s, ok := v.(string)
	if !ok || s == "" || len(s) > limit || hasControl(s) {
		r.fault(name, "is not a plain string of acceptable length")
		return ""
	}
	return s
}

// texts reads a string or an array of strings (RFC 7519 section 4.1.3).
func (r *reader) texts(name string) []string {
	switch v := r.members[name].(type) {
	case nil:
		if _, ok := r.members[name]; ok {
			r.fault(name, "is null")
		}
	case string:
		return []string{v}
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				r.fault(name, "is not an array of strings")
			}
			out[i] = s
		}
		return out
	default:
		r.fault(name, "is neither a string nor an array")
	}
	return nil
}

// scopes reads one string of scopes with single spaces between them (RFC 6749 section 3.3). "" is no scope.
func (r *reader) scopes(name string) []string {
	v, ok := r.members[name]
	if !ok {
		return nil
	}
	s, ok := v.(string)
	if !ok {
		r.fault(name, "is not a string")
	}
	if s == "" {
		return nil
	}
	scopes := strings.Split(s, " ")
	for _, scope := range scopes {
		if scope == "" || hasControl(scope) || strings.ContainsFunc(scope, unicode.IsSpace) {
			r.fault(name, "is not a list with single spaces")
		}
	}
	return scopes
}

func (r *reader) boolean(name string) bool {
	v, ok := r.members[name]
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		r.fault(name, "is not a boolean")
	}
	return b
}

// date reads a NumericDate (RFC 7519 section 2) in [0, 2^40), zero if absent. A fraction is allowed there, so it is here,
// and cut off: a token dies less than a second early rather than late. Exponents and signs are not: no issuer writes them.
func (r *reader) date(name string) time.Time {
	v, ok := r.members[name]
	if !ok {
		return time.Time{}
	}
	n, ok := v.(json.Number)
	if !ok || strings.ContainsAny(n.String(), "eE-") {
		r.fault(name, "is not a plain number")
		return time.Time{}
	}
	whole, _, _ := strings.Cut(n.String(), ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds >= maxSeconds {
		r.fault(name, "is out of range")
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// isPrintable reports whether s is visible ASCII and spaces.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
