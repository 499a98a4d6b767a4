package listen_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/internal/watch"
)

// files are the files of a TLS listener in a directory of the test's own.
type files struct{ listen.TLSConfig }

func newFiles(t *testing.T, a *testkit.Authority, name string) files {
	t.Helper()
	dir := t.TempDir()
	f := files{listen.TLSConfig{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}}
	f.put(t, a, name)
	return f
}

func (f files) put(t *testing.T, a *testkit.Authority, name string) {
	t.Helper()
	cert, key := a.Issue(t, name)
	write(t, f.CertFile, cert)
	write(t, f.KeyFile, key)
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// handshake returns the server's name, or why there was no answer. With TLS 1.3 a client learns that it was refused only
// when it reads.
func handshake(s *listen.Server, cfg *tls.Config) (name string, err error) {
	c, err := tls.Dial("tcp", s.Addr().String(), cfg)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	if _, err := io.ReadAll(c); err != nil {
		return "", err
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestTLSSpeaksBothProtocols(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	s := start(t, listen.Config{TLS: &f.TLSConfig, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	})})
	for _, http2 := range []bool{false, true} {
		client := newClient(t, a, http2)
		res, err := client.Get("https://" + s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if got, want := string(body), map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func newClient(t *testing.T, a *testkit.Authority, http2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: a.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func TestTLSVersions(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	modern := f.TLSConfig
	modern.MinVersion = tls.VersionTLS13
	for _, row := range []struct {
		name   string
		server listen.TLSConfig
		client uint16
		served bool
	}{
		{"1.1 is refused", f.TLSConfig, tls.VersionTLS11, false},
		{"1.2", f.TLSConfig, tls.VersionTLS12, true},
		{"1.3", f.TLSConfig, tls.VersionTLS13, true},
		{"1.2 is refused where 1.3 is the least", modern, tls.VersionTLS12, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := start(t, listen.Config{TLS: &row.server, Handler: say("x")})
			_, err := handshake(s, &tls.Config{RootCAs: a.Pool(), MinVersion: tls.VersionTLS10, MaxVersion: row.client})
			if (err == nil) != row.served {
				t.Errorf("got %v, want served %v", err, row.served)
			}
		})
	}
}

func TestTLSRefusesBadFiles(t *testing.T) {
	a := testkit.NewAuthority(t)
	good := newFiles(t, a, "one")
	other := newFiles(t, a, "two")
	junk := filepath.Join(t.TempDir(), "junk.pem")
	write(t, junk, []byte("junk"))
	for _, row := range []struct {
		name string
		tls  listen.TLSConfig
		want string
	}{
		{"no key", listen.TLSConfig{CertFile: good.CertFile}, "both a certificate and a key"},
		{"a missing file", listen.TLSConfig{CertFile: good.CertFile, KeyFile: "/no/such.key"}, "/no/such.key"},
		{"another's key", listen.TLSConfig{CertFile: good.CertFile, KeyFile: other.KeyFile}, "does not match"},
		{"junk for a CA", listen.TLSConfig{CertFile: good.CertFile, KeyFile: good.KeyFile, ClientCAFile: junk}, "no certificate in it"},
		{"no CA file", listen.TLSConfig{CertFile: good.CertFile, KeyFile: good.KeyFile, ClientCAFile: "/no/ca.pem"}, "/no/ca.pem"},
		{"an old minimum",
			listen.TLSConfig{CertFile: good.CertFile, KeyFile: good.KeyFile, MinVersion: tls.VersionTLS11}, "1.2 or 1.3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := listen.New(listen.Config{Address: "127.0.0.1:0", TLS: &row.tls, Handler: say("x")})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want it to say %q", err, row.want)
			}
		})
	}
}

func TestCertificatesAreReloadedWhenTheirFilesChange(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	s := start(t, listen.Config{TLS: &f.TLSConfig, Handler: say("x")})
	var problem error
	w, err := watch.New(watch.Config{
		Paths:    []string{f.CertFile, f.KeyFile},
		OnChange: func(context.Context) { problem = s.Reload() },
	})
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: a.Pool()}
	expect := func(want string) {
		t.Helper()
		if got, err := handshake(s, client); err != nil || got != want {
			t.Fatalf("got the certificate %q, %v, want %q", got, err, want)
		}
	}
	expect("one")

	before, err := tls.Dial("tcp", s.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()

	cert, key := a.Issue(t, "two")
	write(t, f.CertFile, cert) // the key of "one" is still there
	if !w.Check(t.Context()) || problem == nil || !strings.Contains(problem.Error(), "keeping the last good certificate") {
		t.Errorf("a half-written pair gave %v", problem)
	}
	expect("one")

	write(t, f.KeyFile, key)
	if !w.Check(t.Context()) || problem != nil {
		t.Fatalf("reload: %v", problem)
	}
	expect("two")

	if err := os.Remove(f.KeyFile); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil {
		t.Error("a missing key is no error")
	}
	expect("two")

	if _, err := io.WriteString(before, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(before); err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
		t.Errorf("a connection from before the reload got %q, %v", got, err)
	}
}

func TestReloadWithoutTLSDoesNothing(t *testing.T) {
	if err := start(t, listen.Config{Handler: say("x")}).Reload(); err != nil {
		t.Error(err)
	}
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t), testkit.NewAuthority(t)
	f := newFiles(t, ours, "server")
	f.ClientCAFile = filepath.Join(t.TempDir(), "clients.pem")
	write(t, f.ClientCAFile, ours.PEM())
	reached := 0
	count := func(http.ResponseWriter, *http.Request) { reached++ }
	s := start(t, listen.Config{TLS: &f.TLSConfig, Handler: http.HandlerFunc(count)})
	client := func(a *testkit.Authority) *tls.Config {
		cfg := &tls.Config{RootCAs: ours.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		if a != nil {
			pair, err := tls.X509KeyPair(a.Issue(t, "client"))
			if err != nil {
				t.Fatal(err)
			}
			// Certificates would hold the stranger's back, since the server does not name its authority.
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return cfg
	}
	known := client(ours)
	for _, row := range []struct {
		name   string
		client *tls.Config
		served bool
	}{
		{"no certificate", client(nil), false},
		{"a stranger's certificate", client(theirs), false},
		{"a known certificate", known, true},
	} {
		reached = 0
		_, err := handshake(s, row.client)
		if (err == nil) != row.served || (reached == 1) != row.served {
			t.Errorf("%s: got %v and %d requests, want served %v", row.name, err, reached, row.served)
		}
	}

	// Once its authority is gone from the file, a client must not come back with the session it had.
	write(t, f.ClientCAFile, theirs.PEM())
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(s, known); err == nil {
		t.Error("a client whose authority was removed is let in again")
	}
}
