package issuer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

const (
	siweLifetime = 10 * time.Minute // of a message that names no end
	siweSkew     = time.Minute
)

// siwe is a message of EIP-4361.
type siwe struct {
	domain, address string // the address in lower case
	uri             *url.URL
	chain           string // a decimal number
	nonce           string
	issued          time.Time
	expires, begins time.Time // zero for none
	requestID       string
}

// parseSIWE reads a message by the grammar of EIP-4361, which is one of lines in a fixed order. Anything else is an error: what
// a person did not see in the wallet must not count here.
func parseSIWE(text string) (siwe, error) {
	l := &lines{rest: strings.Split(text, "\n")}
	var m siwe
	m.domain = l.between("", " wants you to sign in with your Ethereum account:")
	address := l.next()
	l.blank()
	if l.peek() != "" {
		l.next() // the statement
	}
	l.blank()
	uri := l.between("URI: ", "")
	if version := l.between("Version: ", ""); version != "1" {
		l.fail("version", "want 1")
	}
	m.chain, m.nonce = l.between("Chain ID: ", ""), l.between("Nonce: ", "")
	m.issued = l.time("Issued At: ")
	m.expires, m.begins = l.optionalTime("Expiration Time: "), l.optionalTime("Not Before: ")
	if l.has("Request ID: ") {
		m.requestID = l.between("Request ID: ", "")
	}
	l.resources()
	if l.err != nil {
		return siwe{}, l.err
	}
	return m, m.check(address, uri)
}

func (m *siwe) check(address, uri string) error {
	raw, err := hex.DecodeString(strings.TrimPrefix(address, "0x"))
	if err != nil || len(raw) != 20 || !strings.HasPrefix(address, "0x") {
		return errors.New("address: want 0x and 40 hex digits")
	}
	m.address = strings.ToLower(address)
	if address != m.address && address != checksummed(raw) {
		return errors.New("address: its checksum is wrong (EIP-55)")
	}
	if m.uri, err = url.Parse(uri); err != nil {
		return errors.New("URI: want one")
	}
	if n, err := strconv.ParseUint(m.chain, 10, 64); err != nil || strconv.FormatUint(n, 10) != m.chain {
		return errors.New("chain ID: want a number")
	}
	if len(m.nonce) < 8 || strings.Trim(m.nonce, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return errors.New("nonce: want at least 8 letters and digits")
	}
	return nil
}

func (m *siwe) inTime(now time.Time) error {
	switch {
	case m.issued.After(now.Add(siweSkew)), m.issued.Before(now.Add(-siweLifetime)):
		return errors.New("issued at: not now")
	case !m.expires.IsZero() && !now.Before(m.expires):
		return errors.New("expiration time: over")
	case !m.begins.IsZero() && now.Before(m.begins):
		return errors.New("not before: not yet")
	}
	return nil
}

// lines are read one after another. The first fault stays.
type lines struct {
	rest []string
	err  error
}

func (l *lines) fail(what, want string) {
	if l.err == nil {
		l.err = fmt.Errorf("%s: %s", what, want)
	}
}

func (l *lines) peek() string {
	if len(l.rest) == 0 {
		return ""
	}
	return l.rest[0]
}

func (l *lines) next() string {
	line := l.peek()
	if len(l.rest) == 0 {
		l.fail("message", "it ends too early")
		return ""
	}
	l.rest = l.rest[1:]
	return line
}

func (l *lines) has(prefix string) bool { return strings.HasPrefix(l.peek(), prefix) }

func (l *lines) blank() {
	if len(l.rest) == 0 || l.next() != "" {
		l.fail("message", "want an empty line")
	}
}

// between is what stands between a prefix and a suffix, and is not empty.
func (l *lines) between(prefix, suffix string) string {
	line := l.next()
	text, hasPrefix := strings.CutPrefix(line, prefix)
	text, hasSuffix := strings.CutSuffix(text, suffix)
	if !hasPrefix || !hasSuffix || text == "" {
		l.fail("message", fmt.Sprintf("want a line %q", prefix+"…"+suffix))
	}
	return text
}

func (l *lines) time(prefix string) time.Time {
	t, err := time.Parse(time.RFC3339, l.between(prefix, ""))
	if err != nil {
		l.fail(prefix, "want a time of RFC 3339")
	}
	return t
}

func (l *lines) optionalTime(prefix string) time.Time {
	if !l.has(prefix) {
		return time.Time{}
	}
	return l.time(prefix)
}

// resources passes over the list at the end: nothing here depends on it.
func (l *lines) resources() {
	if l.peek() == "Resources:" {
		for l.next(); l.has("- "); {
			l.next()
		}
	}
	if len(l.rest) > 0 {
		l.fail("message", "it goes on after its end")
	}
}

func keccak(parts ...string) []byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // a hash takes everything
	}
	return h.Sum(nil)
}

// checksummed spells an address as EIP-55 does.
func checksummed(address []byte) string {
	text := []byte(hex.EncodeToString(address))
	sum := hex.EncodeToString(keccak(string(text)))
	for n, c := range text {
		if c >= 'a' && sum[n] >= '8' {
			text[n] = c - 'a' + 'A'
		}
	}
	return "0x" + string(text)
}

// recoverAddress returns the address, in lower case, that signed a message by EIP-191's version E, "personal_sign". The
// signature is 65 bytes in hex: r, s and v. Of the two s that fit, only the lower one is taken (EIP-2), so that there is one
// signature.
func recoverAddress(message, signature string) (string, error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(signature, "0x"))
	if err != nil || len(raw) != 65 {
		return "", errors.New("signature: want 65 bytes in hex")
	}
	v := raw[64]
	if v < 27 {
		v += 27
	}
	var s secp256k1.ModNScalar
	if s.SetByteSlice(raw[32:64]) || s.IsOverHalfOrder() || v > 28 {
		return "", errors.New("signature: s or v out of range")
	}
	sum := personal(message)
	public, _, err := ecdsa.RecoverCompact(append([]byte{v}, raw[:64]...), sum)
	if err != nil {
		return "", fmt.Errorf("signature: %w", err)
	}
	point := public.SerializeUncompressed()
	return "0x" + hex.EncodeToString(keccak(string(point[1:]))[12:]), nil
}

// personal is the hash that wallets sign of a text (EIP-191, version E).
func personal(message string) []byte {
	return keccak("\x19Ethereum Signed Message:\n", strconv.Itoa(len(message)), message)
}
