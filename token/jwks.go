package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// The sizes of RSA keys that are used, in bits.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// key is one usable public key. It is immutable.
type key struct {
	algorithm string // alg of the JWK, "" if it names none
	kind      keyKind
	public    crypto.PublicKey  // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	digest    [sha256.Size]byte // of everything above
}

// fits reports whether the key may verify tokens of that algorithm.
func (k *key) fits(algorithm string) bool {
	return k.kind != noKey && k.kind == kindOf(algorithm) && (k.algorithm == "" || k.algorithm == algorithm)
}

// ignoredError says why a well-formed key is not for us. RFC 7517 section 5 wants such keys skipped.
type ignoredError struct{ why string }

func (e *ignoredError) Error() string { return e.why }

// jwkSet is the outcome of reading a JWK Set.
type jwkSet struct {
	keys    map[string]*key // by kid
	ignored int
	why     string // for the first ignored key
}

// parseJWKS reads a JWK Set (RFC 7517 section 5). It is taken whole or not at all: a key that is damaged, a secret that
// should not be there or a kid for two keys spoils the set. Keys that are sound but not for us are skipped: another use,
// algorithm, type or size, or no kid, without which no token can name them.
func parseJWKS(text []byte, maxKeys int, algorithms []string) (*jwkSet, error) {
	document, err := decodeObject(text)
	if err != nil {
		return nil, err
	}
	list, ok := document["keys"].([]any)
	if !ok {
		return nil, errors.New("no array named keys")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("%d keys, more than %d", len(list), maxKeys)
	}
	set := &jwkSet{keys: make(map[string]*key, len(list))}
	for i, element := range list {
		if err := set.add(element, algorithms); err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
	}
	return set, nil
}

func (s *jwkSet) add(element any, algorithms []string) error {
	members, ok := element.(map[string]any)
	if !ok {
		return errors.New("not an object")
	}
	kid, k, err := parseJWK(members, algorithms)
	var ignored *ignoredError
	switch {
	case errors.As(err, &ignored):
		s.ignored++
		if s.why == "" {
			s.why = ignored.why
		}
		return nil
	case err != nil:
		return err
	case s.keys[kid] != nil:
		return errors.New("its kid is another key's too")
	}
	s.keys[kid] = k
	return nil
}

func parseJWK(members map[string]any, algorithms []string) (kid string, k *key, err error) {
	if err := refuseSecrets(members); err != nil {
		return "", nil, err
	}
	r := reader{members: members}
	kty := r.text("kty", required, 32)
	kid = r.text("kid", optional, maxName)
	use := r.text("use", optional, 32)
	algorithm := r.text("alg", optional, 64)
	if r.err != nil {
		return "", nil, r.err
	}
	switch {
	case kid == "" || len(kid) > maxKid || !isPrintable(kid):
		return "", nil, &ignoredError{"no kid that a token could name"}
	case use != "" && use != "sig", !verifies(members["key_ops"]):
		return "", nil, &ignoredError{"not for signatures"}
	case algorithm != "" && !slices.Contains(algorithms, algorithm):
		return "", nil, &ignoredError{"for an algorithm that is not accepted"}
	}
	k, err = material(members, kty)
	if err != nil {
		return "", nil, err
	}
	if algorithm != "" && kindOf(algorithm) != k.kind {
		return "", nil, errors.New("alg does not go with the key")
	}
	k.algorithm = algorithm
	k.digest = k.sum()
	return kid, k, nil
}

// refuseSecrets: an issuer that publishes a private or symmetric key has lost it, and everyone can sign with it.
func refuseSecrets(members map[string]any) error {
	if members["kty"] == "oct" {
		return errors.New("symmetric key in a public set")
	}
	for _, name := range [...]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := members[name]; ok {
			return errors.New("private key in a public set")
		}
	}
	return nil
}

// verifies reports whether key_ops (RFC 7517 section 4.3), if there, allows verification.
func verifies(ops any) bool {
	list, ok := ops.([]any)
	return ops == nil || ok && slices.Contains(list, any("verify"))
}

func material(members map[string]any, kty string) (*key, error) {
	switch kty {
	case "RSA":
		return rsaMaterial(members)
	case "EC":
		return ecMaterial(members)
	case "OKP":
		return edMaterial(members)
	}
	return nil, &ignoredError{"of a type that is not supported"}
}

func rsaMaterial(members map[string]any) (*key, error) {
	n, err := octets(members, "n")
	if err != nil {
		return nil, err
	}
	e, err := octets(members, "e")
	if err != nil {
		return nil, err
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch {
	case exponent.BitLen() > 31 || exponent.BitLen() < 2 || exponent.Bit(0) == 0:
		return nil, errors.New("RSA exponent is not an odd number from 3 to 2^31")
	case modulus.Bit(0) == 0:
		return nil, errors.New("RSA modulus is even")
	case modulus.BitLen() < minRSABits, modulus.BitLen() > maxRSABits:
		return nil, &ignoredError{fmt.Sprintf("RSA key of %d bits, want %d to %d", modulus.BitLen(), minRSABits, maxRSABits)}
	}
	return &key{kind: rsaKey, public: &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}}, nil
}

func ecMaterial(members map[string]any) (*key, error) {
	var kind keyKind
	var curve elliptic.Curve
	switch members["crv"] {
	case "P-256":
		kind, curve = p256Key, elliptic.P256()
	case "P-384":
		kind, curve = p384Key, elliptic.P384()
	case "P-521":
		kind, curve = p521Key, elliptic.P521()
	default:
		return nil, &ignoredError{"on a curve that is not supported"}
	}
	x, err := octets(members, "x")
	if err != nil {
		return nil, err
	}
	y, err := octets(members, "y")
	if err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size { // RFC 7518 section 6.2.1.2
		return nil, errors.New("coordinates of the wrong length")
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y)) // checks the curve's equation
	if err != nil {
		return nil, errors.New("point is not on the curve")
	}
	return &key{kind: kind, public: public}, nil
}

func edMaterial(members map[string]any) (*key, error) {
	if members["crv"] != "Ed25519" {
		return nil, &ignoredError{"on a curve that is not supported"}
	}
	x, err := octets(members, "x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, errors.New("key of the wrong length")
	}
	return &key{kind: ed25519Key, public: ed25519.PublicKey(x)}, nil
}

// octets decodes one base64url member, strictly: no newlines, padding or stray bits.
func octets(members map[string]any, name string) ([]byte, error) {
	s, _ := members[name].(string)
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return nil, fmt.Errorf("%s is not base64url", name)
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s is missing or not base64url", name)
	}
	return b, nil
}

// sum identifies the key, so that a refresh can tell which keys are gone.
func (k *key) sum() [sha256.Size]byte {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	part([]byte{byte(k.kind)})
	part([]byte(k.algorithm))
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		part(public.N.Bytes())
		part(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		b, _ := public.Bytes() // fails only for points off the curve, which ecMaterial refused
		part(b)
	case ed25519.PublicKey:
		part(public)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
