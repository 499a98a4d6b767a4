package listen_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/testkit"
)

// short is a limit that a test waits out; slack is what a busy machine may add to it.
const (
	short = 250 * time.Millisecond
	slack = 10 * time.Second
)

// drip sends text byte by byte until the other side has had enough.
func drip(c net.Conn, text string, every time.Duration) error {
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return err
		}
		time.Sleep(every)
	}
	return nil
}

func TestSlowHeadIsCut(t *testing.T) {
	var reached atomic.Int32
	s := start(t, listen.Config{
		ReadHeaderTimeout: short,
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }),
	})
	c := dial(t, s)
	begin := time.Now()
	go drip(c, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X-Slow: loris\r\n", 1000), short/10)
	_, _ = io.ReadAll(c) // ends when the server closes, with or without an answer
	if took := time.Since(begin); took < short/2 || took > slack {
		t.Errorf("cut after %v, want about %v", took, short)
	}
	if reached.Load() != 0 {
		t.Error("the handler was called")
	}
}

func TestSilentConnectionsAreCut(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	for _, row := range []struct {
		name  string
		cfg   listen.Config
		first string
	}{
		{"before the first request", listen.Config{ReadHeaderTimeout: short}, ""},
		{"between requests", listen.Config{IdleTimeout: short}, get},
		{"in the TLS handshake", listen.Config{ReadHeaderTimeout: short, TLS: &f.TLSConfig}, "\x16\x03\x01"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.cfg.Handler = say("x")
			c := dial(t, start(t, row.cfg))
			send(t, c, row.first)
			if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stayed open")
			}
		})
	}
}

// frame is one of HTTP/2 (RFC 9113 section 4.1).
func frame(kind, flags, stream byte, payload string) string {
	return string([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}) + payload
}

func TestSlowHeadOfHTTP2IsCut(t *testing.T) {
	const settings, headers, continuation = 4, 1, 9
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	s := start(t, listen.Config{IdleTimeout: short, TLS: &f.TLSConfig, Handler: say("x")})
	c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{RootCAs: a.Pool(), NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	send(t, c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(settings, 0, 0, "")+frame(headers, 0, 1, "\x82")) // :method GET, no end
	go func() {
		for {
			if _, err := io.WriteString(c, frame(continuation, 0, 1, "\x00\x01a\x01b")); err != nil { // a: b
				return
			}
			time.Sleep(short / 5)
		}
	}()
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a head that never ends holds its connection")
	}
}

// echoLength reads the body and answers with its length, or with what went wrong.
func echoLength(failed chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if failed != nil {
			failed <- err
		}
		if err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
			return
		}
		io.WriteString(w, strings.Repeat("x", len(b)))
	})
}

func TestBodyThatMovesIsNotCut(t *testing.T) {
	c := dial(t, start(t, listen.Config{ReadIdle: 4 * short, Handler: echoLength(nil)}))
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
	go drip(c, "abcdef", short) // longer in all than the limit between two bytes
	if status, body := answer(t, c); status != 200 || body != "xxxxxx" {
		t.Errorf("got %d %q", status, body)
	}
}

func TestBodyThatStopsIsCut(t *testing.T) {
	failed := make(chan error, 4)
	c := dial(t, start(t, listen.Config{ReadIdle: short, Handler: echoLength(failed)}))
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading the body gave %v, want the deadline", err)
	}
	// What comes late is the rest of that body. It must not be taken for a request.
	_, _ = io.WriteString(c, get)
	rest, _ := io.ReadAll(c)
	if n := strings.Count(string(rest), "HTTP/1.1 "); n > 1 {
		t.Errorf("%d answers to one request: %q", n, rest)
	}
	select {
	case err := <-failed:
		t.Errorf("a second request was served (%v)", err)
	default:
	}
}

func TestBodyThatIsNotReadIsNotTheNextRequest(t *testing.T) {
	var served atomic.Int32
	s := start(t, listen.Config{ReadIdle: short, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		w.WriteHeader(http.StatusForbidden) // a refusal leaves the body unread
	})})
	c := dial(t, s)
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
	time.Sleep(2 * short) // net/http gives up draining the body
	_, _ = io.WriteString(c, get)
	_, _ = io.ReadAll(c)
	if n := served.Load(); n != 1 {
		t.Errorf("%d requests were served, want 1", n)
	}
}

func TestKeepAliveAfterABody(t *testing.T) {
	c := dial(t, start(t, listen.Config{ReadIdle: short, IdleTimeout: patience, Handler: echoLength(nil)}))
	for range 3 {
		send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
		if status, body := answer(t, c); status != 200 || body != "xx" {
			t.Fatalf("got %d %q", status, body)
		}
		time.Sleep(short + short/2) // the deadline of the last body must be gone
	}
}

// flood writes until an error, which it reports. With a deadline of its own the handler would not be the one to test.
func flood(failed chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 64<<10)
		for range 10_000 {
			if _, err := w.Write(block); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	})
}

func TestClientThatTakesNothingIsCut(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	for _, row := range []struct {
		name  string
		tls   *listen.TLSConfig
		http2 bool
	}{
		{"HTTP/1.1", nil, false},
		{"HTTP/1.1 over TLS", &f.TLSConfig, false},
		{"HTTP/2", &f.TLSConfig, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			s := start(t, listen.Config{WriteIdle: 2 * short, TLS: row.tls, Handler: flood(failed)})
			scheme := "http://"
			if row.tls != nil {
				scheme = "https://"
			}
			res, err := newClient(t, a, row.http2).Get(scheme + s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close() // nothing of it is read
			select {
			case err := <-failed:
				if err == nil {
					t.Error("all was written to a client that took nothing")
				}
			case <-time.After(patience):
				t.Error("the handler is still blocked")
			}
		})
	}
}

func TestClientThatIsSlowButMovesIsNotCut(t *testing.T) {
	const size = 8 << 20
	s := start(t, listen.Config{WriteIdle: 4 * short, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, size))
	})})
	res, err := http.Get("http://" + s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	total, buf := 0, make([]byte, 1<<20)
	for begin := time.Now(); ; time.Sleep(short) {
		n, err := io.ReadFull(res.Body, buf)
		total += n
		if err != nil {
			break
		}
		if time.Since(begin) > patience {
			t.Fatal("too slow")
		}
	}
	if total != size {
		t.Errorf("got %d bytes of %d", total, size)
	}
}

func TestStreamWithPausesIsNotCut(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	for _, row := range []struct {
		name  string
		http2 bool
	}{{"HTTP/1.1", false}, {"HTTP/2", true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, listen.Config{
				WriteIdle: short, ReadIdle: short, IdleTimeout: short, TLS: &f.TLSConfig,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					for range 3 {
						io.WriteString(w, "event\n")
						if err := http.NewResponseController(w).Flush(); err != nil {
							t.Error(err)
						}
						time.Sleep(2 * short) // the backend has nothing to say for longer than any limit
					}
				}),
			})
			res, err := newClient(t, a, row.http2).Get("https://" + s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "event\nevent\nevent\n" {
				t.Errorf("got %q, %v", body, err)
			}
		})
	}
}
