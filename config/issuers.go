package config

import (
	"net/url"
	"slices"
)

// SessionIssuers returns who may sign session tokens, with algorithms and types filled in. A single issuer comes without
// Environment: the token's claim environment_id names it.
func (c *Config) SessionIssuers() []Issuer { return c.Session.resolve() }

// ElevatedIssuers returns who may sign elevated access tokens: the session's issuers with their keys and algorithms where
// the section names none of its own, but with the types of elevated.
func (c *Config) ElevatedIssuers() []Issuer {
	if c.Elevated.named() {
		return c.Elevated.resolve()
	}
	issuers := c.Session.resolve()
	if len(c.Elevated.Types) == 0 {
		return issuers
	}
	for i := range issuers {
		issuers[i].Types = slices.Clone(c.Elevated.Types)
	}
	return issuers
}

// MFAIssuers returns who may sign action-based MFA tokens; none means that no such token can be proved.
func (c *Config) MFAIssuers() []Issuer {
	if !c.MFA.named() {
		return nil
	}
	return c.MFA.resolve()
}

// SettingsURL is where the settings of environments are, with {environmentId} in its path; upstream reports that the backend itself
// is asked. Nil means that nobody is.
func (c *Config) SettingsURL() (u *url.URL, upstream bool) {
	u = c.Environment.Settings.URL
	if u == nil || u.Host != "" || c.Upstream == nil {
		return u, false
	}
	at := *u
	at.Scheme, at.Host = c.Upstream.Scheme, c.Upstream.Host
	return &at, true
}

// SettingsEnvironments are the ids whose settings are asked for: those that are listed, or else all that the file knows.
func (c *Config) SettingsEnvironments() []string {
	if ids := c.Environment.Settings.Environments; len(ids) > 0 {
		return slices.Clone(ids)
	}
	var ids []string
	if c.Environment.Fixed != "" {
		ids = append(ids, c.Environment.Fixed)
	}
	for _, is := range c.Session.Issuers {
		if is.Environment != "" && !slices.Contains(ids, is.Environment) {
			ids = append(ids, is.Environment)
		}
	}
	return ids
}

// named reports whether the section says anything of its own about who signs.
func (v *Verifier) named() bool {
	return len(v.Issuer) > 0 || len(v.Audience) > 0 || v.JWKSURL != nil || v.JWKSFile != "" || len(v.Algorithms) > 0 ||
		len(v.Issuers) > 0
}

func (v *Verifier) resolve() []Issuer {
	issuers := slices.Clone(v.Issuers)
	if len(issuers) == 0 {
		issuers = []Issuer{{Issuer: v.Issuer, Audience: v.Audience, JWKSURL: v.JWKSURL, JWKSFile: v.JWKSFile}}
	}
	for i := range issuers {
		issuers[i].Algorithms = firstNamed(issuers[i].Algorithms, v.Algorithms, []string{"RS256"})
		issuers[i].Types = firstNamed(issuers[i].Types, v.Types, []string{"JWT", ""})
	}
	return issuers
}

func firstNamed(lists ...[]string) []string {
	for _, l := range lists {
		if len(l) > 0 {
			return slices.Clone(l)
		}
	}
	return nil
}
