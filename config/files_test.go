package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/config"
)

// certificate writes a fresh self-signed certificate and its key.
func certificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, "a")
	certificate(t, dir, "b")
	write(t, filepath.Join(dir, "keys.json"), []byte(`{"keys": [{"kty": "RSA"}]}`))
	write(t, filepath.Join(dir, "empty.json"), []byte(`{"keys": []}`))
	write(t, filepath.Join(dir, "short.key"), []byte("short"))
	write(t, filepath.Join(dir, "long.key"), []byte(strings.Repeat("k", 32)))
	if err := os.Mkdir(filepath.Join(dir, "rego"), 0o700); err != nil {
		t.Fatal(err)
	}
	base := "upstream: https://backend.internal\nsession: {issuer: a, audience: b, jwks_file: keys.json}\nledger: bolt:ledger.db\n"
	rows := []struct{ name, text, want string }{
		{"everything in place", "tls: {cert_file: a.crt, key_file: a.key, client_ca_file: b.crt}\nupstream_tls: {ca_file: b.crt}\n" +
			"policy: {path: rego}\ndecision_log: {key_file: long.key, to: ./decisions.jsonl}\n", ""},
		{"an unreadable key file", "tls: {cert_file: a.crt, key_file: none.key}\n",
			`:4:35: tls.key_file: "none.key" cannot be read: no such file`},
		{"a directory in place of a file", "tls: {cert_file: rego, key_file: a.key}\n", `tls.cert_file: "rego" is not a file`},
		{"another certificate's key", "tls: {cert_file: a.crt, key_file: b.key}\n",
			"tls.cert_file: and tls.key_file are not a PEM certificate and its key"},
		{"a key in place of an authority", "upstream_tls: {ca_file: a.key}\n",
			`upstream_tls.ca_file: "a.key" holds no PEM certificate`},
		{"an empty key set", "mfa: {issuer: m, audience: b, jwks_file: empty.json}\n", `mfa.jwks_file: "empty.json" is not a JWK Set`},
		{"no JSON in a list of issuers",
			"elevated: {issuers: [{environment: e, issuer: m, audience: b, jwks_file: a.crt}]}\n",
			`elevated.issuers[0].jwks_file: "a.crt" is not`},
		{"a short secret", "decision_log: {key_file: short.key}\n", `decision_log.key_file: "short.key" has fewer than 32 bytes`},
		{"no such policy", "policy: {path: nowhere}\n", `policy.path: "nowhere" cannot be read: no such file`},
		{"a policy that is a file", "policy: {path: keys.json}\n", `policy.path: "keys.json" is not a directory`},
		{"no directory for the log", "decision_log: {to: nowhere/d.jsonl}\n", "decision_log.to: has no directory"},
		{"a path from the environment", "policy: {path: \"${NOWHERE}\"}\n", `policy.path: "${NOWHERE}" cannot be read`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			lookup := func(string) (string, bool) { return "hidden", true }
			c, err := config.Parse(filepath.Join(dir, "stepward.yaml"), []byte(base+row.text), config.LoadOptions{Env: lookup})
			if err != nil {
				t.Fatal(err)
			}
			err = config.CheckFiles(c, config.Disk{})
			if row.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var problems config.Problems
			if !errors.As(err, &problems) || len(problems) != 1 || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "PRIVATE")) {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

func TestCheckFilesReportsAllAtOnceAndReadErrorsToo(t *testing.T) {
	c := parse(t, strings.Replace(minimal, "http://", "https://", 1)+
		"tls: {cert_file: a.crt, key_file: a.key}\nledger: bolt:nowhere/ledger.db\n")
	disk := config.Disk{
		Stat: func(path string) (fs.FileInfo, error) {
			if strings.Contains(path, "nowhere") {
				return nil, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
			}
			return os.Stat("config_test.go")
		},
		ReadFile: func(path string) ([]byte, error) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
		},
	}
	var problems config.Problems
	if err := config.CheckFiles(c, disk); !errors.As(err, &problems) || len(problems) != 3 {
		t.Fatalf("got %v", err)
	}
	for i, want := range []string{"tls.cert_file", "tls.key_file", "ledger"} {
		if problems[i].Field != want {
			t.Errorf("problem %d: got %v, want one of %s", i, problems[i], want)
		}
	}
}
