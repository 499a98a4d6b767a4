package extauthz_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/stepward/stepward/extauthz"
	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/testkit"
)

// serve opens a gRPC door at address and returns the server.
func serve(t *testing.T, address string, edit func(*extauthz.ServerConfig)) *extauthz.Server {
	t.Helper()
	s := newSetup(t)
	d, err := extauthz.NewGRPC(s.config, extauthz.DedupConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen.Open("ext_authz.listen", address, 100)
	if err != nil {
		t.Fatal(err)
	}
	c := extauthz.ServerConfig{Listener: l, MaxStreams: 100, MaxMessage: 64 << 10}
	if edit != nil {
		edit(&c)
	}
	server := extauthz.NewServer(c, d)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // a test may have done it
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return server
}

func dial(t *testing.T, target string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	if c == nil {
		c = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	out, err := authv3.NewAuthorizationClient(conn).Check(ctx, question{method: "GET", path: "/read", header: with()}.message())
	if err == nil && read(t, out).status != 200 {
		t.Errorf("got %v", out)
	}
	return err
}

func TestServedOverTCPAndASocket(t *testing.T) {
	tcp := serve(t, "127.0.0.1:0", nil)
	if err := check(t, dial(t, tcp.Addr().String(), nil)); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	serve(t, "unix://"+path, nil)
	if err := check(t, dial(t, "unix://"+path, nil)); err != nil {
		t.Error(err)
	}
}

func TestServedToClientsWithACertificateAlone(t *testing.T) {
	ca := testkit.NewAuthority(t)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := ca.Issue(t, "localhost")
	files := listen.TLSConfig{CertFile: write("cert", cert), KeyFile: write("key", key), ClientCAFile: write("ca", ca.PEM())}
	certificates, err := listen.NewCertificates(files)
	if err != nil {
		t.Fatal(err)
	}
	server := serve(t, "127.0.0.1:0", func(c *extauthz.ServerConfig) { c.TLS = certificates.Config() })
	clientCert, clientKey := ca.Issue(t, "envoy")
	pair, err := tls.X509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	trust := &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	if err := check(t, dial(t, server.Addr().String(), credentials.NewTLS(trust))); err == nil {
		t.Error("a client without a certificate is answered")
	}
	if err := check(t, dial(t, server.Addr().String(), nil)); err == nil {
		t.Error("a client without TLS is answered")
	}
	trust = trust.Clone()
	trust.Certificates = []tls.Certificate{pair}
	if err := check(t, dial(t, server.Addr().String(), credentials.NewTLS(trust))); err != nil {
		t.Error(err)
	}
}

func TestHealthAndReflection(t *testing.T) {
	for _, reflects := range []bool{false, true} {
		server := serve(t, "127.0.0.1:0", func(c *extauthz.ServerConfig) { c.Reflection = reflects })
		conn := dial(t, server.Addr().String(), nil)
		for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
			got, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
				t.Errorf("health of %q: %v, %v", service, got, err)
			}
		}
		stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err == nil {
			// A server that has no such service may be done with the stream already; Recv says why.
			_ = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
			_, err = stream.Recv()
		}
		if (err == nil) != reflects || err != nil && status.Code(err) != codes.Unimplemented {
			t.Errorf("reflection %v: %v", reflects, err)
		}
	}
}

// A question that is too large is an error, which Envoy's failure_mode_allow reads as yes: hence the warning beside max_message.
func TestAQuestionThatIsTooLarge(t *testing.T) {
	server := serve(t, "127.0.0.1:0", nil)
	conn := dial(t, server.Addr().String(), nil)
	_, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), question{method: "POST", path: "/judged", body: strings.Repeat("x", 100<<10)}.message())
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

func TestShutdownEndsAServerThatNobodyAsked(t *testing.T) {
	s := newSetup(t)
	d, err := extauthz.NewGRPC(s.config, extauthz.DedupConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := extauthz.NewServer(extauthz.ServerConfig{Listener: l, MaxStreams: 1, MaxMessage: 1 << 10}, d)
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
}
