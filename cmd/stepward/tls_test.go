package main

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/testkit"
)

// A door with TLS: HTTP/2, client certificates, gRPC callers answered in gRPC, and a certificate that is renewed in place.
func TestTLSDoor(t *testing.T) {
	w := newWorld(t)
	ca := testkit.NewAuthority(t)
	serve := func(name string) {
		cert, key := ca.Issue(t, name)
		w.write("door.key", string(key))
		w.write("door.crt", string(cert))
	}
	serve("first")
	w.write("clients.crt", string(ca.PEM()))
	w.start("tls: {cert_file: door.crt, key_file: door.key, client_ca_file: clients.crt, min_version: TLS1.3}")
	pair := must(tls.X509KeyPair(ca.Issue(t, "client")))
	ask := func(certificates ...tls.Certificate) (*http.Response, error) {
		client := &http.Transport{
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{RootCAs: ca.Pool(), Certificates: certificates, MinVersion: tls.VersionTLS13},
		}
		defer client.CloseIdleConnections()
		r := w.request(callOf{method: "POST", path: w.wallet("ann"), session: w.session("ann"), header: map[string]string{"Content-Type": "application/grpc"}})
		r.URL.Scheme = "https"
		res, err := client.RoundTrip(r)
		if err == nil {
			res.Body.Close()
		}
		return res, err
	}
	res, err := ask(pair)
	if err != nil {
		t.Fatal(err)
	}
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusOK || res.Header.Get("Grpc-Status") != "7" || res.Header.Get("Grpc-Message") != "Elevated access token required" {
		t.Errorf("got %s %s, grpc-status %q %q", res.Proto, res.Status, res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message"))
	}
	if _, err := ask(); err == nil {
		t.Error("a client without a certificate got an answer")
	}
	if _, err := ask(must(tls.X509KeyPair(testkit.NewAuthority(t).Issue(t, "stranger")))); err == nil {
		t.Error("a client with a stranger's certificate got an answer")
	}

	serve("second")
	w.eventually("the renewed certificate is served", func() bool {
		res, err := ask(pair)
		return err == nil && res.TLS.PeerCertificates[0].Subject.CommonName == "second"
	})
	w.write("door.crt", "rubbish")
	w.eventually("the broken certificate is noticed", func() bool {
		status, page := w.admin("/readyz")
		return status == 200 && strings.Contains(page, "the last good one stays in use")
	})
	if res, err := ask(pair); err != nil || res.TLS.PeerCertificates[0].Subject.CommonName != "second" {
		t.Errorf("the last good certificate is not in use: %v", err)
	}
}

// An https backend is verified, and nothing is spent on one that is not who it should be.
func TestUpstreamTLS(t *testing.T) {
	w := newWorld(t)
	ca := testkit.NewAuthority(t)
	backend := httptest.NewUnstartedServer(w.backend.Handler())
	pair := must(tls.X509KeyPair(ca.Issue(t, "backend")))
	backend.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	backend.StartTLS()
	defer backend.Close()
	cert, key := ca.Issue(t, "stepward")
	w.write("us.crt", string(cert))
	w.write("us.key", string(key))
	w.write("ca.crt", string(ca.PEM()))
	w.write("other.crt", string(testkit.NewAuthority(t).PEM()))

	export := w.export("ann")
	w.start("upstream: "+backend.URL, "upstream_tls: {ca_file: other.crt, cert_file: us.crt, key_file: us.key}")
	w.expect(w.do(export), 502, "upstream_unreachable")
	w.stop()
	w.start("upstream: "+backend.URL, "upstream_tls: {ca_file: ca.crt, cert_file: us.crt, key_file: us.key}")
	w.expect(w.do(export), 200, "")
	w.expect(w.do(export), 403, "elevated_access_token_consumed")
}
