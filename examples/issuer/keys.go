package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"

	bolt "go.etcd.io/bbolt"
)

// keyset is the key that signs, the one before it, whose tokens are still good, and the public halves as they are published.
type keyset struct {
	current  key
	previous *key
	jwks     []byte
}

type key struct {
	id        string
	algorithm string
	private   crypto.Signer
}

// storedKey is a key in the file. Index 0 of the stored list signs.
type storedKey struct {
	ID        string `json:"id"`
	Algorithm string `json:"algorithm"`
	PKCS8     []byte `json:"pkcs8"`
}

// JWKS returns the published keys, the newest first. The caller must not change the slice.
func (i *Issuer) JWKS() []byte { return i.keys.Load().jwks }

// Rotate makes a new key of Config.Algorithm and signs with it from now on. The key before it stays published; older ones are
// dropped, and tokens that they signed stop being good.
func (i *Issuer) Rotate() error {
	i.rotate.Lock()
	defer i.rotate.Unlock()
	private, err := generate(i.cfg.Algorithm)
	if err != nil {
		return err
	}
	keys := []key{{id: newID(), algorithm: i.cfg.Algorithm, private: private}}
	if old := i.keys.Load(); old != nil {
		keys = append(keys, old.current)
	}
	stored := make([]storedKey, 0, len(keys))
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return fmt.Errorf("encode key: %w", err)
		}
		stored = append(stored, storedKey{ID: k.id, Algorithm: k.algorithm, PKCS8: der})
	}
	if err := i.db.Update(func(tx *bolt.Tx) error { return put(tx, bucketMeta, "keys", stored) }); err != nil {
		return err
	}
	return i.use(keys)
}

func (i *Issuer) loadKeys() error {
	var stored []storedKey
	err := i.db.View(func(tx *bolt.Tx) error {
		_, err := get(tx, bucketMeta, "keys", &stored)
		return err
	})
	if err != nil || len(stored) == 0 {
		return err
	}
	keys := make([]key, 0, len(stored))
	for _, s := range stored {
		parsed, err := x509.ParsePKCS8PrivateKey(s.PKCS8)
		if err != nil {
			return fmt.Errorf("decode key %s: %w", s.ID, err)
		}
		private, ok := parsed.(crypto.Signer)
		if !ok {
			return fmt.Errorf("key %s cannot sign", s.ID)
		}
		keys = append(keys, key{id: s.ID, algorithm: s.Algorithm, private: private})
	}
	return i.use(keys)
}

func (i *Issuer) use(keys []key) error {
	next := &keyset{current: keys[0]}
	if len(keys) > 1 {
		next.previous = &keys[1]
	}
	published := struct {
		Keys []jwk `json:"keys"`
	}{}
	for _, k := range keys {
		j, err := k.publish()
		if err != nil {
			return err
		}
		published.Keys = append(published.Keys, j)
	}
	var err error
	if next.jwks, err = json.Marshal(published); err != nil {
		return fmt.Errorf("encode keys: %w", err)
	}
	i.keys.Store(next)
	return nil
}

// find returns the key that signed a token with this kid and algorithm.
func (s *keyset) find(id, algorithm string) (crypto.PublicKey, bool) {
	for _, k := range []*key{&s.current, s.previous} {
		if k != nil && k.id == id && k.algorithm == algorithm {
			return k.private.Public(), true
		}
	}
	return nil, false
}

func generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "RS256":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("algorithm %q: want RS256, ES256 or EdDSA", algorithm)
}

// jwk is a public key as RFC 7517, RFC 7518 section 6 and RFC 8037 spell it.
type jwk struct {
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Type      string `json:"kty"`
	Use       string `json:"use"`
	Curve     string `json:"crv,omitempty"`
	E         string `json:"e,omitempty"`
	N         string `json:"n,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

func (k key) publish() (jwk, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	j := jwk{ID: k.id, Algorithm: k.algorithm, Use: "sig"}
	switch public := k.private.Public().(type) {
	case *rsa.PublicKey:
		j.Type, j.N, j.E = "RSA", b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, then x and y of 32 bytes each
		if err != nil {
			return jwk{}, fmt.Errorf("encode key %s: %w", k.id, err)
		}
		j.Type, j.Curve, j.X, j.Y = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		j.Type, j.Curve, j.X = "OKP", "Ed25519", b64(public)
	default:
		return jwk{}, fmt.Errorf("key %s is a %T", k.id, public)
	}
	return j, nil
}

func (i *Issuer) getJWKS(*http.Request) (any, error) { return json.RawMessage(i.JWKS()), nil }
