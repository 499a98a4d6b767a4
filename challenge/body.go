package challenge

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/policy"
)

// maxBody is the promise of standards.md section 1.1: proxies that ask may truncate what is longer.
const maxBody = 2 << 10

// problem is the body: RFC 9457's members, the two that Dynamic's SDK reads (error and code, strings at top level), and ours.
type problem struct {
	Type       string    `json:"type"`
	Title      string    `json:"title"`
	Status     int       `json:"status"`
	Detail     string    `json:"detail,omitempty"`
	Instance   string    `json:"instance"`
	Error      string    `json:"error"`
	Code       string    `json:"code"`
	PolicyCode string    `json:"policy_code,omitempty"`
	Challenge  challenge `json:"challenge"`
	TokenState string    `json:"token_state,omitempty"`
	DecisionID string    `json:"decision_id"`
	RequestID  string    `json:"request_id,omitempty"`
}

// challenge says what the client can do, in members that depend on its kind.
type challenge struct {
	Kind kind `json:"kind"`

	RequiredScopes []scopes `json:"required_scopes,omitempty"`
	SingleUse      *bool    `json:"single_use,omitempty"`
	MaxAge         int      `json:"max_age,omitempty"` // seconds
	TokenHeader    string   `json:"token_header,omitempty"`
	ACRValues      []string `json:"acr_values,omitempty"`
	Methods        []string `json:"methods,omitempty"`
	Action         string   `json:"action,omitempty"` // the old MFA action

	// Alternative is what would do as well.
	Alternative *challenge `json:"alternative,omitempty"`

	State        string `json:"state,omitempty"` // of the device
	SessionScope string `json:"session_scope,omitempty"`
	VerifyURL    string `json:"verify_url,omitempty"`
	// ProofHeaders are those of a proof of the device's key: nonce, key, signature.
	ProofHeaders []string `json:"proof_headers,omitempty"`

	MinimumVersion    string `json:"minimum_version,omitempty"`
	ReceivedVersion   string `json:"received_version,omitempty"`
	SDK               string `json:"sdk,omitempty"`
	MinimumSDKVersion string `json:"minimum_sdk_version,omitempty"`

	RetrySameToken *bool `json:"retry_same_token,omitempty"`

	// For the app's developers, in challenges of every kind.
	Advice           *advice `json:"advice,omitempty"`
	ClientGap        string  `json:"client_gap,omitempty"`
	AnnouncedVersion string  `json:"announced_version,omitempty"`
	Sunset           string  `json:"sunset,omitempty"` // when that comes, RFC 3339
}

// advice says that the SDK is older than the policy advises.
type advice struct {
	Code              string `json:"code"`
	SDK               string `json:"sdk"`
	MinimumSDKVersion string `json:"minimum_sdk_version"`
	ReceivedVersion   string `json:"received_version"`
}

// scopes is one member of required_scopes: a scope, or a list of scopes of which one will do.
type scopes policy.Choice

func (s scopes) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]string(s))
}

// noRequirement stands in for a request that was refused before the policy spoke.
var noRequirement policy.Requirement

func (w *Writer) problem(v *gate.Verdict, r *row, status int) *problem {
	q := v.Requirement
	if q == nil {
		q = &noRequirement
	}
	p := &problem{
		Type: w.config.TypeBase + strings.ReplaceAll(string(r.reason), "_", "-"), Title: r.title, Status: status, Detail: r.detail,
		Instance: "urn:uuid:" + uuid(v.DecisionID), Error: r.title, Code: string(r.reason),
		Challenge: challenge{Kind: r.kind}, DecisionID: v.DecisionID, RequestID: v.RequestID,
	}
	c := &p.Challenge
	switch r.kind {
	case kindStepUp:
		w.stepUp(c, q)
		p.Detail = stepUpDetail(r, v, q)
	case kindMFA:
		w.mfa(c, q)
		p.Detail = mfaDetail(v, q)
	case kindDevice:
		w.device(c, r, v)
	case kindUpgrade:
		upgrade(c, r, v, q)
	}
	inform(c, v, q)
	if r.reason == reason.Forbidden && q.Deny != nil {
		p.PolicyCode, p.Detail = q.Deny.Code, q.Deny.Message
	}
	asked := r.kind == kindStepUp || r.kind == kindMFA
	if asked || v.TokenState != gate.TokenAbsent {
		p.TokenState = string(v.TokenState)
	}
	if !asked && p.TokenState != "" { // the request failed for another reason: what is the token still good for?
		same := v.TokenState == gate.TokenUnused
		c.RetrySameToken = &same
	}
	return p
}

func inform(c *challenge, v *gate.Verdict, q *policy.Requirement) {
	if v.Advised != "" {
		c.Advice = &advice{string(reason.SDKVersionTooOld), v.SDK, string(v.Advised), v.SDKVersion}
	}
	if v.Gap != nil {
		c.ClientGap = v.Gap.Note
	}
	if a := q.Announced; a != nil {
		c.AnnouncedVersion = string(a.Version)
		if !a.Sunset.IsZero() {
			c.Sunset = a.Sunset.UTC().Format(time.RFC3339)
		}
	}
}

func (w *Writer) stepUp(c *challenge, q *policy.Requirement) {
	for _, choice := range q.Scopes {
		c.RequiredScopes = append(c.RequiredScopes, scopes(choice))
	}
	single := q.Token == policy.SingleUse
	c.SingleUse = &single
	c.MaxAge = int(q.MaxAge / time.Second)
	c.TokenHeader = w.config.TokenHeader
	c.ACRValues = w.config.ACRValues
	c.Methods = w.methods(q)
}

// device says what registers a device, or what proves that it is one.
func (w *Writer) device(c *challenge, r *row, v *gate.Verdict) {
	c.State = string(v.DeviceState)
	if r.reason != reason.DeviceVerificationRequired {
		for _, name := range gate.DeviceProofHeaders() {
			c.ProofHeaders = append(c.ProofHeaders, strings.ToLower(name))
		}
		return
	}
	c.SessionScope, c.VerifyURL, c.Methods = w.config.SessionScope, w.config.VerifyURL, []string{"email"}
}

// mfa offers the elevated token too where the policy accepts one, so that the client may choose.
func (w *Writer) mfa(c *challenge, q *policy.Requirement) {
	c.Action, c.TokenHeader, c.Methods = q.MFAAction, w.config.MFAHeader, w.methods(q)
	if len(q.Scopes) > 0 {
		c.Alternative = &challenge{Kind: kindStepUp}
		w.stepUp(c.Alternative, q)
		c.Alternative.Methods = nil // the same
	}
}

func (w *Writer) methods(q *policy.Requirement) []string {
	if len(q.Methods) > 0 {
		return q.Methods
	}
	return w.config.Methods
}

func stepUpDetail(r *row, v *gate.Verdict, q *policy.Requirement) string {
	var s strings.Builder
	s.WriteString("This operation needs ")
	switch r.reason {
	case reason.ElevatedTokenExpired, reason.ElevatedTokenConsumed, reason.ElevatedTokenInvalid:
		s.WriteString("a new elevated access token with scope ")
	default:
		s.WriteString("an elevated access token with scope ")
	}
	writeScopes(&s, q)
	if r.reason == reason.ElevatedTokenRequired && v.TokenState == gate.TokenUnused {
		s.WriteString(fenced)
	}
	s.WriteByte('.')
	return s.String()
}

// fenced explains why a good token was not enough.
const fenced = ": the one that was sent is older than the memory of what has been spent"

func writeScopes(s *strings.Builder, q *policy.Requirement) {
	for i, choice := range q.Scopes {
		if i > 0 {
			s.WriteString(" and ")
		}
		s.WriteString(strings.Join(choice, " or "))
	}
}

func mfaDetail(v *gate.Verdict, q *policy.Requirement) string {
	var s strings.Builder
	s.WriteString("This operation needs an MFA token for the action " + q.MFAAction)
	if len(q.Scopes) > 0 {
		s.WriteString(", or an elevated access token with scope ")
		writeScopes(&s, q)
	}
	if v.Reason == reason.MFATokenRequired && v.TokenState == gate.TokenUnused {
		s.WriteString(fenced)
	}
	s.WriteByte('.')
	return s.String()
}

func upgrade(c *challenge, r *row, v *gate.Verdict, q *policy.Requirement) {
	if r.reason != reason.SDKVersionTooOld {
		c.MinimumVersion, c.ReceivedVersion = string(q.MinimumAPIVersion), v.ReceivedVersion
		return
	}
	c.SDK, c.ReceivedVersion, c.MinimumSDKVersion = v.SDK, v.ReceivedVersion, string(q.MinimumSDK[v.SDK])
}

// uuid writes a decision id, 32 hexadecimal digits, as RFC 9562 does.
func uuid(id string) string {
	if len(id) != 32 {
		return "00000000-0000-0000-0000-000000000000"
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// encode keeps the body below maxBody, giving up first what a client can do without: it comes from the operator's policy
// and configuration, which may be long.
func (p *problem) encode() []byte {
	body := p.marshal()
	for _, drop := range []func(){
		func() { p.Detail = "" },
		func() { p.Challenge.Methods, p.Challenge.ACRValues = nil, nil },
		func() { p.Challenge.Alternative = nil },
		func() { p.Challenge.VerifyURL = "" },
		func() { p.Challenge.ClientGap = "" },
		func() { p.Challenge.RequiredScopes = nil },
	} {
		if len(body) < maxBody {
			break
		}
		drop()
		body = p.marshal()
	}
	return body
}

func (p *problem) marshal() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // the media type is not HTML, and nosniff says so
	_ = enc.Encode(p)        // strings, numbers and lists always encode
	return b.Bytes()
}
