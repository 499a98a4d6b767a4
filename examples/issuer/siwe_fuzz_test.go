package issuer

import (
	"strings"
	"testing"
)

// What is read from a message is what stands in it, each field on a line of its own.
func FuzzSIWE(f *testing.F) {
	f.Add("wallet.example wants you to sign in with your Ethereum account:\n0x7e5f4552091a69125d5dfcb7b8c2659029395bdf\n\nHi\n\n" +
		"URI: https://wallet.example/\nVersion: 1\nChain ID: 1\nNonce: abcdefgh\nIssued At: 2026-10-01T12:00:00Z\nRequest ID: a")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseSIWE(text)
		if err != nil {
			return
		}
		lines := strings.Split(text, "\n")
		if !strings.HasPrefix(lines[0], m.domain) || strings.ToLower(lines[1]) != m.address {
			t.Errorf("read %q and %q of %q", m.domain, m.address, lines[:2])
		}
		for _, want := range []string{"Chain ID: " + m.chain, "Nonce: " + m.nonce} {
			if strings.Count(text, "\n"+want) == 0 {
				t.Errorf("no line %q", want)
			}
		}
	})
}
