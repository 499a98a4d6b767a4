package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/ledger/postgres"
	"github.com/stepward/stepward/ledger/redis"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

const defaultConfig = "stepward.yaml"

// checkVerb reports all problems of configuration and policy at once. It opens no socket but those that fetch keys and environment settings.
func checkVerb(ctx context.Context, c *call) error {
	path := c.flags.String("config", defaultConfig, "configuration file")
	offline := c.flags.Bool("offline", false, "do not fetch keys from jwks_url and settings from environment.settings.url")
	if err := c.parse(0); err != nil {
		return err
	}
	cfg, problems := checkConfig(*path)
	if cfg != nil {
		if info, err := os.Stat(cfg.Policy.Path); cfg.Policy.Path == "" || err == nil && info.IsDir() { // else it is said already
			problems = append(problems, checkPolicy(ctx, cfg)...)
		}
		if err := checkAddress(cfg); err != nil {
			problems = append(problems, fmt.Sprintf("%s: ledger: %v", *path, err))
		}
		if !*offline && len(problems) == 0 {
			problems = append(problems, checkKeys(ctx, cfg)...)
			problems = append(problems, checkSettings(ctx, cfg)...)
		}
	}
	for _, p := range problems {
		fmt.Fprintln(c.stdout, p)
	}
	if len(problems) > 0 {
		fmt.Fprintf(c.stdout, "%d problem%s\n", len(problems), plural(len(problems)))
		return errSaid
	}
	warnings := cfg.Warnings()
	if engine, err := policy.New(ctx, policyConfig(cfg)); err == nil { // it was good a moment ago
		if w := warningOfMFA(cfg, engine.Snapshot()); w != "" {
			warnings = append(warnings, w)
		}
	}
	for _, w := range warnings {
		fmt.Fprintf(c.stderr, "warning: %s\n", w)
	}
	fmt.Fprintf(c.stdout, "%s: configuration and policy are good\n", *path)
	return nil
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// checkConfig returns the configuration as far as it can be used for further checks, and what is wrong with it.
func checkConfig(path string) (*config.Config, []string) {
	cfg, problems := config.Check(path, config.LoadOptions{}, config.Disk{})
	if len(problems) == 0 {
		return cfg, nil
	}
	return cfg, lines(problems)
}

// lines are the problems of an error that lists one on each line.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// policyFiles is the operator's policy folder, or the embedded policy.
func policyFiles(path string) fs.FS {
	if path == "" {
		return rego.FS
	}
	return os.DirFS(path)
}

// checkAddress has the store read the address of a server, of which the configuration knows the outline alone.
func checkAddress(cfg *config.Config) error {
	switch cfg.Ledger.Kind {
	case config.LedgerRedis:
		return redis.ParseURL(cfg.Ledger.URL)
	case config.LedgerPostgres:
		return postgres.ParseURL(cfg.Ledger.URL)
	}
	return nil
}

func checkPolicy(ctx context.Context, cfg *config.Config) []string {
	problems := policy.Check(ctx, policyConfig(cfg))
	if len(problems) == 0 {
		return nil
	}
	return lines(inFolder(cfg.Policy.Path, problems))
}

// inFolder puts the policy's folder before the file names of its problems.
func inFolder(folder string, err error) error {
	var list policy.Problems
	if folder == "" || !errors.As(err, &list) {
		return err
	}
	named := slices.Clone(list)
	for i := range named {
		named[i].File = filepath.Join(folder, named[i].File)
	}
	return named
}

// configVerb prints the schema, which editors use to complete and check the file.
func configVerb(_ context.Context, c *call) error {
	if err := c.parse(1); err != nil {
		return err
	}
	if c.flags.Arg(0) != "schema" {
		return c.misuse("want: stepward config schema")
	}
	schema, err := config.Schema()
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(schema)
	return err
}
