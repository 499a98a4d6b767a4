package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/demo"
	"github.com/stepward/stepward/examples/issuer"
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
	demoEnvironment = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"
	demoAudience    = "https://wallet.example"
	demoCode        = "424242"
)

// The whole configuration; %[1]s is the backend's address, %[2]s the environment, %[3]s the audience.
const demoConfig = `listen: 127.0.0.1:0             # the door; port 0 takes a free one
upstream: http://%[1]s
admin: {listen: 127.0.0.1:0}    # /healthz, /readyz, /metrics
session:                        # whose tokens are believed; elevated ones come from the same issuer
  issuer: app.dynamicauth.com/%[2]s
  audience: %[3]s
  jwks_url: http://%[1]s/api/v0/sdk/%[2]s/.well-known/jwks
ledger: bolt:ledger.db          # which single-use tokens are spent
decision_log: {to: ./decisions.jsonl, blocking: true}
leeway: 0s                      # one machine, one clock
# policy: the one inside the program, which knows the routes of Dynamic's API
`

// playground is all that the demo consists of, in one temporary directory. The origin is the backend and the issuer on one host,
// as at Dynamic.
type playground struct {
	dir     string
	out     io.Writer
	log     *os.File // Stepward's talk, which would stand in the way of the story
	issuer  *issuer.Issuer
	backend *backend.Backend
	origin  *http.Server
	address string // of origin
	story   demo.Config
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
	p.issuer, err = issuer.New(issuer.Config{
		Dir: p.dir, Environment: demoEnvironment, Audience: demoAudience, Code: demoCode, SessionLifetime: 12 * time.Hour,
		Wallets: func(user string) ([]map[string]any, error) { return p.backend.Credentials(user) },
	})
	if err != nil {
		return nil, err
	}
	p.backend, err = backend.New(backend.Config{Dir: p.dir, Environment: demoEnvironment, Next: p.issuer.Handler()})
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.origin = &http.Server{Handler: p.backend.Handler(), ReadHeaderTimeout: 10 * time.Second}
	p.address = listener.Addr().String()
	go p.origin.Serve(listener) //nolint:errcheck // it ends with ErrServerClosed when close says so
	p.story = demo.Config{
		Environment: demoEnvironment, Code: demoCode, Mail: p.issuer.Mail, Executions: p.backend.Executions,
		Decisions: func() ([]byte, error) { return os.ReadFile(filepath.Join(p.dir, "decisions.jsonl")) },
		Out:       out, Color: color,
	}
	return p, nil
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
	text := fmt.Sprintf(demoConfig, p.address, demoEnvironment, demoAudience)
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
`, s.Addr(), p.address, text)
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

func (p *playground) close() error {
	var errs []error
	if p.origin != nil {
		errs = append(errs, p.origin.Close())
	}
	if p.backend != nil {
		errs = append(errs, p.backend.Close())
	}
	if p.issuer != nil {
		errs = append(errs, p.issuer.Close())
	}
	if p.log != nil {
		errs = append(errs, p.log.Close())
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}
