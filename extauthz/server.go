package extauthz

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// ServerConfig says how the gRPC door is served.
type ServerConfig struct {
	Listener   net.Listener
	TLS        *tls.Config // nil speaks plain HTTP/2
	MaxStreams uint32      // questions under way on one connection
	MaxMessage int         // bytes of one question
	Reflection bool
}

// Server serves the gRPC door, with gRPC health (grpc.health.v1) under "" and the service's name.
type Server struct {
	listener net.Listener
	grpc     *grpc.Server
	health   *health.Server
}

// streamWorkers answer questions; those beyond have a goroutine of their own.
const streamWorkers = 64

// NewServer takes the listener over: it is closed by Shutdown.
func NewServer(c ServerConfig, d *GRPC) *Server {
	options := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(c.MaxStreams), grpc.MaxRecvMsgSize(c.MaxMessage), grpc.MaxHeaderListSize(32 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		// A goroutine of its own for each question would grow its stack anew each time, a fifth of all work.
		grpc.NumStreamWorkers(streamWorkers), grpc.ForceServerCodecV2(newCodec()),
		// Envoy keeps few connections for long and may ping them every few seconds, also when nothing is asked.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS)))
	}
	s := &Server{listener: c.Listener, grpc: grpc.NewServer(options...), health: health.NewServer()}
	s.grpc.RegisterService(&service, d)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	if c.Reflection {
		reflection.Register(s.grpc)
	}
	return s
}

// service is envoy.service.auth.v3.Authorization without the generated types: see wire.go.
var service = grpc.ServiceDesc{
	ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Check",
		Handler: func(srv any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			d, _ := srv.(*GRPC)
			return d.answer(ctx, func(q *question) error { return receive(q) })
		},
	}},
	Metadata: authv3.Authorization_ServiceDesc.Metadata,
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers questions until Shutdown.
func (s *Server) Serve() error {
	if err := s.grpc.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("ext_authz: serve: %w", err)
	}
	return nil
}

// Shutdown tells health checks that it is going, lets the questions under way be answered until ctx ends, and closes every
// connection.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("ext_authz: drain: %w", ctx.Err())
		s.grpc.Stop()
		<-done
	}
	_ = s.listener.Close() // closed already, unless Serve was never called
	return err
}
