package config

import (
	"net"
	"time"
)

// longElevated: beyond this an elevated token is not much short of a session.
const longElevated = time.Hour

// Warnings lists what the configuration weakens, one sentence each, to be logged at every start. It names keys, never
// values. What policy data weakens (mode: shadow) is said by whoever loads the policy.
func (c *Config) Warnings() []string {
	var list []string
	warn := func(when bool, text string) {
		if when {
			list = append(list, text)
		}
	}
	warn(c.DangerouslySingleReplica,
		"dangerously_single_replica: a second replica, also during a rolling update, would accept single-use tokens again")
	warn(c.Ledger.Kind == LedgerMemory,
		"ledger: memory: forgets spent tokens at a restart; single-use tokens issued before the start are refused")
	warn(c.UnmatchedRoutes == "dangerously_pass",
		"unmatched_routes: dangerously_pass forwards requests that no route matches, unjudged")
	warn(c.Elevated.Forward, "elevated.forward: the backend sees elevated access tokens, and whoever holds one is the user")
	warn(c.MFA.Forward, "mfa.forward: the backend sees action-based MFA tokens")
	warn(c.MFA.Introspection.URL != nil && c.MFA.Introspection.BearerFile == "" && c.MFA.Introspection.BasicFile == "" &&
		!isLoopback(c.MFA.Introspection.URL.Hostname()),
		"mfa.introspection: asks without credentials, so the endpoint answers everybody who reaches it; set bearer_file or basic_file")
	warn(c.Elevated.MaxLifetime > longElevated, "elevated.max_lifetime: elevated tokens may live for more than an hour")
	warn(!listensOnLoopback(c.Admin.Listen),
		"admin.listen: metrics and health, which need no authentication, are offered beyond loopback")
	warn(!listensOnLoopback(c.Listen) && c.TLS.CertFile == "",
		"listen: tokens arrive over plain http from beyond loopback; set tls, unless the network in front is encrypted")
	warn(c.Upstream != nil && c.Upstream.Scheme == "http" && !isLoopback(c.Upstream.Hostname()),
		"upstream: tokens and identity headers travel over plain http beyond loopback")
	warn(c.DecisionLog.To == "off", "decision_log.to: decisions are not recorded")
	return list
}

func listensOnLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopback(host)
}
