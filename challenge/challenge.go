// Package challenge puts a refusal into the forms that clients understand: a JSON body that Dynamic's SDKs and RFC 9457
// readers both accept, a WWW-Authenticate challenge (RFC 6750, RFC 9470), a structured header that mirrors the body for
// doors that lose it, CORS so that a browser script may read all of that, and a gRPC status for gRPC callers.
//
// Nothing that the client sent is repeated, apart from versions and names whose form was validated, and nothing says why a
// signature failed.
package challenge

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rs/cors"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
)

// Profile chooses status and media type of step-up challenges.
type Profile string

// The profiles. The zero value is ProfileSDK.
const (
	ProfileSDK     Profile = "sdk"     // 403 and application/json: for Dynamic's SDKs a 401 ends the session
	ProfileRFC9470 Profile = "rfc9470" // 401 and application/problem+json, as the examples of RFC 9470
)

// Config says how refusals are worded.
type Config struct {
	Profile Profile
	// Realm is the realm of WWW-Authenticate; "" leaves it out.
	Realm string
	// TypeBase is put before the code to make the problem's type. Required.
	TypeBase string
	// Domain is the domain of gRPC's ErrorInfo. Required.
	Domain string
	CORS   CORS
	// VerifyURL is a page for the user, told in device challenges; "" tells none.
	VerifyURL string
	// ResourceMetadata is told in WWW-Authenticate (RFC 9728 section 5.1); "" tells none.
	ResourceMetadata string
	// ACRValues are told in step-up challenges (RFC 9470 section 3).
	ACRValues []string
	// Methods are told in step-up challenges where the policy names none.
	Methods []string
	// RetryAfter is the least Retry-After of a 503, in whole seconds; up to 4 s of jitter are added. Default 1 s.
	RetryAfter time.Duration
	// TokenHeader and MFAHeader are the headers in which the tokens are expected.
	TokenHeader, MFAHeader string
	// Vary are the request headers that decisions depend on.
	Vary []string
	// SessionScope is the scope that a session of a verified device carries.
	SessionScope string
}

// CORS says which browser scripts may read refusals. Without origins none may.
type CORS struct {
	AllowedOrigins   []string // scheme://host[:port], or "*"
	AllowCredentials bool
}

// Writer writes refusals. It is safe for concurrent use.
type Writer struct {
	config Config
	cors   *cors.Cors // nil without allowed origins
	vary   string
}

// New checks the configuration and returns a Writer.
func New(c Config) (*Writer, error) {
	c.Profile = cmp.Or(c.Profile, ProfileSDK)
	c.RetryAfter = cmp.Or(c.RetryAfter, time.Second)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("challenge: %w", err)
	}
	w := &Writer{config: c, vary: strings.Join(append(append([]string{"Authorization"}, c.Vary...), "Origin"), ", ")}
	if len(c.CORS.AllowedOrigins) > 0 { // cors reads none as all
		w.cors = cors.New(cors.Options{
			AllowedOrigins:   c.CORS.AllowedOrigins,
			AllowCredentials: c.CORS.AllowCredentials,
			AllowedMethods: []string{
				http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
			},
			ExposedHeaders: []string{
				"WWW-Authenticate", "Step-Up-Challenge", "Retry-After", "X-Request-Id", "Deprecation", "Sunset", "Link", adviceHeader,
			},
		})
	}
	return w, nil
}

func (c *Config) check() error {
	var errs []error
	if c.Profile != ProfileSDK && c.Profile != ProfileRFC9470 {
		errs = append(errs, fmt.Errorf("profile %q: want %q or %q", c.Profile, ProfileSDK, ProfileRFC9470))
	}
	if _, err := url.Parse(c.TypeBase); err != nil || c.TypeBase == "" {
		errs = append(errs, fmt.Errorf("type base %q: want the beginning of a URI, such as https://docs.example/problems/", c.TypeBase))
	}
	if c.Domain == "" {
		errs = append(errs, errors.New("domain is missing"))
	}
	for _, text := range append([]string{c.Realm, c.ResourceMetadata, c.Domain, c.TokenHeader, c.MFAHeader}, c.ACRValues...) {
		if !isQuotable(text) {
			errs = append(errs, fmt.Errorf("%q cannot stand in a quoted string: want printable ASCII without \" and \\", text))
		}
	}
	if c.CORS.AllowCredentials && len(c.CORS.AllowedOrigins) == 1 && c.CORS.AllowedOrigins[0] == "*" {
		errs = append(errs, errors.New("credentials are not for every origin: name the origins"))
	}
	return errors.Join(errs...)
}

// isQuotable follows the characters that RFC 6750 section 3 allows in parameter values.
func isQuotable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Write answers r with the refusal in v. A zero Verdict is answered as policy_error.
func (w *Writer) Write(rw http.ResponseWriter, r *http.Request, v *gate.Verdict) {
	row := rowOf(v.Reason)
	w.write(rw, r, v, row, row.status(w.config.Profile))
}

// WriteUpstream answers for a backend that failed after the gate had said yes: v.Reason is upstream_unreachable or
// upstream_unknown_outcome, and timeout tells a 504 from a 502.
func (w *Writer) WriteUpstream(rw http.ResponseWriter, r *http.Request, v *gate.Verdict, timeout bool) {
	row := rowOf(v.Reason)
	status := row.status(w.config.Profile)
	if timeout && status == http.StatusBadGateway {
		status = http.StatusGatewayTimeout
	}
	w.write(rw, r, v, row, status)
}

func (w *Writer) write(rw http.ResponseWriter, r *http.Request, v *gate.Verdict, row *row, status int) {
	h := rw.Header()
	if w.cors != nil && r.Method != http.MethodOptions { // it would answer a preflight itself
		w.cors.HandlerFunc(rw, r)
	}
	h.Set("Vary", w.vary)
	h.Set("Cache-Control", "no-store")
	if v.RequestID != "" {
		h.Set("X-Request-Id", v.RequestID)
	}
	if value := w.authenticate(v, row); value != "" {
		h.Set("WWW-Authenticate", value)
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", w.retryAfter(v))
	}
	if status == http.StatusMethodNotAllowed {
		h.Set("Allow", strings.Join(v.Allowed, ", "))
	}
	Inform(h, v)
	p := w.problem(v, row, status)
	h.Set("Step-Up-Challenge", mirror(p))
	if kind := grpcKind(r.Header.Get("Content-Type")); kind != "" {
		w.writeGRPC(rw, kind, row, p)
		return
	}
	body := p.encode()
	h.Set("Content-Type", w.mediaType(r))
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	rw.WriteHeader(status)
	_, _ = rw.Write(body) // a client that is gone has no use for it
}

// retryAfter is jittered, so that a fleet of clients does not come back as one.
func (w *Writer) retryAfter(v *gate.Verdict) string {
	least := max(w.config.RetryAfter, v.RetryAfter)
	seconds := int((least + time.Second - 1) / time.Second)
	return strconv.Itoa(seconds + rand.IntN(5)) //nolint:gosec // not a secret
}

// mediaType is application/json for Dynamic's SDKs, which need not look for anything else, and application/problem+json
// (RFC 9457) by profile or where the client asks for it.
func (w *Writer) mediaType(r *http.Request) string {
	const problem = "application/problem+json"
	if w.config.Profile == ProfileRFC9470 {
		return problem
	}
	for _, value := range r.Header["Accept"] {
		for part := range strings.SplitSeq(value, ",") {
			name, parameters, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), problem) && strings.ReplaceAll(parameters, " ", "") != "q=0" {
				return problem
			}
		}
	}
	return "application/json"
}

// Status is the HTTP status with which a profile answers a reason.
func Status(p Profile, why reason.Reason) int { return rowOf(why).status(p) }

// GRPCStatus is the gRPC status code (google.rpc.Code) with which a profile answers a reason. It is never 0, OK.
func GRPCStatus(p Profile, why reason.Reason) int32 { return rowOf(why).grpcStatus(p) }
