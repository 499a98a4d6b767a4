// Package demo is an example: the client of a wallet that stands behind Stepward. It goes through a step-up over real HTTP,
// tells a person what it does, and checks that every answer is what it should be.
//
// It knows nothing of Stepward's code: it speaks the wallet's API as an app does, and reads challenges as the documentation
// describes them. What no app sees it is lent by whoever runs it: a mailbox, the backend's count, Stepward's decision log.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/stepward/stepward/examples/issuer"
)

// Config says where the story takes place. All but Color is required, Admin and Code by Invite only.
type Config struct {
	// Door and Admin are the base URLs of Stepward's two listeners, such as http://127.0.0.1:8080.
	Door, Admin string
	// Site is the origin of the wallet's web site: of site.Site.
	Site string
	// Environment is at minimum API version 2026_04_01, Old below it.
	Environment, Old Environment
	// Code is what every verification mail says; see issuer.Config.
	Code string
	// Decisions returns the decision log so far, one JSON object on each line.
	Decisions func() ([]byte, error)
	// Out is told everything, in lines of at most 100 columns.
	Out io.Writer
	// Color marks what matters with ANSI colours.
	Color bool
}

// Environment is one that the wallet has.
type Environment struct {
	// ID is what paths name.
	ID string
	// Mail returns the last mail to an address: issuer.Issuer.Mail.
	Mail func(to string) (issuer.Mail, bool)
	// Executions says how often a path reached the backend: backend.Backend.Executions.
	Executions func(path string) int
}

func (e Environment) prefix() string { return "/api/v0/sdk/" + e.ID }

// Tell goes through the story, a few seconds long. The first answer that is not what it should be ends it with an error that says
// what was expected and what came: what follows would build on it.
func Tell(ctx context.Context, cfg Config) error {
	s := newStory(ctx, cfg)
	s.out.prose("Lines with > are sent, lines with < come back. Paths begin with %s, which is left out, and each step names a "+
		"session once. No token is printed: <...> says what one is good for.", cfg.Environment.prefix())
	chapters := []struct {
		title string
		tell  func() error
	}{
		{"Ann signs up", s.signUp},
		{"She makes a wallet", s.makeWallet},
		{"She asks for its private key: a session alone is not enough", s.exportWithSession},
		{"She verifies by a mailed code, but for something else", s.verifyForLinking},
		{"She enrols an authenticator app", s.enrol},
		{"She steps up for the export", s.stepUp},
		{"The key leaves", s.export},
		{"The same token again", s.exportAgain},
		{"A refusal spends nothing", s.wrongScope},
		{"Somebody signs in as Ann, on a device that nobody knows", s.strangeDevice},
		{"It is Ann: she follows the link in her mail", s.followLink},
		{"She forgets the phone", s.forgetPhone},
		{"Every other way to verify", s.otherWays},
		{"An environment below 2026_04_01", s.below},
		{"What Stepward wrote down", s.readLog},
	}
	for n, c := range chapters {
		s.out.title(n+1, c.title)
		err := c.tell()
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.out.wrong(err)
			return fmt.Errorf("step %d, %s: %w", n+1, c.title, err)
		}
	}
	s.out.blank()
	s.out.good("All %d steps went as they should.", len(chapters))
	return nil
}

// story is how far it has come.
type story struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // a story lives as long as the call of Tell
	out    *narrator
	client *http.Client

	laptop, phone *browser
	app           authenticator
	linking       string // an elevated access token of scope credential:link
	exporting     string // one of scope wallet:export
	refused       string // the decision that refused exporting's second use
}

func newStory(ctx context.Context, cfg Config) *story {
	return &story{
		cfg: cfg, ctx: ctx, out: &narrator{w: cfg.Out, color: cfg.Color, named: map[string]bool{}},
		client: &http.Client{
			Timeout:   20 * time.Second,
			Transport: &http.Transport{Proxy: nil}, // the environment's proxy does not know this machine
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
		app: authenticator{now: time.Now},
	}
}

// mail returns the last mail to an address or a number.
func (s *story) mail(b *browser, to string) (issuer.Mail, error) {
	m, ok := b.home.Mail(to)
	if !ok {
		return m, errors.New("expected a mail to " + to + ", none came")
	}
	return m, nil
}
