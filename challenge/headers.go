package challenge

import (
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/policy"
)

// maxMirror bounds Step-Up-Challenge, so that it fits the header buffers of proxies.
const maxMirror = 1 << 10

// authenticate returns the WWW-Authenticate challenge, or "" where none applies. Parameter values are the operator's own
// text and scopes, whose alphabet has nothing to escape.
func (w *Writer) authenticate(v *gate.Verdict, r *row) string {
	if r.bearer == bearerNone {
		return ""
	}
	var s strings.Builder
	s.WriteString("Bearer")
	separator := " "
	add := func(name, value string) {
		if value != "" && isQuotable(value) {
			s.WriteString(separator)
			s.WriteString(name)
			s.WriteString(`="`)
			s.WriteString(value)
			s.WriteByte('"')
			separator = ", "
		}
	}
	add("realm", w.config.Realm)
	if r.bearer != bearerBare {
		add("error", r.bearer)
		if r.bearer != bearerInvalidRequest {
			add("error_description", r.title)
		}
	}
	switch r.kind {
	case kindStepUp, kindMFA: // with scopes, an elevated token is accepted in place of an MFA token
		if q := v.Requirement; q != nil {
			add("scope", firstOfEach(q.Scopes))
			if r.bearer == bearerInsufficientAuth && len(q.Scopes) > 0 {
				add("acr_values", strings.Join(w.config.ACRValues, " "))
				if seconds := int(q.MaxAge / time.Second); seconds > 0 {
					add("max_age", strconv.Itoa(seconds))
				}
			}
		}
	case kindDevice:
		add("scope", w.config.SessionScope)
	}
	add("resource_metadata", w.config.ResourceMetadata)
	return s.String()
}

// firstOfEach names the first scope of each choice: scope is a conjunction (RFC 6750 section 3).
func firstOfEach(choices []policy.Choice) string {
	first := make([]string, 0, len(choices))
	for _, choice := range choices {
		if len(choice) > 0 {
			first = append(first, choice[0])
		}
	}
	return strings.Join(first, " ")
}

// mirror is the body's essence as a structured field (RFC 9651, a dictionary), for doors that drop bodies:
//
//	Step-Up-Challenge: code=elevated_access_token_required, kind=step_up, id="5f…", scope=("wallet:export"), single_use
func mirror(p *problem) string {
	for _, withScopes := range []bool{true, false} {
		if s := mirrorWith(p, withScopes); s != "" && len(s) <= maxMirror {
			return s
		}
	}
	return "code=" + p.Code + ", kind=" + string(p.Challenge.Kind)
}

func mirrorWith(p *problem, withScopes bool) string {
	d := httpsfv.NewDictionary()
	add := func(name, value string) {
		if value != "" {
			d.Add(name, httpsfv.NewItem(value))
		}
	}
	c := &p.Challenge
	d.Add("code", httpsfv.NewItem(httpsfv.Token(p.Code)))
	d.Add("kind", httpsfv.NewItem(httpsfv.Token(string(c.Kind))))
	add("id", p.DecisionID)
	if list := innerList(c.RequiredScopes); withScopes && len(list.Items) > 0 {
		d.Add("scope", list)
	}
	if c.SingleUse != nil {
		d.Add("single_use", httpsfv.NewItem(*c.SingleUse))
	}
	if c.MaxAge > 0 {
		d.Add("max_age", httpsfv.NewItem(c.MaxAge))
	}
	add("token_header", c.TokenHeader)
	add("action", c.Action)
	if c.Alternative != nil {
		d.Add("alternative", httpsfv.NewItem(httpsfv.Token(string(c.Alternative.Kind))))
		if list := innerList(c.Alternative.RequiredScopes); withScopes && len(list.Items) > 0 {
			d.Add("scope", list)
		}
		add("alternative_token_header", c.Alternative.TokenHeader)
	}
	add("state", c.State)
	add("session_scope", c.SessionScope)
	add("minimum_version", c.MinimumVersion)
	add("sdk", c.SDK)
	add("minimum_sdk_version", c.MinimumSDKVersion)
	if p.Challenge.Kind == kindStepUp || p.Code == string(reason.ConsumptionStateUnknown) {
		add("token_state", p.TokenState)
	}
	s, err := httpsfv.Marshal(d)
	if err != nil { // a scope outside ASCII, which the policy loader refuses
		return ""
	}
	return s
}

// innerList has the first scope of each choice.
func innerList(choices []scopes) httpsfv.InnerList {
	list := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, choice := range choices {
		if len(choice) > 0 {
			list.Items = append(list.Items, httpsfv.NewItem(choice[0]))
		}
	}
	return list
}
