package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

func (c *Config) check(a address) error {
	switch {
	case strings.ContainsFunc(c.Prefix, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("{}*?[]\\", r) }):
		return errors.New("the prefix has braces, patterns or spaces: write a word such as stepward")
	case c.Timeout < 0 || c.WaitTimeout < 0 || c.Leeway < 0 || c.Remember < 0:
		return errors.New("a time is negative")
	case c.WaitReplicas < 0:
		return errors.New("a negative number of replicas is asked for: write 0 to wait for none")
	case !a.tls && c.CAFile+c.CertFile+c.KeyFile != "":
		return errors.New("there are certificates, and the address is without TLS: write rediss:// in place of redis://")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("a certificate needs its key, and a key its certificate: name both files or none")
	}
	return nil
}

func (c *Config) tlsConfig(a address) (*tls.Config, error) {
	if !a.tls {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func readPassword(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%s holds no password", name)
	}
	return password, nil
}
