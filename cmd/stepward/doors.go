package main

import (
	"net/http"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/extauthz"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/proxy"
)

// openDoors makes what answers at the addresses that listen opened, all of it in front of one gate.
func (s *service) openDoors(g *gate.Gate) error {
	rules, err := s.newRules()
	if err != nil {
		return err
	}
	words := map[challenge.Profile]*challenge.Writer{}
	for _, profile := range []challenge.Profile{challenge.ProfileSDK, challenge.ProfileRFC9470} {
		if words[profile], err = s.newChallenge(profile); err != nil {
			return err
		}
	}
	if s.config.Upstream != nil {
		if s.proxy, err = s.newProxy(g, rules, words[challenge.Profile(s.config.Challenge.Profile)]); err != nil {
			return err
		}
	}
	return s.openAsked(extauthz.Config{
		Gate: g, Rules: rules, Challenges: words, Profile: challenge.Profile(s.config.Challenge.Profile),
		Credentials: s.credentials(), Identity: s.identity(), Log: s.log,
	})
}

func (s *service) openAsked(common extauthz.Config) (err error) {
	c := s.config
	if c.ForwardAuth.Listen != "" {
		if s.forwardAuthDoor, err = extauthz.NewHTTP(common, c.TrustedProxies); err != nil {
			return err
		}
	}
	if c.ExtAuthz.Listen == "" {
		return nil
	}
	d, err := extauthz.NewGRPC(common, extauthz.DedupConfig{For: c.ExtAuthz.DangerouslyRepeatAnswers})
	if err != nil {
		return err
	}
	sc := extauthz.ServerConfig{
		Listener: s.extAuthzListener, MaxStreams: uint32(c.ExtAuthz.MaxStreams), MaxMessage: int(c.ExtAuthz.MaxMessage),
		Reflection: c.ExtAuthz.Reflection,
	}
	if files := serverTLS(c.ExtAuthz.TLS); files != nil {
		certificates, err := listen.NewCertificates(*files)
		if err != nil {
			return err
		}
		sc.TLS, s.certificates = certificates.Config(), append(s.certificates, certificates)
	}
	s.asked = append(s.asked, extauthz.NewServer(sc, d))
	return nil
}

func (s *service) serveForwardAuth(w http.ResponseWriter, r *http.Request) {
	s.metrics.InFlight.Inc()
	defer s.metrics.InFlight.Dec()
	s.forwardAuthDoor.ServeHTTP(w, r)
}

func (s *service) newRules() (*framing.Rules, error) {
	c := s.config
	i := s.identity()
	return framing.New(framing.Config{
		Tokens:          append([]string{c.Session.Header, c.Elevated.Header, c.MFA.Header}, gate.RegistrationTokenHeaders()...),
		Sensitive:       append([]string{c.Client.APIVersionHeader, c.Client.SDKVersionHeader, c.Environment.Header}, gate.DeviceProofHeaders()...),
		Identity:        i.Names(),
		AllowUnderscore: c.UnderscoreHeaders,
	})
}

func (s *service) identity() door.Identity {
	c := s.config.IdentityHeaders
	return door.Identity{Subject: c.Subject, Scopes: c.Scopes, DecisionID: c.DecisionID, Environment: c.Environment}
}

func (s *service) credentials() door.Credentials {
	c := s.config
	return door.Credentials{
		SessionHeader: c.Session.Header, SessionCookie: c.Session.Cookie, ElevatedHeader: c.Elevated.Header, MFAHeader: c.MFA.Header,
		ForwardSession: c.Session.Forward, ForwardElevated: c.Elevated.Forward, ForwardMFA: c.MFA.Forward,
	}
}

func (s *service) newProxy(g *gate.Gate, rules *framing.Rules, words *challenge.Writer) (*proxy.Proxy, error) {
	c := s.config
	upstreamTLS, err := upstreamTLS(c.UpstreamTLS)
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Config{
		Gate: g, Challenge: words, Rules: rules,
		Upstream: c.Upstream, UpstreamTLS: upstreamTLS,
		DialTimeout: c.Limits.UpstreamDial, ResponseHeaderTimeout: c.Limits.UpstreamResponseHeader,
		Credentials: s.credentials(), Identity: s.identity(), TrustedProxies: c.TrustedProxies,
		MaxBody: int64(c.Limits.MaxBody), JudgedBody: c.Limits.BodyIdle, Stream: c.Limits.Stream,
		Failed: s.metrics.UpstreamFailure, Log: s.log,
	})
}

func (s *service) newChallenge(profile challenge.Profile) (*challenge.Writer, error) {
	c := s.config
	cc := challenge.Config{
		Profile: profile, Realm: c.Challenge.Realm, TypeBase: c.Challenge.TypeBase, Domain: c.Challenge.Domain,
		CORS:      challenge.CORS{AllowedOrigins: c.Challenge.CORS.AllowedOrigins, AllowCredentials: c.Challenge.CORS.AllowCredentials},
		ACRValues: c.Challenge.ACRValues, Methods: c.Challenge.Methods, RetryAfter: c.Challenge.RetryAfter,
		TokenHeader: c.Elevated.Header, MFAHeader: c.MFA.Header, SessionScope: c.Device.RegisteredScope,
		Vary: []string{c.Elevated.Header, c.MFA.Header, c.Client.SDKVersionHeader, c.Client.APIVersionHeader},
	}
	cc.Vary = append(append(cc.Vary, gate.RegistrationTokenHeaders()...), gate.DeviceProofHeaders()...)
	if c.Client.WalletSDKVersionHeader != "" {
		cc.Vary = append(cc.Vary, c.Client.WalletSDKVersionHeader)
	}
	if c.Challenge.VerifyURL != nil {
		cc.VerifyURL = c.Challenge.VerifyURL.String()
	}
	if c.Challenge.ResourceMetadata != nil {
		cc.ResourceMetadata = c.Challenge.ResourceMetadata.String()
	}
	if c.Session.Cookie != "" {
		cc.Vary = append(cc.Vary, "Cookie")
	}
	return challenge.New(cc)
}
