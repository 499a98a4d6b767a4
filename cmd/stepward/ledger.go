package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/postgres"
	"github.com/stepward/stepward/ledger/redis"
)

// openStore opens the ledger that the configuration names.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (ledger.Store, error) {
	o := &c.LedgerOptions
	switch c.Ledger.Kind {
	case config.LedgerRedis:
		s, err := redis.Open(ctx, redis.Config{
			URL: c.Ledger.URL, PasswordFile: o.PasswordFile, CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile, Prefix: o.Prefix,
			Timeout: o.ReserveTimeout, WaitReplicas: o.WaitReplicas, WaitTimeout: o.WaitTimeout, Leeway: c.Leeway, Remember: c.MFA.Remember, Log: log,
		})
		if err != nil {
			return nil, err
		}
		return s, nil
	case config.LedgerPostgres:
		s, err := postgres.Open(ctx, postgres.Config{
			URL: c.Ledger.URL, PasswordFile: o.PasswordFile, Schema: o.Prefix, Timeout: o.ReserveTimeout, Leeway: c.Leeway,
			Remember: c.MFA.Remember, Log: log,
		})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	return ledger.Open(ctx, string(c.Ledger.Kind)+":"+c.Ledger.Path, ledger.Options{
		Capacity: o.Capacity, Leeway: c.Leeway, Remember: c.MFA.Remember,
	})
}

// ledgerVerb looks after the store of spent tokens.
func ledgerVerb(ctx context.Context, c *call) error {
	actions := map[string]func(context.Context, *call, *config.Config) error{
		"stats": ledgerStats, "verify": ledgerVerify, "compact": ledgerCompact,
	}
	path := c.flags.String("config", defaultConfig, "configuration file")
	var action string
	if len(c.args) > 0 && !strings.HasPrefix(c.args[0], "-") {
		action, c.args = c.args[0], c.args[1:]
	}
	if err := c.parse(0); err != nil {
		return err
	}
	do := actions[action]
	if do == nil {
		return c.misuse("want: stepward ledger stats, verify or compact")
	}
	cfg, err := config.Load(*path, config.LoadOptions{})
	if err != nil {
		return err
	}
	return do(ctx, c, cfg)
}

// table prints names and values in two columns.
func (c *call) table(rows ...[2]string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\n", r[0], r[1])
	}
	return w.Flush()
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// ledgerStats prints how full the ledger is. The file of a running Stepward is locked: that one's metrics say it.
func ledgerStats(ctx context.Context, c *call, cfg *config.Config) error {
	switch cfg.Ledger.Kind {
	case config.LedgerMemory:
		return errInMemory(cfg)
	case config.LedgerBolt:
		r, err := ledger.InspectFile(ctx, cfg.Ledger.Path, time.Now())
		if err != nil {
			return errors.Join(err, fmt.Errorf("a running Stepward tells its own: curl http://%s/metrics | grep ^stepward_ledger_", cfg.Admin.Listen))
		}
		return c.table(fileRows(cfg, r)...)
	}
	store, err := openStore(ctx, cfg, newLogger(cfg.Log, c.stderr))
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // nothing of it is used afterwards
	st, err := store.Stats(ctx)
	if err != nil {
		return err
	}
	return c.table([2]string{"ledger", string(cfg.Ledger.Kind)}, [2]string{"tokens remembered", fmt.Sprintf("%d, ones that are over and not yet dropped included", st.Entries)},
		[2]string{"tokens issued before are refused", moment(st.Fence)})
}

func fileRows(cfg *config.Config, r ledger.FileReport) [][2]string {
	o := cfg.LedgerOptions
	return [][2]string{
		{"ledger", cfg.Ledger.Path},
		{"tokens remembered", fmt.Sprintf("%d of %d, %d of them without an outcome", r.Live, o.Capacity, r.Reserved)},
		{"the last is forgotten at", moment(r.LastOver)},
		{"records in the file", fmt.Sprint(r.Records)},
		{"bytes", fmt.Sprint(r.Bytes)},
		{"tokens issued before are refused", moment(r.Began.Add(cfg.Leeway))},
	}
}

func errInMemory(cfg *config.Config) error {
	return fmt.Errorf("ledger: memory: is in the running Stepward alone: curl http://%s/metrics | grep ^stepward_ledger_", cfg.Admin.Listen)
}

// ledgerVerify proves that the ledger can be trusted: a file is read from end to end; a server is asked to keep its promise with
// a key that no token has.
func ledgerVerify(ctx context.Context, c *call, cfg *config.Config) error {
	switch cfg.Ledger.Kind {
	case config.LedgerMemory:
		return errInMemory(cfg)
	case config.LedgerBolt:
		r, err := ledger.InspectFile(ctx, cfg.Ledger.Path, time.Now())
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%s: whole, %d records, every checksum right\n", cfg.Ledger.Path, r.Records)
		return nil
	}
	store, err := openStore(ctx, cfg, newLogger(cfg.Log, c.stderr)) // which says what weakens the server's promise
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // nothing of it is used afterwards
	if err := rehearse(ctx, store); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: takes a key once, tells others that it is taken, and gives it back\n", cfg.Ledger.Kind)
	return nil
}

// rehearse spends a key that no token has, once as it should be and once as it must not be.
func rehearse(ctx context.Context, s ledger.Store) error {
	now := time.Now()
	st, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	issued := now
	if issued.Before(st.Fence) {
		issued = st.Fence
	}
	first := ledger.NewOwner()
	claim := ledger.Claim{
		Key: ledger.KeyOf(ledger.KindNonce, "stepward ledger verify", "", fmt.Sprintf("%x", first)), Owner: first,
		IssuedAt: issued, Until: now.Add(ledger.Margin),
	}
	if err := s.Reserve(ctx, claim); err != nil {
		return fmt.Errorf("ledger: a fresh key is refused: %w", err)
	}
	second := claim
	second.Owner = ledger.NewOwner()
	switch err := s.Reserve(ctx, second); {
	case err == nil:
		return errors.New("ledger: a key that is held was given to another")
	case !errors.Is(err, ledger.ErrReserved):
		return fmt.Errorf("ledger: a key that is held: %w", err)
	}
	if err := s.Release(ctx, claim.Key, first); err != nil {
		return fmt.Errorf("ledger: a key is not given back: %w", err)
	}
	return nil
}

// ledgerCompact gives a file's empty room back to the disk.
func ledgerCompact(ctx context.Context, c *call, cfg *config.Config) error {
	if cfg.Ledger.Kind != config.LedgerBolt {
		return fmt.Errorf("ledger: %s: has no file to compact: the server sees to its own", cfg.Ledger.Kind)
	}
	before, after, err := ledger.CompactFile(ctx, cfg.Ledger.Path, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %d bytes, before %d; %d records\n", cfg.Ledger.Path, after.Bytes, before.Bytes, after.Records)
	return nil
}
