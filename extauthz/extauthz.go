// Package extauthz holds the doors where another proxy asks whether it may forward a client's request: Envoy's ext_authz over
// gRPC and over HTTP, and forward auth as nginx, Traefik, Caddy and HAProxy speak it.
//
// Whoever asks is believed about method, target, host and header fields of the client's request, and nothing else is: the target
// goes through the same canonicaliser and the header through the same rules as at the reverse-proxy door, and what cannot be
// judged is refused. There is no second phase in these protocols: an answer that lets a request pass has spent its token.
package extauthz

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/canon"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/internal/reason"
)

// Config is what the doors of this package have in common. Fields without a default are required.
type Config struct {
	Gate  *gate.Gate
	Rules *framing.Rules
	// Challenges words refusals, by profile. Profile is the one for requests that name none.
	Challenges map[challenge.Profile]*challenge.Writer
	Profile    challenge.Profile // default challenge.ProfileSDK

	Credentials door.Credentials
	Identity    door.Identity

	Log *slog.Logger
	Now func() time.Time // default time.Now
}

// judge is the common part of all doors.
type judge struct {
	Config
	unseen   unseen
	identity door.Identity // in lower case
	// Names, in lower case, that are removed whether or not the client sent them: facts and tokens that are spent here, with their
	// twins; and for a proxy that does not tell all, whatever never reaches a backend.
	spent, withheld []string
}

func newJudge(c Config) (*judge, error) {
	if c.Profile == "" {
		c.Profile = challenge.ProfileSDK
	}
	if c.Gate == nil || c.Rules == nil || c.Challenges[c.Profile] == nil {
		return nil, errors.New("extauthz: gate, rules or challenge are missing")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Credentials, c.Identity = c.Credentials.Canonical(), c.Identity.Canonical()
	j := &judge{Config: c, unseen: unseen{log: c.Log, header: c.Credentials.ElevatedHeader}}
	j.identity = door.Identity{
		Subject: strings.ToLower(c.Identity.Subject), Scopes: strings.ToLower(c.Identity.Scopes),
		DecisionID: strings.ToLower(c.Identity.DecisionID), Environment: strings.ToLower(c.Identity.Environment),
	}
	spent := c.Identity.Names()
	if !c.Credentials.ForwardElevated {
		spent = append(spent, c.Credentials.ElevatedHeader)
	}
	if !c.Credentials.ForwardMFA {
		spent = append(spent, c.Credentials.MFAHeader)
	}
	j.spent, j.withheld = withTwins(spent), withTwins(append(c.Rules.Withheld(true), spent...))
	return j, nil
}

// asked is one client's request as the asking proxy tells of it.
type asked struct {
	request gate.Request
	verdict gate.Verdict
	profile challenge.Profile
	told    http.Header // the client's header, as it was told
}

// receive reads the request strictly. It returns "" or why it cannot be judged. h must be in net/http's form.
func (j *judge) receive(a *asked, method, target, host string, h http.Header) reason.Reason {
	q := &a.request
	a.told, q.Header = h, maps.Clone(h)
	q.RequestID = door.RequestID(h, true)
	q.Method = door.SafeMethod(method)
	if err := canon.Method(method); err != nil {
		return reason.AmbiguousRequest
	}
	t, err := canon.ParseTarget(target)
	if err != nil {
		return reason.AmbiguousRequest
	}
	if q.Host, err = canon.Host(host); err != nil {
		return reason.AmbiguousRequest
	}
	q.Path, q.RawQuery = t.Path, t.RawQuery
	if err := j.Rules.Check(h, nil); err != nil {
		return door.FramingReason(err)
	}
	if err := j.Rules.CheckQuery(t.RawQuery); err != nil {
		return door.FramingReason(err)
	}
	switch upgrade := h["Upgrade"]; {
	case len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && method == http.MethodGet:
		q.WebSocket = true
	case len(upgrade) > 0: // any other protocol is a tunnel past the gate
		return reason.UpgradeNotAllowed
	}
	j.Rules.Strip(q.Header, true)
	return ""
}

// decide judges a request that receive has read, or refuses it for why.
func (j *judge) decide(a *asked, why reason.Reason, decide func(*gate.Request, *gate.Verdict)) {
	if why != "" {
		j.Gate.Refuse(&a.request, &a.verdict, why)
		return
	}
	decide(&a.request, &a.verdict)
	// Whoever asked does not come back to say what became of the request. What is let pass now counts as carried out.
	a.verdict.Settle(gate.Outcome{})
}

// field is one header field.
type field struct{ name, value string }

// changes returns what the asking proxy must do to the client's header before it forwards: names to remove, then fields to set. No
// name is in both. Names are in lower case. all says that the proxy may know of fields that it did not tell.
func (j *judge) changes(a *asked, all bool) (remove []string, set []field) {
	set = make([]field, 0, 6)
	add := func(name, value string) { set = append(set, field{name, value}) }
	j.identity.Tell(&a.verdict, add)
	add("x-request-id", a.verdict.RequestID)
	kept := a.request.Header // a copy of told that has been stripped
	j.Credentials.Withhold(kept, a.verdict.Preflight)
	if cookie := kept["Cookie"]; len(cookie) > 0 && !slices.Equal(cookie, a.told["Cookie"]) {
		add("cookie", strings.Join(cookie, "; "))
	}
	always := j.spent
	if all {
		always = j.withheld
	}
	remove = make([]string, 0, len(always)+4)
	isSet := func(name string) bool { return slices.ContainsFunc(set, func(f field) bool { return f.name == name }) }
	for _, name := range always {
		if !isSet(name) {
			remove = append(remove, name)
		}
	}
	for name := range a.told {
		if _, stays := kept[name]; stays || name == "Host" {
			continue
		}
		if name = strings.ToLower(name); !isSet(name) && !slices.Contains(remove, name) {
			remove = append(remove, name)
		}
	}
	return remove, set
}

// withTwins adds to each name, in lower case, its twin with underscores, which many backends read alike.
func withTwins(names []string) []string {
	var list []string
	for _, name := range names {
		name = strings.ToLower(name)
		list = append(list, name)
		if twin := strings.ReplaceAll(name, "-", "_"); twin != name {
			list = append(list, twin)
		}
	}
	return list
}

// answer is a refusal as the reverse-proxy door would write it, but for its status: challenge.Status knows it.
type answer struct {
	header http.Header
	body   []byte
}

// Header, Write and WriteHeader are http.ResponseWriter's.
func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(int) {}

func (a *answer) Write(p []byte) (int, error) {
	a.body = append(a.body, p...)
	return len(p), nil
}

// profileOf is the request's profile, or ours where it names none that there is.
func (j *judge) profileOf(a *asked) challenge.Profile {
	if j.Challenges[a.profile] == nil {
		return j.Profile
	}
	return a.profile
}

// refuse words the refusal in the request's profile.
func (j *judge) refuse(a *asked) *answer {
	writer := j.Challenges[j.profileOf(a)]
	method := a.request.Method
	if method == http.MethodHead { // whoever asked drops the body, and a length without one says nothing
		method = http.MethodGet
	}
	w := &answer{header: http.Header{}}
	writer.Write(w, &http.Request{Method: method, Header: a.told}, &a.verdict)
	return w
}
