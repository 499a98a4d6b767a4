package listen_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/listen"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// start serves cfg on a port of the kernel's choice until the test ends.
func start(t *testing.T, cfg listen.Config) *listen.Server {
	t.Helper()
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	s, err := listen.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nothing is worth waiting for
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func dial(t *testing.T, s *listen.Server) net.Conn {
	t.Helper()
	c, err := net.Dial(s.Addr().Network(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads one answer and its body from c.
func answer(t *testing.T, c net.Conn) (status int, body string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func say(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

func TestNewRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	ordinary := filepath.Join(dir, "file")
	if err := os.WriteFile(ordinary, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "live.sock")
	live, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	for _, row := range []struct {
		name string
		cfg  listen.Config
		want []string
	}{
		{"a port that is taken", listen.Config{Field: "admin.listen", Address: taken.Addr().String(), Handler: say("")},
			[]string{"admin.listen: " + taken.Addr().String(), "address already in use", "choose another address"}},
		{"an address of another machine", listen.Config{Address: "192.0.2.1:80", Handler: say("")},
			[]string{"listen: 192.0.2.1:80", "no such address"}},
		{"no handler", listen.Config{Address: "127.0.0.1:0"}, []string{"no handler"}},
		{"a negative limit", listen.Config{Address: "127.0.0.1:0", Handler: say(""), MaxConns: -1}, []string{"negative"}},
		{"a socket in use", listen.Config{Address: "unix://" + socket, Handler: say("")}, []string{"already in use"}},
		{"a file in the socket's place", listen.Config{Address: "unix://" + ordinary, Handler: say("")}, []string{"not a socket"}},
		{"a relative socket", listen.Config{Address: "unix://a.sock", Handler: say("")}, []string{"absolute path"}},
		{"a socket in no directory", listen.Config{Address: "unix://" + dir + "/no/a.sock", Handler: say("")},
			[]string{"create the socket's"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := listen.New(row.cfg)
			if err == nil {
				t.Fatal("it listens")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
		})
	}
	if _, err := os.Stat(ordinary); err != nil {
		t.Errorf("the file was touched: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close() // as a killed process leaves it
	s := start(t, listen.Config{Address: "unix://" + name, Handler: say("hello")})
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o660 {
		t.Errorf("the socket's mode is %v, want 0660", got)
	}
	c := dial(t, s)
	send(t, c, get)
	if _, body := answer(t, c); body != "hello" {
		t.Errorf("got %q", body)
	}
}

func TestOptionsStarReachesTheHandler(t *testing.T) {
	c := dial(t, start(t, listen.Config{Handler: say("the gate")}))
	send(t, c, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, body := answer(t, c); body != "the gate" {
		t.Errorf("net/http answered by itself: %q", body)
	}
}

func TestPlainTextIsNeverUpgradedToHTTP2(t *testing.T) {
	s := start(t, listen.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	})})
	c := dial(t, s)
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"+
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
	if status, body := answer(t, c); status != 200 || body != "HTTP/1.1" {
		t.Errorf("got %d %q, want an answer in HTTP/1.1", status, body)
	}
	prior := dial(t, s)
	send(t, prior, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if got, _ := io.ReadAll(prior); !strings.HasPrefix(string(got), "HTTP/1.1 ") {
		t.Errorf("prior knowledge of HTTP/2 got %q", got)
	}
}

func TestHeadLimit(t *testing.T) {
	c := dial(t, start(t, listen.Config{Handler: say("x"), MaxHeaderBytes: 4 << 10}))
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\nX-Big: "+strings.Repeat("a", 10<<10)+"\r\n\r\n")
	if status, _ := answer(t, c); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d, want 431", status)
	}
}

func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	s := start(t, listen.Config{Handler: say("x"), MaxConns: 2})
	var held []net.Conn
	for range 2 {
		c := dial(t, s)
		send(t, c, get)
		answer(t, c)
		held = append(held, c)
	}
	third := dial(t, s)
	send(t, third, get)
	third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the third connection was served beside two others: %v", err)
	}
	held[0].Close()
	third.SetReadDeadline(time.Now().Add(patience))
	if status, _ := answer(t, third); status != 200 {
		t.Errorf("got %d after a place was free", status)
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, listen.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		io.WriteString(w, "finished")
	})})
	c := dial(t, s)
	send(t, c, get)
	<-entered
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	awaitRefusal(t, s)
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v with a request under way", err)
	default:
	}
	close(leave)
	if _, body := answer(t, c); body != "finished" {
		t.Errorf("got %q", body)
	}
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// awaitRefusal waits until s accepts no more.
func awaitRefusal(t *testing.T, s *listen.Server) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c, err := net.Dial(s.Addr().Network(), s.Addr().String())
		if err != nil {
			return
		}
		c.Close()
	}
	t.Fatal("it still accepts connections")
}

func TestShutdownCutsWhatOutlastsIt(t *testing.T) {
	entered := make(chan struct{})
	s := start(t, listen.Config{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})})
	c := dial(t, s)
	send(t, c, get)
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "drain") {
		t.Errorf("got %v, want the drain's deadline", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
		t.Errorf("the connection is still open: %v", err)
	}
}

func isReset(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && !op.Timeout()
}

func TestShutdownClosesHijackedConnections(t *testing.T) {
	hijacked := make(chan struct{})
	s := start(t, listen.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
			t.Error(err)
		}
		close(hijacked)
	})})
	c := dial(t, s)
	send(t, c, get)
	<-hijacked
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
		t.Errorf("the hijacked connection outlived Shutdown: %v", err)
	}
}

func TestShutdownWithoutServeFreesTheAddress(t *testing.T) {
	s, err := listen.New(listen.Config{Address: "127.0.0.1:0", Handler: say("")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", s.Addr().String())
	if err != nil {
		t.Fatalf("the address is still taken: %v", err)
	}
	again.Close()
	if err := s.Serve(); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func ExampleServer() {
	s, err := listen.New(listen.Config{Address: "127.0.0.1:0", Handler: say("hello")})
	if err != nil {
		panic(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	res, err := http.Get("http://" + s.Addr().String())
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	fmt.Println(s.Shutdown(ctx), <-served)
	// Output:
	// 200 OK
	// <nil> <nil>
}
