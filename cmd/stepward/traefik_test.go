package main

import (
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// traefik is examples/traefik/dynamic.yaml and what Traefik 3, whose module cannot be built here, does with it by its source:
// pkg/middlewares/forwardedheaders/forwarded_header.go at the entry point, pkg/middlewares/headers/header.go,
// pkg/middlewares/auth/forward.go and pkg/proxy/httputil/proxy.go. Later releases do more at the entry point.
type traefik struct {
	HTTP struct {
		Routers     map[string]*traefikRouter
		Middlewares map[string]traefikMiddleware
		Services    map[string]struct {
			LoadBalancer struct {
				Servers    []struct{ URL string }
				PassHost   bool   `yaml:"passHostHeader"`
				Transport  string `yaml:"serversTransport"`
				Forwarding struct {
					Flush time.Duration `yaml:"flushInterval"`
				} `yaml:"responseForwarding"`
			} `yaml:"loadBalancer"`
		}
		Transports map[string]struct {
			MaxIdle int `yaml:"maxIdleConnsPerHost"`
		} `yaml:"serversTransports"`
	}
}

type traefikRouter struct {
	Rule, Service string
	Priority      int
	Middlewares   []string
	path          *regexp.Regexp
	handler       http.Handler
}

type traefikMiddleware struct {
	Headers *struct {
		Request map[string]string `yaml:"customRequestHeaders"`
	}
	ForwardAuth *struct {
		Address         string
		Trust           bool     `yaml:"trustForwardHeader"`
		ResponseHeaders []string `yaml:"authResponseHeaders"`
	} `yaml:"forwardAuth"`
}

func (s *street) traefik() *front {
	s.t.Helper()
	file, _ := s.example("traefik/dynamic.yaml")
	t := new(traefik)
	decoder := yaml.NewDecoder(strings.NewReader(string(must(os.ReadFile(file)))))
	decoder.KnownFields(true) // what is not known here would not be replayed
	if err := decoder.Decode(t); err != nil {
		s.t.Fatal(err)
	}
	for name, r := range t.HTTP.Routers {
		kind, pattern, _ := strings.Cut(strings.TrimSuffix(r.Rule, "`)"), "(`")
		switch kind {
		case "PathPrefix":
			pattern = "^" + regexp.QuoteMeta(pattern)
		case "PathRegexp":
		default:
			s.t.Fatalf("router %s: %s", name, r.Rule)
		}
		r.path, r.handler = regexp.MustCompile(pattern), t.service(r.Service)
		for _, name := range slices.Backward(r.Middlewares) {
			r.handler = t.HTTP.Middlewares[name].before(r.handler)
		}
	}
	server := httptest.NewServer(t)
	s.t.Cleanup(server.Close)
	return &front{name: "traefik, replayed", address: server.Listener.Addr().String(), status: asItIs, away: 500, awayBody: 502}
}

func (t *traefik) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	enterTraefik(r)
	var chosen *traefikRouter
	for _, router := range t.HTTP.Routers {
		if router.path.MatchString(r.URL.Path) && (chosen == nil || router.Priority > chosen.Priority) {
			chosen = router
		}
	}
	if chosen == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	chosen.handler.ServeHTTP(w, r)
}

// enterTraefik is what the entry point makes of what a client says of itself and of its connection.
func enterTraefik(r *http.Request) {
	h := r.Header
	for _, name := range []string{"Proto", "For", "Host", "Port", "Server", "Uri", "Method", "Tls-Client-Cert", "Tls-Client-Cert-Info"} {
		h.Del("X-Forwarded-" + name)
	}
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	h.Set("X-Real-Ip", client)
	h.Set("X-Forwarded-Proto", "http")
	h.Set("X-Forwarded-Port", "80")
	h.Set("X-Forwarded-Host", r.Host)
	h.Set("X-Forwarded-Server", "traefik")
	upgrade := ""
	for option := range strings.SplitSeq(strings.Join(h["Connection"], ","), ",") {
		if option = strings.TrimSpace(option); strings.EqualFold(option, "upgrade") {
			upgrade = h.Get("Upgrade")
		}
		h.Del(option)
	}
	h.Del("Connection")
	if upgrade != "" {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", upgrade)
	}
}

func (m traefikMiddleware) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.ForwardAuth != nil && !m.asks(w, r) {
			return
		}
		if m.Headers != nil {
			for name, value := range m.Headers.Request {
				if r.Header.Del(name); value != "" {
					r.Header.Set(name, value)
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// asks is ForwardAuth: whether the request may go on.
func (m traefikMiddleware) asks(w http.ResponseWriter, r *http.Request) bool {
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, m.ForwardAuth.Address, nil)
	if err != nil || m.ForwardAuth.Trust { // a client's own word is not replayed
		w.WriteHeader(http.StatusInternalServerError)
		return false
	}
	ask.Header = r.Header.Clone()
	for _, hop := range []string{"Connection", "Keep-Alive", "Te", "Trailers", "Transfer-Encoding", "Upgrade"} {
		ask.Header.Del(hop)
	}
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	for name, value := range map[string]string{"For": client, "Method": r.Method, "Proto": "http", "Host": r.Host, "Uri": r.URL.RequestURI()} {
		ask.Header.Set("X-Forwarded-"+name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(ask)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return false
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode >= 300 {
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body) // a client that is gone has no use for it
		return false
	}
	for _, name := range m.ForwardAuth.ResponseHeaders {
		name = http.CanonicalHeaderKey(name)
		r.Header.Del(name)
		if values := res.Header[name]; len(values) > 0 {
			r.Header[name] = values
		}
	}
	r.RequestURI = r.URL.RequestURI()
	return true
}

func (t *traefik) service(name string) http.Handler {
	l := t.HTTP.Services[name].LoadBalancer
	to := must(url.Parse(l.Servers[0].URL))
	return &httputil.ReverseProxy{
		FlushInterval: l.Forwarding.Flush, Transport: &http.Transport{MaxIdleConnsPerHost: t.HTTP.Transports[l.Transport].MaxIdle},
		Rewrite: func(r *httputil.ProxyRequest) {
			for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := r.In.Header[name]; ok {
					r.Out.Header[name] = values
				}
			}
			client, _, _ := net.SplitHostPort(r.In.RemoteAddr)
			r.Out.Header.Set("X-Forwarded-For", strings.Join(append(r.Out.Header["X-Forwarded-For"], client), ", "))
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
			if u, err := url.ParseRequestURI(r.In.RequestURI); err == nil {
				r.Out.URL.Path, r.Out.URL.RawPath, r.Out.URL.RawQuery = u.Path, u.RawPath, strings.ReplaceAll(u.RawQuery, ";", "&")
			}
			if !l.PassHost {
				r.Out.Host = to.Host
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}
