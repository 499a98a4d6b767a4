package token

// keyKind is a family of keys. The zero value fits no algorithm.
type keyKind uint8

const (
	noKey keyKind = iota
	rsaKey
	p256Key
	p384Key
	p521Key
	ed25519Key
)

// kindOf returns the one kind of key with which an algorithm may be used, noKey for algorithms that are never accepted:
// "none", HMAC (a public key is no secret), other spellings of accepted ones.
func kindOf(algorithm string) keyKind {
	switch algorithm {
	case "RS256", "RS384", "RS512":
		return rsaKey
	case "ES256":
		return p256Key
	case "ES384":
		return p384Key
	case "ES512":
		return p521Key
	case "EdDSA":
		return ed25519Key
	}
	return noKey
}

// Algorithms returns the signature algorithms that can be configured (RFC 7518 section 3.1, RFC 8037 section 3.1). The
// slice is the caller's.
func Algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"}
}
