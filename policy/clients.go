package policy

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/internal/apiversion"
)

// maxNote is how many bytes the note of a known gap may have, and maxLink an announcement's link: both go into answers that
// must stay small.
const maxNote, maxLink = 400, 300

// announced reads an announcement. A sunset before its deprecation is a fault, as RFC 9745 section 4 has it.
func (d *decoder) announced(v any) *Announcement {
	members, ok := v.(map[string]any)
	if !ok {
		d.fail("announced", "an object with minimum_api_version and deprecation, and perhaps sunset and link")
		return nil
	}
	a := &Announcement{}
	for name, value := range members {
		at := "announced." + name
		switch name {
		case "minimum_api_version":
			a.Version, _ = apiversion.Parse(d.text(at, value))
		case "deprecation":
			a.Deprecation = d.date(at, value)
		case "sunset":
			a.Sunset = d.date(at, value)
		case "link":
			if a.Link = d.text(at, value); !isLink(a.Link) {
				d.fail(at, "an absolute https URL of at most 300 characters")
			}
		default:
			d.fail(at, "minimum_api_version, deprecation, sunset and link, and no other member")
		}
	}
	if a.Version == "" {
		d.fail("announced.minimum_api_version", "a dated version such as 2026_04_01")
	}
	if a.Deprecation.IsZero() {
		d.fail("announced.deprecation", "a date such as 2026-12-01, or a time such as 2026-12-01T09:00:00Z")
	}
	if !a.Sunset.IsZero() && a.Sunset.Before(a.Deprecation) {
		d.fail("announced.sunset", "a time that is not before deprecation")
	}
	return a
}

// date reads a day, which begins at midnight UTC, or a time of RFC 3339.
func (d *decoder) date(name string, v any) time.Time {
	s := d.text(name, v)
	for _, layout := range [...]string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, s); err == nil && at.Unix() > 0 {
			return at.UTC()
		}
	}
	d.fail(name, "a date such as 2026-12-01, or a time such as 2026-12-01T09:00:00Z")
	return time.Time{}
}

// isLink reports whether s can stand between the angle brackets of a Link field (RFC 8288 section 3).
func isLink(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(s) > maxLink {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("<>\"\\", r) })
}

// announced checks what an environment announces: a floor above its own, in dates that follow each other.
func (l *dataLoader) announced(environment *yaml.Node, field string, minimum apiversion.Version) {
	for k, v := range pairs(environment) {
		if k.Value != "announced" {
			continue
		}
		field := below(field, k.Value)
		if !l.mapping(v, field) {
			return
		}
		d := newDecoder()
		a := d.announced(quiet(v))
		if len(d.faults) == 0 && !minimum.Less(a.Version) {
			d.fail("announced.minimum_api_version", fmt.Sprintf("a version above the one in force, %s", minimum))
		}
		for _, name := range slices.Sorted(maps.Keys(d.faults)) {
			_, member, _ := strings.Cut(name, ".")
			l.fault(memberOf(v, member), below(field, member), "is not right", "write "+d.faults[name])
		}
	}
}

// memberOf is the value of a mapping's member, the mapping itself where there is none.
func memberOf(n *yaml.Node, name string) *yaml.Node {
	for k, v := range pairs(n) {
		if k.Value == name {
			return v
		}
	}
	return n
}

func (l *dataLoader) sdkMinimums(v *yaml.Node, field string) {
	if mode, ok := text(v); !ok || !slices.Contains([]string{"off", "advise", "enforce"}, mode) {
		l.fault(v, field, "is none of off, advise and enforce", "write sdk_minimums: advise, or another of them")
	}
}

// sdk notes an SDK's name. One that no client can send would never be met.
func (l *dataLoader) sdk(n *yaml.Node, field, name string) {
	if sdk, err := apiversion.ParseSDK(name + "/0.0.0"); err != nil || sdk.Name != name {
		l.fault(n, field, "is no SDK's name", "write it as the SDK sends it, such as WalletKit or ClientSDK")
		return
	}
	l.out.sdks[name] = true
}

// gaps reads known_gaps: which SDK attaches no elevated token on which routes.
func (l *dataLoader) gaps(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		l.fault(n, "known_gaps", "is not a list", "write a list of {sdk, routes, note, below}")
		return
	}
	routes := map[string]*Route{}
	for r, w := range l.out.written {
		routes[w.key] = r
	}
	for i, item := range n.Content {
		if field := fmt.Sprintf("known_gaps[%d]", i); l.mapping(item, field) {
			l.gap(item, field, routes)
		}
	}
}

func (l *dataLoader) gap(n *yaml.Node, field string, routes map[string]*Route) {
	var g Gap
	var on *yaml.Node
	for k, v := range pairs(n) {
		at := below(field, k.Value)
		switch k.Value {
		case "sdk":
			g.SDK, _ = text(v)
			l.sdk(v, at, g.SDK)
		case "below":
			release, ok := text(v)
			var err error
			if g.Below, err = apiversion.ParseRelease(release); !ok || err != nil {
				l.fault(v, at, "is not a release", `write it as "1.32.0", in quotes: the first release without the gap`)
			}
		case "note":
			if g.Note, _ = text(v); !isNote(g.Note) {
				l.fault(v, at, "is not a short text", fmt.Sprintf("write one line of at most %d bytes", maxNote))
			}
		case "routes":
			on = v
		default:
			l.fault(k, at, "is not a member of a known gap", "use sdk, routes, note or below")
		}
	}
	if g.SDK == "" || g.Note == "" || on == nil || on.Kind != yaml.SequenceNode || len(on.Content) == 0 {
		l.fault(n, field, "is not whole", "name sdk, note, and routes as a list")
		return
	}
	for i, item := range on.Content {
		l.gapOn(item, fmt.Sprintf("%s.routes[%d]", field, i), g, routes)
	}
}

func (l *dataLoader) gapOn(item *yaml.Node, field string, g Gap, routes map[string]*Route) {
	key, _ := text(item)
	r := routes[key]
	switch {
	case r == nil:
		l.fault(item, field, "is no route", "write one of the members of routes, letter by letter")
	case slices.ContainsFunc(r.Gaps, func(o Gap) bool { return o.SDK == g.SDK }):
		l.fault(item, field, fmt.Sprintf("has a gap of %s already", g.SDK), "keep one of them")
	default:
		r.Gaps = append(r.Gaps, g)
	}
}

// isNote reports whether s is one short line: it is shown to whoever reads a challenge.
func isNote(s string) bool {
	return s != "" && len(s) <= maxNote && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
