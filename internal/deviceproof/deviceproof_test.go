package deviceproof_test

import (
	"crypto/elliptic"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/deviceproof"
)

type vector struct{ Key, Nonce, Signature string }

// vectors were made by the WebCrypto calls of the SDK (testdata/vectors.mjs).
func vectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(text, &list); err != nil || len(list) < 60 {
		t.Fatalf("%d vectors, %v", len(list), err)
	}
	return list
}

var order = elliptic.P256().Params().N

// withS replaces the signature's s.
func (v vector) withS(change func(s *big.Int) *big.Int) vector {
	rs, err := hex.DecodeString(v.Signature)
	if err != nil {
		panic(err)
	}
	change(new(big.Int).SetBytes(rs[32:])).FillBytes(rs[32:])
	v.Signature = hex.EncodeToString(rs)
	return v
}

func TestWhatWebCryptoSigns(t *testing.T) {
	high := 0
	for _, v := range vectors(t) {
		key, err := deviceproof.Verify(v.Key, v.Nonce, v.Signature)
		if err != nil || string(key) != v.Key {
			t.Errorf("%+v: %q, %v", v, key, err)
		}
		if key, err := deviceproof.Verify(strings.ToUpper(v.Key), v.Nonce, strings.ToUpper(v.Signature)); err != nil || string(key) != v.Key {
			t.Errorf("in upper case, %+v: %q, %v; want the same key", v, key, err)
		}
		// The other signature that the mathematics gives to everybody: of the same key, so that it spends the same nonce.
		other := v.withS(func(s *big.Int) *big.Int { return new(big.Int).Sub(order, s) })
		if key, err := deviceproof.Verify(other.Key, other.Nonce, other.Signature); err != nil || string(key) != v.Key {
			t.Errorf("with n-s, %+v: %q, %v", v, key, err)
		}
		if s, _ := new(big.Int).SetString(v.Signature[64:], 16); s.Cmp(new(big.Int).Rsh(order, 1)) > 0 {
			high++
		}
	}
	if high == 0 {
		t.Error("no vector has a high s, so that refusing those would not be noticed")
	}
}

func TestWhatProvesNothing(t *testing.T) {
	list := vectors(t)
	v, other := list[1], list[2]
	set := func(change func(*vector)) vector { c := v; change(&c); return c }
	rs := func(r, s *big.Int) vector {
		return set(func(c *vector) {
			c.Signature = hex.EncodeToString(r.FillBytes(make([]byte, 32))) + hex.EncodeToString(s.FillBytes(make([]byte, 32)))
		})
	}
	zero, one := new(big.Int), big.NewInt(1)
	p := elliptic.P256().Params().P
	for name, c := range map[string]vector{
		"nothing":                       {},
		"another nonce":                 set(func(c *vector) { c.Nonce = other.Nonce }),
		"another key":                   set(func(c *vector) { c.Key = other.Key }),
		"the key's mirror image":        set(func(c *vector) { c.Key = map[string]string{"02": "03", "03": "02"}[c.Key[:2]] + c.Key[2:] }),
		"another signature":             set(func(c *vector) { c.Signature = other.Signature }),
		"a nonce with a letter more":    set(func(c *vector) { c.Nonce += "0" }),
		"no nonce":                      set(func(c *vector) { c.Nonce = "" }),
		"a nonce that is too long":      set(func(c *vector) { c.Nonce = strings.Repeat("x", deviceproof.MaxNonce+1) }),
		"two nonces":                    set(func(c *vector) { c.Nonce += ", " + c.Nonce }),
		"a nonce in Unicode":            set(func(c *vector) { c.Nonce = "é" }),
		"an uncompressed key":           set(func(c *vector) { c.Key = "04" + strings.Repeat(c.Key[2:], 2) }),
		"a key of the wrong first byte": set(func(c *vector) { c.Key = "04" + c.Key[2:] }),
		"the point at infinity":         set(func(c *vector) { c.Key = "00" + strings.Repeat("0", 64) }),
		"x that is not reduced":         set(func(c *vector) { c.Key = "02" + hex.EncodeToString(p.Bytes()) }),
		"x of no point":                 set(func(c *vector) { c.Key = "02" + strings.Repeat("f", 64) }),
		"a key with a prefix":           set(func(c *vector) { c.Key = "0x" + c.Key[2:] }),
		"a key with a blank":            set(func(c *vector) { c.Key = " " + c.Key[1:] }),
		"a key that is too short":       set(func(c *vector) { c.Key = c.Key[:64] }),
		"a signature of DER's length":   set(func(c *vector) { c.Signature = "3044" + c.Signature }),
		"a signature that is cut":       set(func(c *vector) { c.Signature = c.Signature[:126] }),
		"a signature that is not hex":   set(func(c *vector) { c.Signature = strings.Repeat("g", 128) }),
		"r and s are zero":              rs(zero, zero),
		"r is zero":                     rs(zero, one),
		"s is zero":                     rs(one, zero),
		"r and s are the order":         rs(order, order),
		"s is beyond the order":         v.withS(func(s *big.Int) *big.Int { return new(big.Int).Sub(new(big.Int).Lsh(one, 256), one) }),
	} {
		if key, err := deviceproof.Verify(c.Key, c.Nonce, c.Signature); err == nil || key != "" {
			t.Errorf("%s: %q passes", name, key)
		}
	}
}

func FuzzVerify(f *testing.F) {
	list := vectors(f)
	for _, v := range list[:8] {
		f.Add(v.Key, v.Nonce, v.Signature)
	}
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, key, nonce, signature string) {
		got, err := deviceproof.Verify(key, nonce, signature)
		if err != nil {
			if got != "" {
				t.Errorf("%q with an error", got)
			}
			return
		}
		if string(got) != strings.ToLower(key) || !deviceproof.IsNonce(nonce) {
			t.Errorf("%q for key %q and nonce %q", got, key, nonce)
		}
		if parsed, err := deviceproof.ParseKey(key); err != nil || parsed != got {
			t.Errorf("ParseKey: %q, %v, want %q", parsed, err, got)
		}
		// By another way: the curve's equation.
		raw, _ := hex.DecodeString(key)
		x, y := elliptic.UnmarshalCompressed(elliptic.P256(), raw)
		if x == nil || new(big.Int).Mod(new(big.Int).Mul(y, y), elliptic.P256().Params().P).Cmp(curveAt(x)) != 0 {
			t.Errorf("key %q is not on the curve", key)
		}
	})
}

// curveAt is x³ - 3x + b.
func curveAt(x *big.Int) *big.Int {
	c := elliptic.P256().Params()
	y := new(big.Int).Exp(x, big.NewInt(3), c.P)
	y.Sub(y, new(big.Int).Mul(big.NewInt(3), x))
	y.Add(y, c.B)
	return y.Mod(y, c.P)
}

func BenchmarkVerify(b *testing.B) {
	v := vectors(b)[1]
	for b.Loop() {
		if _, err := deviceproof.Verify(v.Key, v.Nonce, v.Signature); err != nil {
			b.Fatal(err)
		}
	}
}
