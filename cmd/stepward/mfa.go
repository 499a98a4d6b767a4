package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/token"
)

// proveMFA sends a JWT to its issuer, if there is one, and every other MFA token to the backend that is asked about them. Nil
// proves none.
func (v verifiers) proveMFA() gate.VerifyFunc {
	switch {
	case v.mfa == nil && v.opaque == nil:
		return nil
	case v.opaque == nil:
		return v.mfa.Verify
	case v.mfa == nil:
		return v.opaque.Verify
	}
	return func(ctx context.Context, raw string) (*token.Claims, error) {
		if token.IsJWT(raw) {
			return v.mfa.Verify(ctx, raw)
		}
		return v.opaque.Verify(ctx, raw)
	}
}

func (s *service) openIntrospection() (*token.Introspector, error) {
	c := s.config.MFA.Introspection
	bearer, err := credential("bearer_file", c.BearerFile)
	if err != nil {
		return nil, err
	}
	basic, err := credential("basic_file", c.BasicFile)
	if err != nil {
		return nil, err
	}
	roots, err := authorities(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	return token.NewIntrospector(token.IntrospectionConfig{
		URL: c.URL.String(), Bearer: bearer, Basic: basic, Timeout: c.Timeout, RootCAs: roots,
		Leeway: s.config.Leeway, MaxLifetime: s.config.MFA.MaxLifetime, RequireJTI: s.config.MFA.RequireJTI,
		Now: time.Now, Logger: s.log, OnAnswer: s.metrics.Introspection,
	})
}

// credential reads the one line of a secret file, "" without one.
func credential(field, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" {
		return "", fmt.Errorf("%s: %s is empty: nothing would authenticate Stepward there", field, file)
	}
	return line, nil
}

// warningOfMFA says that some environments ask for MFA tokens that nobody here can prove; "" if that is not so.
func warningOfMFA(c *config.Config, s *policy.Snapshot) string {
	asking := s.AskingForMFA()
	if len(asking) == 0 || len(c.MFAIssuers()) > 0 || c.MFA.Introspection.URL != nil {
		return ""
	}
	for i, id := range asking {
		asking[i] = cmp.Or(id, "default")
	}
	return "mfa: names neither an issuer nor introspection, so no MFA token can be proved; where an operation asks for one, only an " +
		"elevated token with its scopes passes (environments: " + strings.Join(slices.Compact(asking), ", ") + ")"
}
