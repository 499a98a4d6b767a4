package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Certificates is what the files held when they were last good.
type Certificates struct {
	files   TLSConfig
	mu      sync.Mutex // one reload at a time, so that the newest read wins
	current atomic.Pointer[tls.Config]
}

// NewCertificates reads the files.
func NewCertificates(files TLSConfig) (*Certificates, error) {
	if files.MinVersion == 0 {
		files.MinVersion = tls.VersionTLS12
	}
	if files.MinVersion != tls.VersionTLS12 && files.MinVersion != tls.VersionTLS13 {
		return nil, errors.New("tls: the minimum version must be 1.2 or 1.3")
	}
	if files.CertFile == "" || files.KeyFile == "" {
		return nil, errors.New("tls: both a certificate and a key file are needed")
	}
	c := &Certificates{files: files}
	return c, c.Reload()
}

// Reload reads the files again. It builds a whole configuration before it swaps; on an error the last good one stays.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return fmt.Errorf("tls: certificate %s with key %s: %w", c.files.CertFile, c.files.KeyFile, err)
	}
	next := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   c.files.MinVersion,
		NextProtos:   []string{"h2", "http/1.1"}, // http.Server adds these to its own configuration only
	}
	if c.files.ClientCAFile != "" {
		if next.ClientCAs, err = readPool(c.files.ClientCAFile); err != nil {
			return err
		}
		next.ClientAuth = tls.RequireAndVerifyClientCert
		next.SessionTicketsDisabled = true // a resumed session was verified against the CAs of before a reload
	}
	c.current.Store(next)
	return nil
}

func readPool(name string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("tls: client CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: client CA %s: no certificate in it", name)
	}
	return pool, nil
}

// Config is for a server's handshakes, each of which takes what is in force then.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{MinVersion: c.files.MinVersion, GetConfigForClient: c.configFor}
}

func (c *Certificates) configFor(*tls.ClientHelloInfo) (*tls.Config, error) {
	return c.current.Load(), nil
}
