// Command stepward is a reverse-proxy sidecar and policy enforcement point for wallet backends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// verb is one subcommand. Data goes to stdout, talk to stderr.
type verb struct {
	name    string
	usage   string
	summary string
	do      func(ctx context.Context, c *call) error
}

// call is one invocation of a verb.
type call struct {
	args           []string
	flags          *flag.FlagSet
	stdout, stderr io.Writer
}

// errUsage marks a wrong command line; it was already explained on stderr.
var errUsage = errors.New("wrong command line")

// errSaid marks a failure that the verb already explained on its own.
var errSaid = errors.New("said")

// Exit codes (design.md section 8): 0 yes, 1 no, 2 misuse.
const (
	exitOK = iota
	exitFailure
	exitMisuse
)

func verbs() []verb {
	return []verb{
		{"run", "[--config FILE]", "stand in front of the backend", runVerb},
		{"check", "[--config FILE]", "report every problem of configuration and policy at once", checkVerb},
		{"test", "[--coverage PERCENT] [--run REGEXP] [DIR]", "run the Rego tests beside a policy (default: the embedded one), with coverage", testVerb},
		{"demo", "[--once] [--no-color]", "a wallet backend, a token issuer and Stepward, with the story told", demoVerb},
		{"ledger", "stats|verify|compact [--config FILE]", "look into the ledger of spent tokens, prove that it can be trusted, shrink its file", ledgerVerb},
		{"config", "schema", "print the configuration file's JSON Schema", configVerb},
		{"health", "[--admin ADDRESS]", "ask a running Stepward whether it is ready (for container health checks)", healthVerb},
		{"version", "", "print the version", versionVerb},
	}
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		help(stderr)
		return exitMisuse
	}
	name := args[0]
	if name == "help" || name == "--help" || name == "-h" {
		help(stdout)
		return exitOK
	}
	for _, v := range verbs() {
		if v.name == name {
			return v.run(args[1:], stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "stepward: unknown verb %q; see stepward help\n", name)
	return exitMisuse
}

func (v verb) run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	c := &call{args: args, flags: flag.NewFlagSet("stepward "+v.name, flag.ContinueOnError), stdout: stdout, stderr: stderr}
	c.flags.SetOutput(stderr)
	c.flags.Usage = func() {
		fmt.Fprintf(c.flags.Output(), "usage: stepward %s %s\n\n%s\n", v.name, v.usage, v.summary)
		c.flags.VisitAll(func(f *flag.Flag) {
			fmt.Fprintf(c.flags.Output(), "  --%-12s %s\n", f.Name, f.Usage)
		})
	}
	err := v.do(ctx, c)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		return exitMisuse
	case !errors.Is(err, errSaid):
		fmt.Fprintf(stderr, "stepward: %v\n", err)
	}
	return exitFailure
}

// parse reads the verb's flags and allows at most operands of them; flag itself has explained what is wrong.
func (c *call) parse(operands int) error {
	for _, a := range c.args {
		if a == "--help" || a == "-h" || a == "-help" {
			c.flags.SetOutput(c.stdout)
		}
	}
	if err := c.flags.Parse(c.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if c.flags.NArg() > operands {
		return c.misuse("unexpected argument %q", c.flags.Arg(operands))
	}
	return nil
}

func (c *call) misuse(format string, args ...any) error {
	fmt.Fprintf(c.stderr, "%s: %s\n", c.flags.Name(), fmt.Sprintf(format, args...))
	c.flags.Usage()
	return errUsage
}

func help(w io.Writer) {
	fmt.Fprint(w, `Stepward stands in front of a wallet backend and asks for step-up authentication where the policy says so.

usage: stepward VERB [flags]

`)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-8s %s\n", v.name, v.summary)
	}
	fmt.Fprint(w, `
stepward VERB --help says more. Exit codes: 0 yes, 1 no, 2 wrong command line.
Begin with: stepward demo
`)
}

func versionVerb(_ context.Context, c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "stepward %s\n", version)
	return nil
}
