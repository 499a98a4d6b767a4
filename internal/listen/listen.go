// Package listen serves HTTP to clients that may be slow, silent, numerous or hostile.
//
// A connection lives as long as it makes progress: there is a bound on the time between two bytes in either direction while a
// request is under way, and none on how long a moving stream may take (design.md section 10, 17).
package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// Config describes one listener. Zero durations and sizes mean the defaults that are named beside them.
type Config struct {
	// Field is the configuration key the address came from; errors name it. "" means "listen".
	Field string
	// Address is host:port or unix:///path. Required.
	Address string
	// TLS switches TLS and HTTP/2 on; nil serves plain HTTP/1.1.
	TLS *TLSConfig
	// Handler answers requests. Required: nil is an error and never http.DefaultServeMux.
	Handler http.Handler
	// ReadHeaderTimeout bounds a TLS handshake and the time a request head may take: 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a kept-alive connection may wait for its next request: 60 s.
	IdleTimeout time.Duration
	// ReadIdle is the longest pause within a request body: 30 s. Reading it then fails with os.ErrDeadlineExceeded.
	ReadIdle time.Duration
	// WriteIdle is how long a client may accept no byte of an answer that is ready to be sent: 60 s. It should be generous:
	// a kernel opens its window again in steps of half its buffer.
	WriteIdle time.Duration
	// MaxHeaderBytes bounds a request head: 32 KiB (net/http adds 4 KiB of slack).
	MaxHeaderBytes int
	// MaxConns bounds open connections; those beyond it wait in the kernel's queue: 10,000.
	MaxConns int
	// Logger receives what the server itself has to say; nil discards it.
	Logger *slog.Logger
}

// TLSConfig names the files of a TLS listener. They are read by New and Reload.
type TLSConfig struct {
	CertFile string // PEM chain, leaf first
	KeyFile  string // PEM private key
	// ClientCAFile, when set, makes every client prove a certificate that chains to it (mTLS).
	ClientCAFile string
	// MinVersion is tls.VersionTLS12 (also for 0) or tls.VersionTLS13.
	MinVersion uint16
}

// Server is one open listener. Its methods may be called concurrently.
type Server struct {
	name     string // for errors: field and address
	http     *http.Server
	listener *listener
	tls      *Certificates // nil without TLS
}

// New opens the address, so that one that is taken is an error here and not in the background. The caller must call Serve
// or Shutdown.
func New(cfg Config) (*Server, error) {
	cfg = withDefaults(cfg)
	name := fmt.Sprintf("%s: %s", cfg.Field, cfg.Address)
	if cfg.Handler == nil {
		return nil, fmt.Errorf("%s: no handler", name)
	}
	if min(cfg.ReadHeaderTimeout, cfg.IdleTimeout, cfg.ReadIdle, cfg.WriteIdle) < 0 || min(cfg.MaxHeaderBytes, cfg.MaxConns) < 0 {
		return nil, fmt.Errorf("%s: a timeout or limit is negative", name)
	}
	s := &Server{name: name}
	if cfg.TLS != nil {
		var err error
		if s.tls, err = NewCertificates(*cfg.TLS); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	inner, err := open(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.listener = newListener(inner, cfg.MaxConns, cfg.WriteIdle)
	s.http = newHTTPServer(cfg, s.tls)
	return s, nil
}

func withDefaults(cfg Config) Config {
	cfg.Field = cmp.Or(cfg.Field, "listen")
	cfg.ReadHeaderTimeout = cmp.Or(cfg.ReadHeaderTimeout, 10*time.Second)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 60*time.Second)
	cfg.ReadIdle = cmp.Or(cfg.ReadIdle, 30*time.Second)
	cfg.WriteIdle = cmp.Or(cfg.WriteIdle, 60*time.Second)
	cfg.MaxHeaderBytes = cmp.Or(cfg.MaxHeaderBytes, 32<<10)
	cfg.MaxConns = cmp.Or(cfg.MaxConns, 10_000)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func newHTTPServer(cfg Config, certs *Certificates) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(certs != nil) // never h2c: an upgrade in clear text is a tunnel past the gate
	h := &http.Server{
		Handler:                      &idleHandler{next: cfg.Handler, readIdle: cfg.ReadIdle, writeIdle: cfg.WriteIdle},
		ReadHeaderTimeout:            cfg.ReadHeaderTimeout,
		IdleTimeout:                  cfg.IdleTimeout,
		MaxHeaderBytes:               cfg.MaxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is for the gate to refuse
		Protocols:                    protocols,
		ErrorLog:                     newErrorLog(cfg.Logger, time.Now),
		ConnContext:                  withConn,
		// ReadTimeout and WriteTimeout stay 0: they would cut long streams that move.
	}
	if certs != nil {
		h.TLSConfig = certs.Config()
	}
	return h
}

// Open listens on host:port or unix:///path for a server of another protocol than HTTP. Field is the key that the address came
// from. Clients beyond maxConns wait in the kernel; one that takes no byte for a minute is cut.
func Open(field, address string, maxConns int) (net.Listener, error) {
	inner, err := open(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", field, address, err)
	}
	return newListener(inner, maxConns, time.Minute), nil
}

// open listens on host:port or unix:///path.
func open(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return openUnix(path)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", advised(err))
	}
	return l, nil
}

// openUnix removes a socket that a killed process left behind, and nothing else. The socket is for its owner and group.
func openUnix(path string) (net.Listener, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("want an absolute path, as in unix:///run/stepward.sock")
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, errors.New("cannot listen: there is a file that is not a socket")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close() // it only proved that someone answers
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // no answer in time may be a busy owner
			return nil, fmt.Errorf("cannot listen: %w", advised(syscall.EADDRINUSE))
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the stale socket: %w", err)
		}
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", advised(err))
	}
	if err := os.Chmod(path, 0o660); err != nil { //nolint:gosec // the proxy in front shares our group, not our user
		return nil, errors.Join(fmt.Errorf("restrict the socket: %w", err), l.Close())
	}
	return l, nil
}

// remedies for what operators meet.
var remedies = []struct {
	is     error
	remedy string
}{
	{syscall.EADDRINUSE, "stop the process that has it, or choose another address"},
	{syscall.EADDRNOTAVAIL, "this machine has no such address: choose one of its own, or 127.0.0.1"},
	{syscall.EACCES, "choose a port above 1023 (or grant CAP_NET_BIND_SERVICE), for a socket a directory that may be written to"},
	{syscall.ENOENT, "create the socket's directory"},
}

// advised strips "listen tcp ADDRESS:" off, which the caller says better, and adds what to do.
func advised(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	for _, r := range remedies {
		if errors.Is(err, r.is) {
			return fmt.Errorf("%w; %s", err, r.remedy)
		}
	}
	return err
}

// Addr returns the address that is listened on, with the port that the kernel chose for ":0".
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers requests until Shutdown is called, which makes it return nil at once, while requests are still being
// finished: wait for Shutdown to return, not for Serve. Any other end is an error.
func (s *Server) Serve() error {
	serve := s.http.Serve
	if s.tls != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: serve: %w", s.name, err)
	}
	return nil
}

// Reload reads the certificate, key and client CA again. New connections see them; open ones stay as they are. On an error
// nothing changes and the last good ones stay in use. Without TLS it does nothing.
func (s *Server) Reload() error {
	if s.tls == nil {
		return nil
	}
	if err := s.tls.Reload(); err != nil {
		return fmt.Errorf("%s: keeping the last good certificate: %w", s.name, err)
	}
	return nil
}

// Shutdown stops accepting, lets requests under way finish until ctx ends, and then closes every connection, also those that
// were hijacked (WebSockets, which have no end of their own to wait for). The error is ctx's when requests were cut.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	_ = s.listener.Close() // closed already, unless Serve was never called
	_ = s.http.Close()     // what Shutdown left; its errors are those of connections being thrown away
	s.listener.closeConns()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: drain: %w", s.name, ctx.Err())
	}
	return nil
}
