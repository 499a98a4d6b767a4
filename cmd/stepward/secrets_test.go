package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/issuer"
)

// TestNoOutputHoldsTokenMaterial runs through every kind of answer with everything that Stepward can say switched on, and
// looks for the tokens, their parts and their jti in all of it.
func TestNoOutputHoldsTokenMaterial(t *testing.T) {
	w := newWorld(t)
	w.start("log: {level: debug, format: json}", "challenge: {profile: rfc9470, cors: {allowed_origins: ['*']}}")
	user := w.issuer.Prefix() + "/users"
	path := w.wallet("ann")
	var tokens []string
	keep := func(token string) string {
		tokens = append(tokens, token)
		return token
	}
	session := keep(w.session("ann", func(c map[string]any) { c["jti"] = "session-jti-0123456789" }))
	good := keep(w.elevated("ann", "wallet:export"))
	body := `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`
	expired := func(c map[string]any) { c["iat"], c["exp"] = 1_700_000_000, 1_700_000_300 }
	other := must(issuer.New(issuer.Config{Dir: t.TempDir(), Environment: testEnvironment, Audience: testAudience, Algorithm: "ES256"}))
	defer other.Close()

	seen := map[string]bool{}
	for _, c := range []callOf{
		{elevated: good}, {elevated: good}, // allowed, consumed
		{}, // required
		{elevated: keep(w.elevated("ann", "credential:link"))},                                          // wrong scope
		{elevated: keep(w.elevated("bob", "wallet:export"))},                                            // another's
		{elevated: keep(must(w.issuer.ElevatedToken("ann", []string{"wallet:export"}, true, expired)))}, // expired
		{elevated: keep(must(other.ElevatedToken("ann", []string{"wallet:export"}, true)))},             // another key
		{elevated: keep(w.elevated("ann", "wallet:export")) + ",x"},                                     // two in one
		{elevated: strings.Replace(keep(w.elevated("ann", "wallet:export")), ".", ".\u00e9", 1)},        // not a token
		{session: keep(w.session("ann", func(c map[string]any) { c["scope"] = "device:register" }))},
		{session: keep(w.session("ann", func(c map[string]any) { c["scope"] = "requiresAdditionalAuth" }))},
		{session: keep(w.session("ann", expired))},
		{session: keep(must(other.SessionToken("ann")))},
		{header: map[string]string{"X-Dyn-Api-Version": keep(w.elevated("ann", "wallet:export"))}}, // in the wrong place
		{header: map[string]string{"X-Dyn-Version": keep(w.elevated("ann", "wallet:export"))}},
		{header: map[string]string{"Cookie": "DYNAMIC_JWT_TOKEN=" + session}},
		{path: path + "?access_token=" + keep(w.elevated("ann", "wallet:export"))},
		{path: path + "/" + keep(w.elevated("ann", "wallet:export"))},
		{path: path + "?x-dyn-elevated-access-token=" + good},
	} {
		c.method, c.body = "POST", body
		if c.path == "" {
			c.path = path
		}
		if c.session == "" {
			c.session = session
		}
		seen[w.do(c).Code] = true
	}
	w.do(callOf{method: "GET", path: user, session: session, header: map[string]string{"Content-Type": "application/grpc", "Accept": good}})
	w.origin.CloseClientConnections()
	w.origin.Close() // unreachable
	seen[w.do(callOf{method: "POST", path: path, session: session, elevated: keep(w.elevated("ann", "wallet:export"))}).Code] = true
	for _, code := range []string{
		"", "elevated_access_token_required", "elevated_access_token_consumed", "elevated_access_token_insufficient_scope",
		"elevated_access_token_invalid", "elevated_access_token_expired", "device_verification_required", "additional_auth_required",
		"session_invalid", "api_version_invalid", "invalid_request", "route_unmatched", "upstream_unreachable",
	} {
		if !seen[code] {
			t.Errorf("no answer was %q", code)
		}
	}
	_, metrics := w.admin("/metrics")
	_, ready := w.admin("/readyz")
	w.stop()

	outputs := map[string]string{
		"stdout": w.stdout.String(), "stderr": w.stderr.String(), "answers": w.answers.String(), "metrics": metrics, "readyz": ready,
		"decision log": w.file("decisions.jsonl"), "ledger": w.file("ledger.db"),
	}
	if n := strings.Count(outputs["decision log"], "\n"); n < len(seen) {
		t.Fatalf("the decision log has only %d lines", n)
	}
	for _, secret := range secretsOf(t, tokens) {
		for name, text := range outputs {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s holds %q: …%s…", name, secret, text[max(0, at-80):min(len(text), at+20)])
			}
		}
	}
}

// secretsOf are the parts of tokens that nobody may see: payload, signature, jti.
func secretsOf(t *testing.T, tokens []string) []string {
	t.Helper()
	var secrets []string
	for _, token := range tokens {
		parts := strings.Split(token, ".")
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct{ JTI string }
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatal(err)
		}
		// The beginning of a payload is the same for all; 24 letters from the end are a token's own.
		secrets = append(secrets, parts[1][len(parts[1])-24:], parts[2][:24])
		if claims.JTI != "" {
			secrets = append(secrets, claims.JTI)
		}
	}
	if len(secrets) < 2*len(tokens) || len(tokens) == 0 {
		t.Fatalf("%d tokens have only %d secrets", len(tokens), len(secrets))
	}
	return secrets
}
