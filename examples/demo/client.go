package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/stepward/stepward/examples/issuer"
)

const (
	elevatedHeader    = "x-dyn-elevated-access-token"
	mfaHeader         = "x-mfa-auth-token"
	deviceTokenHeader = "x-dynamic-device-registration-token" // #nosec G101 -- a header's name
)

// browser is one device that a user signs in on.
type browser struct {
	name    string
	home    Environment
	key     *issuer.Device // nil sends no proof of the device
	session string         // empty before sign-in
	wallet  string         // its id; empty before there is one
	address string         // of the wallet
}

// request is one call of the wallet's API. Path follows the prefix.
type request struct {
	method, path string
	body         any
	elevated     string // an elevated access token
	mfa          string // an MFA token of the old kind
	signed       bool   // with proof of the device
	deviceToken  string // of the link in a mail
	terse        bool   // the body is not worth telling
}

// want is the answer that is expected: a status, for refusals a code, and what of the answer is shown. Nothing to show means
// all of a refusal's headers and body, and of other answers nothing but the status.
type want struct {
	status int
	code   string
	shows  []string
}

func ok(shows ...string) want { return want{status: http.StatusOK, shows: shows} }

func refusal(code string, shows ...string) want {
	return want{status: http.StatusForbidden, code: code, shows: shows}
}

func (w want) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", w.status, http.StatusText(w.status), w.code))
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   object
}

type object map[string]any

// text returns a member that is a text, or of an object in it: "user.scope". It is empty if there is none.
func (o object) text(path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	if inner, ok := o[name].(map[string]any); deeper && ok {
		return object(inner).text(rest)
	}
	text, _ := o[name].(string)
	return text
}

func (a answer) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", a.status, http.StatusText(a.status), a.body.text("code")))
}

// call sends a request, tells of it and of the answer, and compares that with what is expected.
func (s *story) call(b *browser, r request, w want) (answer, error) {
	s.out.sent(b, r)
	a, err := s.send(b, r)
	if err != nil {
		return a, err
	}
	expected := a.status == w.status && a.body.text("code") == w.code
	s.out.came(a, w, expected)
	if !expected {
		return a, fmt.Errorf("%s: expected %s, got %s", r, w, a)
	}
	return a, nil
}

func (r request) String() string { return r.method + " " + discreet(r.path) }

func (s *story) send(b *browser, r request) (answer, error) {
	req, err := s.newRequest(b, r)
	if err != nil {
		return answer{}, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%s: expected an answer: %w", r, err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.raw, err = io.ReadAll(io.LimitReader(res.Body, 1<<20)); err != nil {
		return a, fmt.Errorf("%s: expected a whole answer: %w", r, err)
	}
	_ = json.Unmarshal(a.raw, &a.body) // a body that is no JSON object has no members, which is noticed where one is needed
	return a, nil
}

func (s *story) newRequest(b *browser, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		raw, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(s.ctx, r.method, s.cfg.Door+b.home.prefix()+r.path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", b.name)
	// What Dynamic's JavaScript SDK says of itself.
	req.Header.Set("x-dyn-version", "ClientSDK/1.27.1")
	req.Header.Set("x-dyn-api-version", "API/0.0.1125")
	if b.session != "" {
		req.Header.Set("Authorization", "Bearer "+b.session)
	}
	if r.elevated != "" {
		req.Header.Set(elevatedHeader, r.elevated)
	}
	if r.mfa != "" {
		req.Header.Set(mfaHeader, r.mfa)
	}
	if r.deviceToken != "" {
		req.Header.Set(deviceTokenHeader, r.deviceToken)
	}
	if r.signed {
		nonce, err := s.nonce(b)
		if err != nil {
			return nil, err
		}
		if err := b.key.Sign(req.Header, nonce); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// nonce fetches what the device signs. It is not worth telling.
func (s *story) nonce(b *browser) (string, error) {
	a, err := s.send(b, request{method: "GET", path: "/nonces?count=1"})
	if err != nil {
		return "", err
	}
	var body struct{ Nonces []string }
	if err := json.Unmarshal(a.raw, &body); err != nil || len(body.Nonces) == 0 {
		return "", fmt.Errorf("GET /nonces: expected a nonce, got %s", a)
	}
	return body.Nonces[0], nil
}
