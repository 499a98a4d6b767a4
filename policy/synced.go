package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/internal/apiversion"
)

// Synced is what a backend says of one of its environments. It lies under what the data says of that environment and over
// `default`: a value that the operator wrote always wins. What it leaves at zero, nothing is said of.
type Synced struct {
	MinimumAPIVersion apiversion.Version
	Locked            bool
	// DeviceRegistration and DeviceCookie are nil where nothing is said.
	DeviceRegistration, DeviceCookie *bool
	// Actions are all that are configured; nil says nothing, and empty that none needs a token.
	Actions []SyncedAction
}

// SyncedAction is one of the actions that operations name as mfa_action.
type SyncedAction struct {
	Name     string
	Required bool
	Token    TokenUse      // AnyUse: the operation's own
	MaxAge   time.Duration // 0: the operation's own; otherwise whole seconds, beyond a day taken for a day
}

// Sync puts what a backend says of its environments, by id, in the place of what it said before. The snapshot is built anew from
// the files of the one in force, probed and swapped as Reload does it: files that are being edited cannot keep a floor from
// rising. On error everything stays. The map is kept and must not be changed afterwards.
func (e *Engine) Sync(ctx context.Context, synced map[string]Synced) error {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	current := e.Snapshot()
	if current == nil {
		return errors.New("policy: sync: the engine was not made by New")
	}
	if len(synced) == 0 && len(e.config.Synced) == 0 || reflect.DeepEqual(synced, e.config.Synced) {
		return nil
	}
	c := e.config
	c.Synced = synced
	snap, err := build(ctx, &c, current.files, nil)
	if err != nil {
		return err
	}
	e.config.Synced = synced
	e.current.Store(snap)
	return nil
}

// UnknownActions lists the synced actions that no operation of this policy names, sorted. They change nothing.
func (s *Snapshot) UnknownActions() []string {
	if s == nil {
		return nil
	}
	return slices.Clone(s.data.unknownActions)
}

// files are the texts of a policy folder, and their hash.
type files struct {
	found    []source
	revision string
}

// revisionOf tells apart policies that differ by their files or by what was synced: files, or files and synced.
func revisionOf(files string, synced map[string]Synced) string {
	if len(synced) == 0 {
		return files
	}
	text, err := json.Marshal(synced) // with its keys in order
	if err != nil {
		panic(err) // plain values
	}
	digest := sha256.Sum256(text)
	return files + "+" + hex.EncodeToString(digest[:4])
}

// lay puts what was synced under the environments of a data file, as if the operator had written it there, so that all that is
// checked and read afterwards sees one document.
func (l *dataLoader) lay(root *yaml.Node, synced map[string]Synced) {
	if len(synced) == 0 || root.Kind != yaml.MappingNode {
		return
	}
	actions := operationsByAction(root)
	unknown := map[string]bool{}
	environments := newMapping()
	for _, id := range slices.Sorted(maps.Keys(synced)) {
		member(environments, id, synced[id].members(actions, unknown))
	}
	l.out.unknownActions = slices.Sorted(maps.Keys(unknown))
	under(root, "environments", environments)
}

// operationsByAction are the operations that name each mfa_action; nil where the policy keeps no operations in its data.
func operationsByAction(root *yaml.Node) map[string][]string {
	operations := child(root, "operations")
	if operations == nil || operations.Kind != yaml.MappingNode {
		return nil
	}
	by := map[string][]string{}
	for name, operation := range pairs(operations) {
		if operation.Kind != yaml.MappingNode {
			continue
		}
		if action := child(operation, "mfa_action"); action != nil {
			by[action.Value] = append(by[action.Value], name.Value)
		}
	}
	return by
}

// members writes an environment as data.yaml has it.
func (s Synced) members(operations map[string][]string, unknown map[string]bool) *yaml.Node {
	out := newMapping()
	if s.MinimumAPIVersion != "" {
		member(out, "minimum_api_version", newText(string(s.MinimumAPIVersion)))
	}
	if s.Locked { // its absence does not unlock what default locks
		member(out, "locked", newBool(true))
	}
	if s.DeviceRegistration != nil {
		member(out, "device_registration", newBool(*s.DeviceRegistration))
	}
	if s.DeviceCookie != nil {
		member(out, "device_cookie", newBool(*s.DeviceCookie))
	}
	if s.Actions == nil {
		return out
	}
	required := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	use, age := newMapping(), newMapping()
	for _, a := range s.Actions {
		if operations != nil && operations[a.Name] == nil {
			unknown[a.Name] = true
			continue
		}
		if a.Required {
			required.Content = append(required.Content, newText(a.Name))
		}
		for _, operation := range operations[a.Name] {
			if a.Token != AnyUse {
				member(use, operation, newText(string(a.Token)))
			}
			if seconds := min(int64(a.MaxAge/time.Second), maxMaxAge); seconds > 0 {
				member(age, operation, newInt(seconds))
			}
		}
	}
	member(out, "mfa_actions", required)
	for name, overrides := range map[string]*yaml.Node{"token": use, "max_age": age} {
		if len(overrides.Content) > 0 {
			member(out, name, overrides)
		}
	}
	return out
}

// under lays a value under a member of a mapping: what stands there stays, mappings are joined member by member.
func under(mapping *yaml.Node, key string, value *yaml.Node) {
	there := child(mapping, key)
	switch {
	case there == nil:
		member(mapping, key, value)
	case there.Kind == yaml.MappingNode && value.Kind == yaml.MappingNode:
		for k, v := range pairs(value) {
			under(there, k.Value, v)
		}
	}
}

func child(mapping *yaml.Node, key string) *yaml.Node {
	for k, v := range pairs(mapping) {
		if k.Value == key {
			return v
		}
	}
	return nil
}

func member(mapping *yaml.Node, key string, value *yaml.Node) {
	mapping.Content = append(mapping.Content, newText(key), value)
}

func newMapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

func newText(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func newBool(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(b)}
}

func newInt(i int64) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(i, 10)}
}
