package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/demo"
	"github.com/stepward/stepward/examples/issuer"
	"github.com/stepward/stepward/examples/oidc"
	"github.com/stepward/stepward/examples/site"
)

// demoVerb runs a wallet backend, a token issuer and Stepward, and goes through a step-up against them.
func demoVerb(ctx context.Context, c *call) error {
	once := c.flags.Bool("once", false, "end after the story; exit code 1 if an answer was not what it should be")
	plain := c.flags.Bool("no-color", false, "no colours, as with NO_COLOR in the environment or a stdout that is no terminal")
	if err := c.parse(0); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGPIPE) // a reader that went away, as head does, must not leave files behind
	defer stop()
	p, err := newPlayground(ctx, c.stdout, !*plain && wantsColor(c.stdout))
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return p.perform(ctx, *once, c.stderr)
}

// wantsColor says whether w is a terminal whose user did not ask to be spared (no-color.org).
func wantsColor(w io.Writer) bool {
	f, isFile := w.(*os.File)
	if !isFile || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

const (
	demoEnvironment    = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"
	demoOldEnvironment = "7c0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b22" // below 2026_04_01
	demoAudience       = "https://wallet.example"
	demoCode           = "424242"
	demoSecret         = "mfa.secret"
	demoProvider       = "google"
)

// The whole configuration, with the backends' address, the environments, the audience and the web site's origin filled in.
const demoConfig = `listen: 127.0.0.1:0             # the door; port 0 takes a free one
upstream: http://@ORIGIN
admin: {listen: 127.0.0.1:0}    # /healthz, /readyz, /metrics
session:                        # whose tokens are believed; elevated ones are from the same issuers
  issuers:
    - environment: @NEW
      issuer: app.dynamicauth.com/@NEW
      audience: @AUDIENCE
      jwks_url: http://@ORIGIN/api/v0/sdk/@NEW/.well-known/jwks
    - environment: @OLD
      issuer: app.dynamicauth.com/@OLD
      audience: @AUDIENCE
      jwks_url: http://@ORIGIN/api/v0/sdk/@OLD/.well-known/jwks
  check: {path: "/api/v0/sdk/{environmentId}/session"} # a session ends with its device
environment:                    # its floor, and what needs MFA below that: the backend says
  settings: {url: "/api/v0/sdk/{environmentId}/settings", cache_file: settings.json}
mfa:                            # who has a second factor, and who knows what an MFA token is worth
  enrolled_claim: verified_credentials
  introspection:
    url: http://@ORIGIN/api/v0/sdk/@OLD/mfaTokens/introspect
    bearer_file: mfa.secret
challenge: {cors: {allowed_origins: ["@SITE"]}}
ledger: bolt:ledger.db          # which single-use tokens are spent
decision_log: {to: ./decisions.jsonl, blocking: true}
leeway: 0s                      # one machine, one clock
# policy: the one inside the program, which knows the routes of Dynamic's API
`

// playground is all that the demo consists of, in one temporary directory.
type playground struct {
	dir      string
	out      io.Writer
	log      *os.File // Stepward's talk, which would stand in the way of the story
	origin   string   // the address of the environments, which share one host, as at Dynamic
	site     *site.Site
	provider *oidc.Provider // a social network
	social   issuer.Social  // and how to use it
	story    demo.Config
	closers  []func() error
}

func newPlayground(ctx context.Context, out io.Writer, color bool) (_ *playground, err error) {
	p := &playground{out: out}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.dir, err = os.MkdirTemp("", "stepward-demo-"); err != nil {
		return nil, err
	}
	if p.log, err = os.Create(filepath.Join(p.dir, "stepward.log")); err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.log.Close)
	pages, err := p.listen(ctx)
	if err != nil {
		return nil, err
	}
	network, err := p.listen(ctx)
	if err != nil {
		return nil, err
	}
	origin, err := p.listen(ctx)
	if err != nil {
		return nil, err
	}
	p.origin = origin.Addr().String()
	_, port, err := net.SplitHostPort(pages.Addr().String())
	if err != nil {
		return nil, err
	}
	p.story = demo.Config{
		Site: "http://localhost:" + port, Code: demoCode, Out: out, Color: color,
		Decisions: func() ([]byte, error) { return os.ReadFile(filepath.Join(p.dir, "decisions.jsonl")) },
	}
	p.site, err = site.New(site.Config{Origin: p.story.Site, Environments: []site.Environment{
		{ID: demoEnvironment, Title: "2026_04_01: step-up"}, {ID: demoOldEnvironment, Title: "2026_01_01: action-based MFA"},
	}})
	if err != nil {
		return nil, err
	}
	p.serve(pages, p.site.Handler())
	if err := p.openNetwork(network); err != nil {
		return nil, err
	}
	host := http.NewServeMux()
	if p.story.Environment, err = p.open(host, demoEnvironment, issuer.Config{}); err != nil {
		return nil, err
	}
	secret := rand.Text() // of whoever asks about MFA tokens
	if err := os.WriteFile(filepath.Join(p.dir, demoSecret), []byte(secret), 0o600); err != nil {
		return nil, err
	}
	p.story.Old, err = p.open(host, demoOldEnvironment, issuer.Config{
		MinimumAPIVersion: "2026_01_01", Actions: []issuer.Action{{Action: "wallet.waas.export", Required: true}},
		IntrospectionSecret: secret,
	})
	if err != nil {
		return nil, err
	}
	p.serve(origin, host)
	return p, nil
}

// listen takes a free port, which serve gives back.
func (p *playground) listen(ctx context.Context) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err == nil {
		p.closers = append(p.closers, func() error {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) { // its server has closed it
				return err
			}
			return nil
		})
	}
	return l, err
}

func (p *playground) serve(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	p.closers = append(p.closers, server.Close)
	go server.Serve(l) //nolint:errcheck // it ends with ErrServerClosed when close says so
}

// openNetwork starts the social network.
func (p *playground) openNetwork(l net.Listener) (err error) {
	at, client, secret := "http://"+l.Addr().String(), "wallet", rand.Text()
	p.social = issuer.Social{
		Issuer: at, AuthorizationURL: at + oidc.PathAuthorize, TokenURL: at + oidc.PathToken, JWKSURL: at + oidc.PathKeys,
		ClientID: client, ClientSecret: secret,
	}
	p.provider, err = oidc.New(oidc.Config{Dir: p.dir, URL: at, ClientID: client, ClientSecret: secret})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, p.provider.Close)
	p.serve(l, p.provider.Handler())
	return nil
}

// open starts an environment: an issuer, and a backend that shares its host.
func (p *playground) open(host *http.ServeMux, id string, cfg issuer.Config) (demo.Environment, error) {
	var b *backend.Backend
	dir := filepath.Join(p.dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return demo.Environment{}, err
	}
	cfg.Dir, cfg.Environment, cfg.Audience, cfg.Origins, cfg.RelyingParty = dir, id, demoAudience, []string{p.story.Site}, "localhost"
	cfg.Code, cfg.SessionLifetime, cfg.Deliver = demoCode, 12*time.Hour, p.site.Deliver
	cfg.Wallets = func(user string) ([]map[string]any, error) { return b.Credentials(user) }
	cfg.External = &issuer.External{Issuer: p.story.Site, Audience: id, JWKSURL: p.story.Site + site.KeysPath}
	cfg.Social = map[string]issuer.Social{demoProvider: p.social}
	i, err := issuer.New(cfg)
	if err != nil {
		return demo.Environment{}, err
	}
	p.closers = append(p.closers, i.Close)
	b, err = backend.New(backend.Config{Dir: dir, Environment: id, Next: i.Handler(), Origins: []string{p.story.Site}})
	if err != nil {
		return demo.Environment{}, err
	}
	p.closers = append(p.closers, b.Close)
	host.Handle(b.Prefix()+"/", b.Handler())
	return demo.Environment{ID: id, Mail: i.Mail, Executions: b.Executions}, nil
}

// perform runs the demo and clears it away. If it goes wrong, talk is told what Stepward said.
func (p *playground) perform(ctx context.Context, once bool, talk io.Writer) error {
	err := p.run(ctx, once)
	if err != nil && ctx.Err() == nil {
		p.printLog(talk)
	}
	if err = errors.Join(err, p.close()); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// run starts Stepward, tells the story and, unless it is to end then, stays until ctx ends.
func (p *playground) run(ctx context.Context, once bool) error {
	s, err := p.newStepward(ctx)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // Stepward outlives the story
	telling, cancel := context.WithCancel(ctx)                      // and the story ends with Stepward
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- s.Run(serving)
	}()
	err = p.play(telling, s, once)
	stop()
	err = errors.Join(err, <-ended)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// newStepward makes Stepward from a configuration file, as stepward run does.
func (p *playground) newStepward(ctx context.Context) (*service, error) {
	path := filepath.Join(p.dir, "stepward.yaml")
	text := strings.NewReplacer(
		"@ORIGIN", p.origin, "@NEW", demoEnvironment, "@OLD", demoOldEnvironment, "@AUDIENCE", demoAudience, "@SITE", p.story.Site,
	).Replace(demoConfig)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cfg, err := config.Load(path, config.LoadOptions{})
	if err != nil {
		return nil, err
	}
	s, err := newService(ctx, cfg, outputs{p.log, p.log})
	if err != nil {
		return nil, err
	}
	p.introduce(s, text)
	return s, nil
}

func (p *playground) introduce(s *service, text string) {
	fmt.Fprintf(p.out, `Stepward in front of a wallet backend: a private key leaves after a step-up only, and once.

   Ann's browser  -->  Stepward             -->  wallet backend and token issuer
                       %-21s     %s

The backend knows nothing about step-up. Stepward asks a policy what each request must bring, proves
that it brings it, and spends single-use tokens. This is all that it was told, in stepward.yaml:

%s
`, s.Addr(), p.origin, text)
}

// play tells the story and, unless that is all, stays until ctx ends.
func (p *playground) play(ctx context.Context, s *service, once bool) error {
	within, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := s.Ready(within); err != nil {
		return err
	}
	if err := forgetNothing(within); err != nil {
		return err
	}
	p.story.Admin = "http://" + s.AdminAddr().String()
	if p.story.Door == "" {
		p.story.Door = "http://" + s.Addr().String()
	}
	p.site.Open(p.story.Door)
	for _, id := range []string{demoEnvironment, demoOldEnvironment} {
		p.provider.Allow(p.story.Door + "/api/v0/sdk/" + id + "/providers/" + demoProvider + "/redirect")
	}
	if err := demo.Tell(ctx, p.story); err != nil || once {
		return err
	}
	if err := demo.Invite(ctx, p.story, p.dir); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// forgetNothing waits until a new ledger's memory reaches back far enough. What was issued before it began may have been spent
// elsewhere, so that it is refused; and tokens tell the time of their issue in whole seconds.
func forgetNothing(ctx context.Context) error {
	now := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(now.Truncate(time.Second).Add(time.Second).Sub(now)):
		return nil
	}
}

// printLog shows what Stepward said to a story that went wrong.
func (p *playground) printLog(w io.Writer) {
	text, err := os.ReadFile(p.log.Name())
	if err != nil || len(text) == 0 {
		return
	}
	fmt.Fprintf(w, "\nStepward's log:\n%s\n", text)
}

// close gives everything back, in the opposite order.
func (p *playground) close() error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		errs = append(errs, c())
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}
