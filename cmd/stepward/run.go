package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/policy"
)

// gcPercent lets the heap grow to five times what lives, which is about 3 MB with the embedded policy: at Go's own 100 the
// collector takes 6 % of the CPU. The environment variable GOGC overrides it.
const gcPercent = 400

// runVerb stands in front of the backend until it is told to end.
func runVerb(ctx context.Context, c *call) error {
	path := c.flags.String("config", defaultConfig, "configuration file")
	if err := c.parse(0); err != nil {
		return err
	}
	cfg, problems := checkConfig(*path)
	if len(problems) > 0 {
		return c.refuse(problems)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	err := serve(ctx, cfg, outputs{c.stdout, c.stderr})
	if list := (policy.Problems)(nil); errors.As(err, &list) {
		return c.refuse(lines(err))
	}
	return err
}

// refuse lists problems as talk: run has no data to print.
func (c *call) refuse(problems []string) error {
	for _, p := range problems {
		fmt.Fprintln(c.stderr, p)
	}
	fmt.Fprintf(c.stderr, "%d problem%s; nothing was started\n", len(problems), plural(len(problems)))
	return errSaid
}

// stray takes what net/http's Transport writes to the log package: it quotes backends, so only that it spoke is told.
type stray struct{ log *slog.Logger }

func (w stray) Write(p []byte) (int, error) {
	w.log.Warn("the backend broke the protocol: it sent bytes that nobody asked for")
	return len(p), nil
}

// serve runs a service until ctx ends; SIGHUP reloads it.
func serve(ctx context.Context, cfg *config.Config, out outputs) error {
	s, err := newService(ctx, cfg, out)
	if err != nil {
		return err
	}
	log.SetOutput(stray{s.log})
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for {
		select {
		case <-hangup:
			s.Reload(ctx)
		case err := <-done:
			return err
		}
	}
}
