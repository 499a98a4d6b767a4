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
	unseen unseen
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
	return &judge{Config: c, unseen: unseen{log: c.Log, header: c.Credentials.ElevatedHeader}}, nil
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

// changes returns what the asking proxy must do to the client's header before it forwards: names to remove, then values to set.
// No name is in both. Names are in net/http's form.
func (j *judge) changes(a *asked) (remove []string, set map[string]string) {
	set = map[string]string{}
	j.Identity.Tell(&a.verdict, func(name, value string) { set[name] = value })
	set["X-Request-Id"] = a.verdict.RequestID
	kept := a.request.Header // a copy of told that has been stripped
	j.Credentials.Withhold(kept, a.verdict.Preflight)
	gone := map[string]bool{}
	for _, name := range j.withheld(a.verdict.Preflight) {
		gone[name] = true
	}
	for name := range a.told {
		if _, stays := kept[name]; !stays && name != "Host" {
			gone[name] = true
		}
	}
	if cookie := kept["Cookie"]; len(cookie) > 0 && !slices.Equal(cookie, a.told["Cookie"]) {
		set["Cookie"] = strings.Join(cookie, "; ")
	}
	for name := range set {
		delete(gone, name)
	}
	return slices.Sorted(maps.Keys(gone)), set
}

// withheld are the names that are removed whether or not the client sent them: the proxy may know of a copy that it did not tell.
// Each has its twins with underscores, which many backends read alike.
func (j *judge) withheld(preflight bool) []string {
	names := j.Identity.Names()
	c := &j.Credentials
	if !c.ForwardElevated || preflight {
		names = append(names, c.ElevatedHeader)
	}
	if !c.ForwardMFA || preflight {
		names = append(names, c.MFAHeader)
	}
	for _, name := range names {
		if twin := strings.ReplaceAll(name, "-", "_"); twin != name {
			names = append(names, twin)
		}
	}
	return names
}

// answer is a refusal as the reverse-proxy door would write it.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// Header, Write and WriteHeader are http.ResponseWriter's.
func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(p []byte) (int, error) {
	a.body = append(a.body, p...)
	return len(p), nil
}

// refuse words the refusal in the request's profile.
func (j *judge) refuse(a *asked) *answer {
	writer := j.Challenges[a.profile]
	if writer == nil {
		writer = j.Challenges[j.Profile]
	}
	method := a.request.Method
	if method == http.MethodHead { // whoever asked drops the body, and a length without one says nothing
		method = http.MethodGet
	}
	w := &answer{header: http.Header{}}
	writer.Write(w, &http.Request{Method: method, Header: a.told}, &a.verdict)
	return w
}
