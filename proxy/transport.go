package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"
)

// transports returns the pooled one and the one that never uses a connection twice. Both speak HTTP/1.1, whatever the
// client spoke, take no proxy from the environment, follow nothing and leave bodies as they are.
func transports(c *Config) (pooled, once *http.Transport) {
	d := &dialer{
		net:     net.Dialer{Timeout: c.DialTimeout, KeepAlive: 15 * time.Second},
		timeout: c.DialTimeout,
		tls:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if c.UpstreamTLS != nil {
		d.tls = c.UpstreamTLS.Clone()
	}
	if d.tls.ServerName == "" {
		d.tls.ServerName = c.Upstream.Hostname()
	}
	d.tls.NextProtos = []string{"http/1.1"}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	pooled = &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        time.Minute,
		ResponseHeaderTimeout:  c.ResponseHeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
	once = pooled.Clone()
	once.DisableKeepAlives = true
	return pooled, once
}

// dialer marks its errors, so that a request that never left is told from one whose fate is not known.
type dialer struct {
	net     net.Dialer
	timeout time.Duration
	tls     *tls.Config
}

// dialError is a failure before there was a connection to send anything on.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

func isDialError(err error) bool {
	var d dialError
	return errors.As(err, &d)
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, dialError{err}
	}
	return conn, nil
}

func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, d.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error is the one to tell
		return nil, dialError{err}
	}
	return secure, nil
}
