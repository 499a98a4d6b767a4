// Package settings learns from a backend how its environments behave: it polls the public GET …/sdk/{environmentId}/settings of
// each, keeps the last good answer, and refuses a minimum API version below it.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
)

// Settings is what Stepward reads of one environment's settings. Values are comparable by Equal and must not be changed.
type Settings struct {
	MinimumAPIVersion  apiversion.Version `json:"minimum_api_version"`
	Locked             bool               `json:"locked,omitempty"`
	DeviceRegistration *bool              `json:"device_registration,omitempty"` // nil: nothing said
	DeviceCookie       *bool              `json:"device_cookie,omitempty"`       // nil: nothing said
	Actions            []Action           `json:"actions"`                       // nil: nothing said
}

// Action is one event for which a token can be demanded.
type Action struct {
	Name     string        `json:"name"`
	Required bool          `json:"required"`
	Token    string        `json:"token,omitempty"`   // "single_use", "time_bound" or "", the operation's own
	MaxAge   time.Duration `json:"max_age,omitempty"` // whole seconds; 0: the operation's own
}

// The uses of a token, as the settings and the policy spell them.
const (
	singleUse = "single_use"
	timeBound = "time_bound"
)

// oldest is in force where an environment names no minimum (dynamic.md f: "below or unset").
const oldest apiversion.Version = "2026_01_01"

const (
	maxActions = 64
	maxExpiry  = 10 * 365 * 24 * 60 * 60 // seconds; beyond it a number is no lifetime
)

// Parse reads the members that matter of a ProjectSettings (sdk-api-core 0.40.0: ProjectSettings, ProjectSettingsSdk,
// ProjectSettingsSecurity, MFASettingsActions, AuthSettings). Others may say and be what they like, also ones that are added
// later; those that matter are understood or the whole is an error. As in the SDK, null is the same as absent.
func Parse(text []byte) (*Settings, error) {
	r := &reader{}
	root := r.object("", text)
	sdk, security := r.section(root, "sdk"), r.section(root, "security")
	s := &Settings{
		MinimumAPIVersion:  r.version(sdk["minApiVersion"]),
		DeviceRegistration: r.boolean("security.deviceRegistrationRequired", security["deviceRegistrationRequired"]),
	}
	locked := r.boolean("security.environmentLocked", security["environmentLocked"])
	s.Locked = locked != nil && *locked
	if auth := security["auth"]; present(auth) {
		cookie := slices.Contains(r.storage(r.object("security.auth", auth)["storage"]), "cookie")
		s.DeviceCookie = &cookie
	}
	if mfa := security["mfa"]; present(mfa) {
		s.Actions = r.actions(r.object("security.mfa", mfa)["actions"])
	}
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

// Equal reports whether two settings say the same.
func (s *Settings) Equal(o *Settings) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.MinimumAPIVersion == o.MinimumAPIVersion && s.Locked == o.Locked && same(s.DeviceRegistration, o.DeviceRegistration) &&
		same(s.DeviceCookie, o.DeviceCookie) && (s.Actions == nil) == (o.Actions == nil) && slices.Equal(s.Actions, o.Actions)
}

func same(a, b *bool) bool { return a == b || a != nil && b != nil && *a == *b }

// loosened names what o demands less than s, apart from the minimum version.
func (s *Settings) loosened(o *Settings) []string {
	var list []string
	if s.Locked && !o.Locked {
		list = append(list, "unlocked")
	}
	if isTrue(s.DeviceRegistration) && !isTrue(o.DeviceRegistration) {
		list = append(list, "device registration is not required")
	}
	for _, was := range s.Actions {
		i := slices.IndexFunc(o.Actions, func(a Action) bool { return a.Name == was.Name })
		is := Action{}
		if i >= 0 {
			is = o.Actions[i]
		}
		switch {
		case was.Required && !is.Required:
			list = append(list, was.Name+" is not required")
		case was.Token == singleUse && is.Token != singleUse:
			list = append(list, was.Name+" is not single-use")
		case was.MaxAge > 0 && (is.MaxAge == 0 || is.MaxAge > was.MaxAge):
			list = append(list, was.Name+" accepts older tokens")
		}
	}
	return list
}

func isTrue(b *bool) bool { return b != nil && *b }

// reader keeps the first fault. Its errors name the member and never its value.
type reader struct{ err error }

func (r *reader) fail(path, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: want %s", path, want)
	}
}

func present(text json.RawMessage) bool { return len(text) > 0 && string(text) != "null" }

// object reads an object that has no member twice, of which readers could take different ones. "" is the document itself.
func (r *reader) object(path string, text []byte) map[string]json.RawMessage {
	members, err := members(text)
	if err != nil && path == "" {
		path = "settings"
	}
	if err != nil {
		r.fail(path, "an object with each member once")
	}
	return members
}

// section reads an object that must be there.
func (r *reader) section(root map[string]json.RawMessage, name string) map[string]json.RawMessage {
	if r.err == nil && !present(root[name]) {
		r.fail(name, "an object; the document is no environment's settings")
	}
	if r.err != nil {
		return nil
	}
	return r.object(name, root[name])
}

var errMembers = errors.New("not an object with each member once")

func members(text []byte) (map[string]json.RawMessage, error) {
	if !json.Valid(text) { // says so of the whole text, where a decoder stops at the object's end
		return nil, errMembers
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errMembers
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, errMembers
		}
		name, _ := key.(string)
		if _, twice := out[name]; twice {
			return nil, errMembers
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errMembers
		}
		out[name] = value
	}
	return out, nil
}

func (r *reader) version(text json.RawMessage) apiversion.Version {
	if !present(text) {
		return oldest
	}
	v, err := apiversion.Parse(r.text("sdk.minApiVersion", text))
	if err != nil {
		r.fail("sdk.minApiVersion", "a dated version such as 2026_04_01")
	}
	return v
}

func (r *reader) text(path string, text json.RawMessage) string {
	var s string
	if !present(text) || json.Unmarshal(text, &s) != nil {
		r.fail(path, "text")
	}
	return s
}

func (r *reader) boolean(path string, text json.RawMessage) *bool {
	if !present(text) {
		return nil
	}
	b := string(text) == "true"
	if !b && string(text) != "false" {
		r.fail(path, "true or false")
	}
	return &b
}

func (r *reader) list(path string, text json.RawMessage) []json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(text, &list) != nil || len(list) > maxActions {
		r.fail(path, fmt.Sprintf("a list of at most %d", maxActions))
		return nil
	}
	return list
}

// storage may hold words that are not known yet.
func (r *reader) storage(text json.RawMessage) []string {
	var words []string
	if present(text) {
		for _, item := range r.list("security.auth.storage", text) {
			words = append(words, r.text("security.auth.storage", item))
		}
	}
	return words
}

func (r *reader) actions(text json.RawMessage) []Action {
	if !present(text) {
		return nil
	}
	out := []Action{}
	for i, item := range r.list("security.mfa.actions", text) {
		a := r.action(fmt.Sprintf("security.mfa.actions[%d]", i), item)
		if slices.ContainsFunc(out, func(b Action) bool { return a.Name == b.Name }) {
			r.fail("security.mfa.actions", "each action once")
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Action) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return out
}

func (r *reader) action(path string, text json.RawMessage) Action {
	m := r.object(path, text)
	a := Action{Name: r.text(path+".action", m["action"])}
	if !isName(a.Name) {
		r.fail(path+".action", "a name such as wallet.waas.sign")
	}
	required := r.boolean(path+".required", m["required"])
	if required == nil {
		r.fail(path+".required", "true or false")
	}
	a.Required = isTrue(required)
	if use := m["tokenBehavior"]; present(use) {
		switch a.Token = r.text(path+".tokenBehavior", use); a.Token {
		case singleUse:
			a.MaxAge = 5 * time.Minute
		case timeBound:
			a.MaxAge = 10 * time.Minute
		default:
			r.fail(path+".tokenBehavior", "single_use or time_bound")
		}
	}
	if expiry := m["tokenExpirySeconds"]; present(expiry) {
		seconds, err := strconv.ParseInt(string(expiry), 10, 64)
		if err != nil || seconds < 1 || seconds > maxExpiry {
			r.fail(path+".tokenExpirySeconds", "a whole number of seconds, 1 or more")
			return a
		}
		a.MaxAge = time.Duration(seconds) * time.Second
	}
	return a
}

// isName reports whether s is fit for policies and logs: letters, digits, dots, dashes, underscores and colons.
func isName(s string) bool {
	for _, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '.' && c != '-' && c != '_' && c != ':' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
