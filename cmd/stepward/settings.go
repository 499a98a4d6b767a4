package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/internal/admin"
	"github.com/stepward/stepward/internal/settings"
	"github.com/stepward/stepward/policy"
)

// newSettings makes the poller of what the backend says of its environments; nil where the configuration does not want it.
func newSettings(cfg *config.Config, c settings.Config) (*settings.Poller, error) {
	u, upstream := cfg.SettingsURL()
	if u == nil {
		return nil, nil //nolint:nilnil // nothing to poll is a good answer
	}
	from := cfg.Environment.Settings
	c.URL, c.AnyAddress, c.Now = u, upstream, time.Now
	c.Environments, c.AllowDowngrade = cfg.SettingsEnvironments(), from.DangerouslyAllowDowngrade
	c.Every, c.Timeout, c.CacheFile = from.Every, from.Timeout, from.CacheFile
	if upstream {
		var err error
		if c.TLS, err = upstreamTLS(cfg.UpstreamTLS); err != nil {
			return nil, err
		}
	}
	return settings.New(c)
}

func (s *service) openSettings() (err error) {
	s.settings, err = newSettings(s.config, settings.Config{
		Apply: s.applySettings, Logger: s.log, OnPoll: s.metrics.SettingsPoll, OnChange: s.metrics.SettingsChange,
	})
	return err
}

// waitForSettings returns when every environment has been asked about, whatever came of it, and whether that was before ctx ended.
func (s *service) waitForSettings(ctx context.Context) bool {
	if s.settings == nil {
		return true
	}
	select {
	case <-s.settings.First():
		return true
	case <-ctx.Done():
		return false
	}
}

// knownSettings are those that the cache holds.
func (s *service) knownSettings() map[string]policy.Synced {
	if s.settings == nil {
		return nil
	}
	return synced(s.settings.Known())
}

func (s *service) applySettings(ctx context.Context, all map[string]*settings.Settings) error {
	if err := s.policy.Sync(ctx, synced(all)); err != nil {
		return inFolder(s.config.Policy.Path, err)
	}
	s.log.Info("policy follows the environment settings", "policy_revision", s.policy.Snapshot().Revision())
	s.warnOfActions()
	s.warnOfLifetimes(all)
	return nil
}

// warnOfActions names actions that nobody will be asked for: those that no operation of the policy has.
func (s *service) warnOfActions() {
	unknown := s.policy.Snapshot().UnknownActions()
	if len(unknown) > 0 && !slices.Equal(unknown, s.unknownActions) {
		s.log.Warn("environment settings name actions that are no operation's mfa_action; they change nothing", "actions", unknown)
	}
	s.unknownActions = unknown
}

// warnOfLifetimes says which tokens the backend would give out and Stepward refuse.
func (s *service) warnOfLifetimes(all map[string]*settings.Settings) {
	for id, of := range all {
		for _, a := range of.Actions {
			if most := s.config.Elevated.MaxLifetime; a.MaxAge > most {
				s.log.Warn("elevated.max_lifetime is less than the lifetime that environment settings give to tokens: they will be refused",
					"environment", id, "action", a.Name, "lifetime", a.MaxAge.String(), "max_lifetime", most.String())
			}
		}
	}
}

// synced is what the policy is told.
func synced(all map[string]*settings.Settings) map[string]policy.Synced {
	out := make(map[string]policy.Synced, len(all))
	for id, s := range all {
		of := policy.Synced{
			MinimumAPIVersion: s.MinimumAPIVersion, Locked: s.Locked, DeviceRegistration: s.DeviceRegistration, DeviceCookie: s.DeviceCookie,
		}
		if s.Actions != nil {
			of.Actions = make([]policy.SyncedAction, len(s.Actions))
		}
		for i, a := range s.Actions {
			of.Actions[i] = policy.SyncedAction{Name: a.Name, Required: a.Required, Token: policy.TokenUse(a.Token), MaxAge: a.MaxAge}
		}
		out[id] = of
	}
	return out
}

// settingsChecks is what /readyz shows: an environment is a reason to wait until it has been asked about once, and no longer.
func (s *service) settingsChecks() []admin.Check {
	if s.settings == nil {
		return nil
	}
	asked := true
	select {
	case <-s.settings.First():
	default:
		asked = false
	}
	var list []admin.Check
	for _, state := range s.settings.States() {
		list = append(list, settingsCheck(state, asked))
	}
	if err := s.settings.CacheError(); err != nil {
		list = append(list, admin.Check{Name: "settings cache", OK: true, Warning: "not written, a restart will not know the last settings: " + err.Error()})
	}
	return list
}

func settingsCheck(state settings.State, asked bool) admin.Check {
	c := admin.Check{Name: "settings of " + state.Environment, OK: asked}
	switch {
	case state.Settings == nil:
		c.Detail = "not read yet; the policy data alone says how it behaves"
	case state.Read.IsZero():
		c.Detail = fmt.Sprintf("minimum API version %s, from the cache", state.Settings.MinimumAPIVersion)
	default:
		c.Detail = fmt.Sprintf("minimum API version %s, read at %s", state.Settings.MinimumAPIVersion, state.Read.UTC().Format(time.RFC3339))
	}
	if state.Err != nil {
		c.Warning = "what was known stays in force: " + state.Err.Error()
	}
	return c
}

func (s *service) registerSettings() {
	if s.settings == nil {
		return
	}
	for i, id := range s.config.SettingsEnvironments() {
		s.metrics.Gauge("stepward_settings_last_success_timestamp_seconds",
			"When the backend last confirmed the settings in force, by environment; 0 is never since the start.", map[string]string{"environment": id},
			func() float64 {
				if at := s.settings.States()[i].Read; !at.IsZero() {
					return float64(at.UnixMilli()) / 1000
				}
				return 0
			})
	}
}

// checkSettings asks once about every environment, and has the policy take the answers.
func checkSettings(ctx context.Context, cfg *config.Config) []string {
	poller, err := newSettings(cfg, settings.Config{
		Apply: func(context.Context, map[string]*settings.Settings) error { return nil }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return []string{err.Error()}
	}
	if poller == nil {
		return nil
	}
	all, errs := poller.Check(ctx)
	problems := make([]string, 0, len(errs))
	for _, err := range errs {
		problems = append(problems, fmt.Sprintf("%v; check environment.settings and that this machine reaches it, or skip this with --offline", err))
	}
	pc := policyConfig(cfg)
	pc.Synced = synced(all)
	if _, err := policy.New(ctx, pc); err != nil {
		for _, line := range lines(inFolder(cfg.Policy.Path, err)) {
			problems = append(problems, "with the settings of the backend's environments: "+line)
		}
	}
	return problems
}
