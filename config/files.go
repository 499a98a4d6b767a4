package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// Disk is what CheckFiles may ask of the file system. The zero value is the real one.
type Disk struct {
	ReadFile func(path string) ([]byte, error)      // nil is os.ReadFile
	Stat     func(path string) (fs.FileInfo, error) // nil is os.Stat
}

// leastKey is the fewest bytes that a secret key file may have.
const leastKey = 32

// mostFile bounds what CheckFiles reads of one file.
const mostFile = 1 << 20

// CheckFiles checks every file that the configuration names: present, readable, and of the kind it should be. It reads and
// never writes, so it cannot promise that a ledger or a log can be written. The error is a Problems; no content of a file
// is in it.
func CheckFiles(c *Config, disk Disk) error {
	if disk.ReadFile == nil {
		disk.ReadFile = os.ReadFile
	}
	if disk.Stat == nil {
		disk.Stat = os.Stat
	}
	f := &fileChecker{checker: checker{Config: c}, disk: disk}
	f.keyPair("tls", c.TLS.CertFile, c.TLS.KeyFile)
	f.certificates("tls.client_ca_file", c.TLS.ClientCAFile)
	f.certificates("upstream_tls.ca_file", c.UpstreamTLS.CAFile)
	f.keyPair("upstream_tls", c.UpstreamTLS.CertFile, c.UpstreamTLS.KeyFile)
	f.verifier("session", &c.Session.Verifier)
	f.verifier("elevated", &c.Elevated.Verifier)
	f.verifier("mfa", &c.MFA.Verifier)
	f.oneLine("mfa.introspection.bearer_file", c.MFA.Introspection.BearerFile, "the bearer token")
	f.oneLine("mfa.introspection.basic_file", c.MFA.Introspection.BasicFile, "client_id:client_secret")
	f.certificates("mfa.introspection.ca_file", c.MFA.Introspection.CAFile)
	f.policy(c.Policy.Path)
	f.secret("decision_log.key_file", c.DecisionLog.KeyFile)
	f.certificates("ledger_options.ca_file", c.LedgerOptions.CAFile)
	f.keyPair("ledger_options", c.LedgerOptions.CertFile, c.LedgerOptions.KeyFile)
	f.read("ledger_options.password_file", c.LedgerOptions.PasswordFile)
	if c.Ledger.Kind == LedgerBolt {
		f.parent("ledger", c.Ledger.Path)
	}
	if c.Environment.Settings.URL != nil && c.Environment.Settings.CacheFile != "" {
		f.parent("environment.settings.cache_file", c.Environment.Settings.CacheFile)
	}
	if strings.ContainsRune(c.DecisionLog.To, filepath.Separator) {
		f.parent("decision_log.to", c.DecisionLog.To)
	}
	return f.problems.err()
}

type fileChecker struct {
	checker
	disk Disk
}

// shown names a file for a problem: as the configuration spells it, since the rest may come from the environment.
func (f *fileChecker) shown(path string) string {
	if text := f.source.nearest(path).text; text != "" {
		return quote(text)
	}
	return "the default"
}

// read returns the content of a regular file, and false when a problem was reported or there is no file to check.
func (f *fileChecker) read(path, name string) ([]byte, bool) {
	if name == "" {
		return nil, false
	}
	info, err := f.disk.Stat(name)
	if err != nil {
		f.fail(path, f.shown(path)+" cannot be read: "+readFault(err), "write the path of a readable file")
		return nil, false
	}
	if !info.Mode().IsRegular() || info.Size() > mostFile {
		f.fail(path, f.shown(path)+" is not a file of at most 1MiB", "write the path of the file itself")
		return nil, false
	}
	data, err := f.disk.ReadFile(name)
	if err != nil {
		f.fail(path, f.shown(path)+" cannot be read: "+readFault(err), "let the user that runs Stepward read it")
		return nil, false
	}
	return data, true
}

func (f *fileChecker) keyPair(section, certName, keyName string) {
	cert, haveCert := f.read(section+".cert_file", certName)
	key, haveKey := f.read(section+".key_file", keyName)
	if !haveCert || !haveKey {
		return
	}
	// The error is not shown: crypto/tls is careful, but nothing that has seen a private key belongs in a message.
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		f.fail(section+".cert_file", "and "+section+".key_file are not a PEM certificate and its key",
			"write the chain with the leaf first, and the leaf's unencrypted key")
	}
}

func (f *fileChecker) certificates(path, name string) {
	data, ok := f.read(path, name)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		f.fail(path, f.shown(path)+" holds no PEM certificate", "write the file of the authority's certificate")
	}
}

func (f *fileChecker) verifier(section string, v *Verifier) {
	f.keySet(section+".jwks_file", v.JWKSFile)
	for i, is := range v.Issuers {
		f.keySet(fmt.Sprintf("%s.issuers[%d].jwks_file", section, i), is.JWKSFile)
	}
}

// keySet looks only at the outermost form; whether the keys are any good is package token's to say.
func (f *fileChecker) keySet(path, name string) {
	data, ok := f.read(path, name)
	if !ok {
		return
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) == 0 {
		f.fail(path, f.shown(path)+" is not a JWK Set with at least one key", `write a file of the form {"keys": [...]}`)
	}
}

func (f *fileChecker) secret(path, name string) {
	if data, ok := f.read(path, name); ok && len(data) < leastKey {
		f.fail(path, fmt.Sprintf("%s has fewer than %d bytes", f.shown(path), leastKey), "make one with: head -c 32 /dev/urandom")
	}
}

// oneLine checks the outermost form of a credential: whether it is a good one is for whoever asks for it to say.
func (f *fileChecker) oneLine(path, name, what string) {
	data, ok := f.read(path, name)
	if !ok {
		return
	}
	line := strings.TrimRight(string(data), "\r\n")
	pair := strings.Contains(what, ":")
	if line == "" || strings.ContainsFunc(line, unicode.IsControl) || pair && !strings.Contains(strings.Trim(line, ":"), ":") {
		f.fail(path, f.shown(path)+" does not hold one line with "+what, "write "+what+" there, and nothing else")
	}
}

func (f *fileChecker) policy(name string) {
	if name == "" {
		return
	}
	info, err := f.disk.Stat(name)
	switch {
	case err != nil:
		f.fail("policy.path", f.shown("policy.path")+" cannot be read: "+readFault(err),
			"write a directory of .rego files, or remove the key for the embedded policy")
	case !info.IsDir():
		f.fail("policy.path", f.shown("policy.path")+" is not a directory", "write the directory in which the .rego files are")
	}
}

// parent checks the directory of a file that Stepward makes itself.
func (f *fileChecker) parent(path, name string) {
	info, err := f.disk.Stat(filepath.Dir(name))
	switch {
	case err != nil:
		which := ""
		if f.source.nearest(path).text == "" {
			which = "the default, " + name + ", "
		}
		f.fail(path, which+"has no directory to be made in: "+readFault(err), "make the directory, or name another")
	case !info.IsDir():
		f.fail(path, "lies below something that is no directory", "name another place")
	}
}
