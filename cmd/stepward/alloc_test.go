package main

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) Flush()                      {}

type buffers struct{ sync.Pool }

func (b *buffers) Get() []byte  { p, _ := b.Pool.Get().(*[]byte); return *p }
func (b *buffers) Put(p []byte) { b.Pool.Put(&p) }

// cannedBackend answers every head with 1 KiB, at no cost that could be mistaken for a proxy's.
func cannedBackend(t *testing.T) (address string) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) > 2 {
						continue
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestAllocationBudget: an allowed request with a known session and a cached requirement costs at most 12 allocations more
// than through a tuned httputil.ReverseProxy (performance.md). What the transport allocates for
// headers that only Stepward sends counts.
func TestAllocationBudget(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const budget = 12
	w := newWorld(t)
	plain := cannedBackend(t)
	w.start("upstream: http://"+plain, "decision_log: {to: ./decisions.jsonl}",
		"session: {issuer: app.dynamicauth.com/"+testEnvironment+", audience: "+testAudience+", jwks_file: jwks.json, algorithms: [ES256]}",
		"jwks: {start_wait: 1s} # "+w.write("jwks.json", string(w.issuer.JWKS())))
	r := w.request(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann")})
	r.RequestURI, r.RemoteAddr, r.Body = r.URL.RequestURI(), "127.0.0.1:1", http.NoBody
	r.Header.Set("X-Dyn-Version", "ClientSDK/1.27.1")
	r.Header.Set("X-Dyn-Api-Version", "API/0.0.1125")

	upstream := must(url.Parse("http://" + plain))
	tuned := &httputil.ReverseProxy{
		Rewrite:    func(p *httputil.ProxyRequest) { p.SetURL(upstream); p.Out.Host = p.In.Host; p.SetXForwarded() },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
		BufferPool: &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
	}
	count := func(h http.Handler) float64 {
		return testing.AllocsPerRun(5000, func() {
			out := &sink{header: http.Header{}}
			in := r.Clone(r.Context()) // as net/http would make a new one; the same for both
			in.RequestURI = r.RequestURI
			h.ServeHTTP(out, in)
			if out.status != http.StatusOK {
				t.Fatalf("answered %d", out.status)
			}
		})
	}
	bare, ours := count(tuned), count(http.HandlerFunc(w.service.serveDoor))
	if added := ours - bare; added > budget {
		t.Errorf("%.0f allocations added (%.0f over %.0f), want at most %d", added, ours, bare, budget)
	} else {
		t.Logf("%.0f allocations added (%.0f over %.0f)", added, ours, bare)
	}
}
