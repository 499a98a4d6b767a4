package config

import (
	"net"
	"strings"
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
	warn(c.ExtAuthz.DangerouslyRepeatAnswers > 0,
		"ext_authz.dangerously_repeat_answers: whoever can choose x-request-id can use a single-use token again for that long")
	warn(askedFromAfar(c.ExtAuthz.Listen) && c.ExtAuthz.TLS.ClientCAFile == "",
		"ext_authz.listen: whoever reaches it from beyond loopback says what a client sent, and can spend tokens; set tls.client_ca_file")
	warn(askedFromAfar(c.ForwardAuth.Listen) && c.ForwardAuth.TLS.CertFile == "",
		"forward_auth.listen: tokens arrive over plain http from beyond loopback; set tls, unless the network is encrypted")
	warn(c.Upstream != nil && !listensOnLoopback(c.Listen) && c.TLS.CertFile == "",
		"listen: tokens arrive over plain http from beyond loopback; set tls, unless the network in front is encrypted")
	warn(c.Upstream != nil && c.Upstream.Scheme == "http" && !isLoopback(c.Upstream.Hostname()),
		"upstream: tokens and identity headers travel over plain http beyond loopback")
	warn(len(c.Environment.Settings.DangerouslyAllowDowngrade) > 0,
		"environment.settings.dangerously_allow_downgrade: the backend may lower the minimum API version of these environments")
	warn(c.Environment.Settings.URL != nil && c.Environment.Settings.CacheFile == "",
		"environment.settings.cache_file: none: a restart forgets which minimum API versions were seen, and they can be lower after it")
	warn(c.DecisionLog.To == "off", "decision_log.to: decisions are not recorded")
	return list
}

func askedFromAfar(address string) bool {
	return address != "" && !strings.HasPrefix(address, "unix://") && !listensOnLoopback(address)
}

func listensOnLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopback(host)
}
