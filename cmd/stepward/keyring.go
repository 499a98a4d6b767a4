package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/token"
)

// keySource is one issuer's keys and where they come from.
type keySource struct {
	*token.Keys
	issuer string // the first spelling, made unique: it names the keys in logs and metrics
	file   string // "" for a URL
}

// keyring makes the keys of all issuers. Session and elevated tokens of one issuer share theirs; two issuers never do, even
// where they name one URL.
type keyring struct {
	common  token.KeysConfig
	onFetch func(issuer, outcome string)
	sources []*keySource
	byName  map[string]*keySource
}

func newKeyring(c config.JWKS, log *slog.Logger, onFetch func(issuer, outcome string)) *keyring {
	return &keyring{
		common: token.KeysConfig{
			MinRefresh: c.MinRefresh, RefreshEvery: c.RefreshEvery, MaxStale: c.MaxStale, Timeout: c.Timeout, Now: time.Now, Logger: log,
		},
		onFetch: onFetch,
		byName:  map[string]*keySource{},
	}
}

func (k *keyring) issuers(list []config.Issuer) ([]token.Issuer, error) {
	issuers := make([]token.Issuer, 0, len(list))
	for _, i := range list {
		keys, err := k.keys(&i)
		if err != nil {
			return nil, err
		}
		issuers = append(issuers, token.Issuer{
			Environment: i.Environment, Issuer: i.Issuer, Audience: i.Audience, Algorithms: i.Algorithms, Types: i.Types, Keys: keys,
		})
	}
	return issuers, nil
}

func (k *keyring) keys(i *config.Issuer) (*token.Keys, error) {
	kc := k.common
	kc.File = i.JWKSFile
	if i.JWKSURL != nil {
		kc.URL = i.JWKSURL.String()
	}
	name := strings.Join(append([]string{kc.URL, kc.File, i.Environment}, i.Issuer...), "\n")
	if source := k.byName[name]; source != nil {
		return source.Keys, nil
	}
	issuer := i.Issuer[0]
	for n := 2; slices.ContainsFunc(k.sources, func(s *keySource) bool { return s.issuer == issuer }); n++ {
		issuer = fmt.Sprintf("%s#%d", i.Issuer[0], n) // the same name with other keys, for another kind of token
	}
	kc.OnFetch = func(outcome string, _ time.Duration) { k.onFetch(issuer, outcome) }
	keys, err := token.NewKeys(kc)
	if err != nil {
		return nil, err
	}
	source := &keySource{Keys: keys, issuer: issuer, file: kc.File}
	k.byName[name], k.sources = source, append(k.sources, source)
	return keys, nil
}

// checkKeys fetches every issuer's keys once and says what is wrong with them.
func checkKeys(ctx context.Context, cfg *config.Config) []string {
	ring := newKeyring(cfg.JWKS, slog.New(slog.DiscardHandler), func(string, string) {})
	for _, issuers := range [][]config.Issuer{cfg.SessionIssuers(), cfg.ElevatedIssuers(), cfg.MFAIssuers()} {
		if _, err := ring.issuers(issuers); err != nil {
			return []string{err.Error()}
		}
	}
	problems := make([]string, len(ring.sources))
	var wg sync.WaitGroup
	for n, source := range ring.sources {
		wg.Go(func() {
			if source.file != "" {
				return // reading it was making it
			}
			if err := source.Refresh(ctx); err != nil {
				problems[n] = fmt.Sprintf("keys of issuer %s: %v; check the address and that this machine reaches it, or skip this with --offline",
					source.issuer, err)
			}
		})
	}
	wg.Wait()
	var found []string
	for _, p := range problems {
		if p != "" {
			found = append(found, p)
		}
	}
	return found
}

// waitForKeys returns nil once every issuer's keys have been read, and after so long which are missing.
func waitForKeys(ctx context.Context, sources []*keySource, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var errs []error
	for _, source := range sources {
		if err := source.Wait(ctx); err != nil {
			errs = append(errs, fmt.Errorf("keys of issuer %s: %w", source.issuer, err))
		}
	}
	return errors.Join(errs...)
}
