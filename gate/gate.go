// Package gate decides whether one request may pass.
//
// Rego says what a request must bring; the gate proves that it brings it, cheapest proof first, and spends a single-use
// token last: nothing that can fail stands between the reservation and sending the request. A request is judged in one
// pass against one policy snapshot, and the first failure answers, in the order of Decide.
package gate

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/canon"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/token"
)

// Gate judges requests. It is safe for concurrent use. A nil or zero Gate refuses everything.
type Gate struct {
	config Config
	pool   sync.Pool
}

// New checks the configuration and returns a gate.
func New(c Config) (*Gate, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.setDefaults()
	g := &Gate{config: c}
	g.pool.New = func() any { return new(decision) }
	return g, nil
}

// decision is the scratch of one request.
type decision struct {
	now      time.Time
	snapshot *policy.Snapshot
	match    policy.Match
	input    policy.Input

	sessionToken string
	session      *token.Claims // nil unless proven
	sessionErr   error         // why session is nil; nil, nil means that none was sent

	environment environment
	declared    apiversion.Declaration
	declaredErr error
	sdk         apiversion.SDK

	nonce   nonce      // of a proof that the requirement asks for
	claimed bool       // a reservation was tried, for
	key     ledger.Key // this key

	record decisionlog.Record
}

// Decide judges r and fills v, which must be a zero Verdict that the caller owns. The context carries the client's
// cancellation to policy evaluation and key lookups; the reservation runs under its own deadline. After an allowed verdict
// the caller must Settle it.
func (g *Gate) Decide(ctx context.Context, r *Request, v *Verdict) {
	if g == nil || g.config.Policy == nil {
		v.Reason = reason.PolicyError
		return
	}
	d, _ := g.pool.Get().(*decision)
	d.now = g.config.Now()
	began := time.Now()
	g.begin(r, v)

	why := g.judge(ctx, r, v, d)
	g.inform(r, v, d, why)
	v.Reason = why
	v.Allow = why == reason.None
	if why != reason.None && g.rehearsed(ctx, r, v, d, why) {
		v.Allow, v.Shadow = true, true
	}
	if err := g.record(r, v, d, "decision", time.Since(began)); err != nil && g.config.RecordIntent && v.spend == nil && v.Allow {
		v.Allow, v.Shadow, v.Reason = false, false, reason.DecisionLogUnavailable
	}
	g.config.Observe(v, time.Since(began))

	*d = decision{match: policy.Match{Params: d.match.Params[:0]}}
	g.pool.Put(d)
}

// Refuse fills v with a refusal that the door itself decided (a target that is not canonical, a framing fault), so that it
// is recorded and counted like every other.
func (g *Gate) Refuse(r *Request, v *Verdict, why reason.Reason) {
	began := time.Now()
	g.begin(r, v)
	v.Allow, v.Reason = false, why
	_ = g.record(r, v, &decision{now: g.config.Now()}, "decision", 0) // the request is refused either way
	g.config.Observe(v, time.Since(began))
}

func (g *Gate) begin(r *Request, v *Verdict) {
	var id [16]byte                                      // unique, not secret: math/rand/v2 is ChaCha8 with the system's entropy, without a lock
	binary.NativeEndian.PutUint64(id[:], rand.Uint64())  //nolint:gosec // see above
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64()) //nolint:gosec // see above
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80      // a UUID of version 4 (RFC 9562 section 5.4), which challenges show it as
	v.DecisionID = hex.EncodeToString(id[:])
	v.RequestID = cmp.Or(r.RequestID, v.DecisionID)
	v.TokenState = TokenAbsent
}

// judge is the order of refusal (design.md section 10, item 3): framing, route, body, Rego, floor, SDK, session,
// environment, additional auth, device, policy deny, whether the session stands, device proof, elevated token, reserve.
func (g *Gate) judge(ctx context.Context, r *Request, v *Verdict, d *decision) reason.Reason {
	d.snapshot = g.config.Policy()
	if d.snapshot == nil {
		return reason.PolicyError
	}
	if isPreflight(r, d) {
		v.Preflight = true
		return reason.None
	}
	if why := g.route(r, v, d); why != reason.None {
		return why
	}
	if v.Route == nil { // only with DangerouslyPassUnmatched
		return reason.None
	}
	if why := g.body(r, d); why != reason.None {
		return why
	}
	if why := g.facts(ctx, r, v, d); why != reason.None {
		return why
	}
	q, err := d.snapshot.Require(ctx, &d.input)
	if err != nil {
		g.config.Log.DebugContext(ctx, "policy refused to answer", "route", v.Route.Pattern, "error", err)
		return reason.PolicyError
	}
	if q == nil || q.Operation == "" {
		return reason.PolicyError
	}
	v.Requirement = q
	if r.Method == http.MethodHead && spends(q) {
		v.Allowed = []string{http.MethodGet}
		return reason.MethodNotAllowed
	}
	if why := g.floors(v, d, q); why != reason.None {
		return why
	}
	if why := g.signedIn(v, d, q); why != reason.None {
		return why
	}
	if q.Deny != nil {
		return reason.Forbidden
	}
	if spends(q) && r.Header.Get("Early-Data") == "1" { // RFC 8470: replayable by anybody on the way
		return reason.TooEarly
	}
	if why := g.standing(ctx, r, v, d, q); why != reason.None {
		return why
	}
	if why := g.proveDevice(r, d, q); why != reason.None {
		return why
	}
	if needsToken(q) {
		if why := g.stepUp(ctx, r, v, d, q); why != reason.None {
			return why
		}
	}
	return g.spendNonce(ctx, r, v, d, q)
}

func needsToken(q *policy.Requirement) bool { return len(q.Scopes) > 0 || q.MFAAction != "" }

// spends reports whether a request that meets the requirement may use something up.
func spends(q *policy.Requirement) bool { return needsToken(q) || q.DeviceProof }

// isPreflight reports whether a browser asks whether it may send a request that has a route (Fetch standard, CORS-preflight
// fetch). Where the policy has a route for OPTIONS itself, that judges.
func isPreflight(r *Request, d *decision) bool {
	if r.Method != http.MethodOptions || r.Header.Get("Origin") == "" {
		return false
	}
	method := r.Header.Get("Access-Control-Request-Method")
	if method == "" || canon.Method(method) != nil {
		return false
	}
	d.snapshot.Match(http.MethodOptions, r.Path, &d.match)
	if d.match.Ambiguous || d.match.Route != nil && d.match.Route.Method == http.MethodOptions {
		return false
	}
	d.snapshot.Match(method, r.Path, &d.match)
	return d.match.Route != nil && !d.match.Ambiguous
}

func (g *Gate) route(r *Request, v *Verdict, d *decision) reason.Reason {
	d.snapshot.Match(r.Method, r.Path, &d.match)
	v.Route = d.match.Route
	switch {
	case d.match.Ambiguous:
		return reason.AmbiguousRequest
	case v.Route == nil && len(d.match.Allow) > 0:
		v.Allowed = d.match.Allow
		return reason.MethodNotAllowed
	case v.Route == nil && g.config.DangerouslyPassUnmatched:
		return reason.None
	case v.Route == nil:
		return reason.RouteUnmatched
	case r.WebSocket && !v.Route.WebSocket:
		return reason.UpgradeNotAllowed
	}
	return reason.None
}

func (g *Gate) body(r *Request, d *decision) reason.Reason {
	limit := d.match.Route.ReadBody
	if limit <= 0 {
		return reason.None
	}
	if r.ReadBody == nil {
		return reason.BodyUnreadable
	}
	data, err := r.ReadBody(limit)
	switch {
	case errors.Is(err, ErrBodyTooLarge):
		return reason.BodyTooLarge
	case err != nil:
		return reason.BodyUnreadable
	}
	if d.input.Body, err = parseBody(r.Header, data); err != nil {
		return reason.BodyUnreadable
	}
	return reason.None
}

// facts gathers what the policy may ask about. A session that cannot be proven is remembered, not raised: the policy is
// asked without it, so that a stale token never locks a user out of signing in.
func (g *Gate) facts(ctx context.Context, r *Request, v *Verdict, d *decision) reason.Reason {
	if why := g.proveSession(ctx, r, d); why != reason.None {
		return why
	}
	if d.session != nil {
		v.Subject, v.SessionExpires = d.session.Subject, d.session.Expires
	}
	if why := registrationToken(r.Header); why != reason.None {
		return why
	}
	var version, sdk string
	var ok bool
	if version, ok = single(r.Header, g.config.Client.APIVersionHeader); !ok {
		return reason.InvalidRequest
	}
	if sdk, ok = single(r.Header, g.config.Client.SDKVersionHeader); !ok {
		return reason.InvalidRequest
	}
	d.declared, d.declaredErr = apiversion.ParseDeclaration(version)
	d.sdk = g.sdkOf(sdk, r.Header, d.session)
	v.SDK, v.SDKVersion = d.sdk.Name, string(d.sdk.Release)
	if d.environment = g.environmentOf(r, d); d.environment.faulty() && d.environment.repeated {
		return reason.InvalidRequest
	}
	v.Environment = d.environment.id
	v.EnvironmentProven = d.session != nil || g.config.Environment.Fixed != ""
	v.DeviceState = g.deviceState(d.session)
	d.input = policy.Input{
		Match: &d.match, Method: r.Method, Path: r.Path, RawQuery: r.RawQuery, Host: r.Host, Header: r.Header,
		Body:        d.input.Body,
		Environment: d.environment.id,
		Client:      policy.Client{APIVersion: string(d.declared.Version), SDK: d.sdk.Name, SDKVersion: string(d.sdk.Release)},
		Device:      policy.Device{State: v.DeviceState},
	}
	if d.session != nil {
		d.input.Session = d.session.Members
		d.input.Device.ID, _ = d.session.Members["deviceRegistrationId"].(string)
	}
	return reason.None
}

// floors only ever adds refusals: what a client declares never changes which behaviour is in force.
func (g *Gate) floors(v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	switch {
	case d.declaredErr != nil:
		return reason.APIVersionInvalid
	case q.MinimumAPIVersion == "":
	case d.declared.Version == "" && g.config.Client.DenyUndeclared,
		d.declared.Version != "" && d.declared.Version.Less(q.MinimumAPIVersion):
		v.ReceivedVersion = string(d.declared.Version)
		return reason.APIVersionBelowFloor
	}
	if minimum, ok := q.MinimumSDK[d.sdk.Name]; ok && d.sdk.Name != "" && d.sdk.Release.Less(minimum) {
		v.ReceivedVersion = string(d.sdk.Release)
		return reason.SDKVersionTooOld
	}
	return reason.None
}

// signedIn proves session, environment and device as far as the requirement asks for them.
func (g *Gate) signedIn(v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	if q.Session && d.session == nil {
		return sessionFailure(d.sessionErr)
	}
	if d.environment.faulty() {
		return reason.EnvironmentMismatch
	}
	if d.snapshot.Environment(v.Environment).Locked {
		return reason.EnvironmentLocked
	}
	if !q.Session || q.Device == policy.DeviceAny {
		return reason.None
	}
	if scope := g.config.Device.AdditionalAuthScope; scope != "" && d.session.HasScope(scope) {
		return reason.AdditionalAuthRequired
	}
	if v.DeviceState != policy.Registered {
		return reason.DeviceVerificationRequired
	}
	return reason.None
}

func (g *Gate) deviceState(session *token.Claims) policy.DeviceState {
	switch {
	case session == nil:
		return policy.DeviceUnknown
	case session.HasScope(g.config.Device.UnregisteredScope):
		return policy.Unregistered
	case session.HasScope(g.config.Device.RegisteredScope):
		return policy.Registered
	}
	return policy.DeviceUnknown
}

// rehearsed reports whether a refusal is only noted because the request's environment is in shadow mode. Framing rules
// hold all the same, and an environment that only a header names is nobody's word.
func (g *Gate) rehearsed(ctx context.Context, r *Request, v *Verdict, d *decision, why reason.Reason) bool {
	switch why {
	case reason.InvalidRequest, reason.AmbiguousRequest, reason.MethodNotAllowed, reason.UpgradeNotAllowed,
		reason.BodyUnreadable, reason.BodyTooLarge:
		return false
	case reason.RouteUnmatched:
		if g.facts(ctx, r, v, d) != reason.None {
			return false
		}
	}
	if r.Shadow {
		return true
	}
	if d.snapshot == nil || !d.environment.trusted || d.environment.faulty() {
		return false
	}
	return d.snapshot.Environment(d.environment.id).Shadow
}

// record fills and hands over the decision record; the log copies what it keeps.
func (g *Gate) record(r *Request, v *Verdict, d *decision, phase string, took time.Duration) error {
	d.record = decisionlog.Record{
		Time: d.now, Phase: phase, DecisionID: v.DecisionID, RequestID: v.RequestID, Method: r.Method,
		Environment: v.Environment, Outcome: v.Outcome(), Reason: string(v.Reason), SDK: d.sdk.Name,
		SDKVersion: string(d.sdk.Release), SDKAdvised: string(v.Advised), SDKGap: v.Gap != nil, GateDuration: took,
	}
	rec := &d.record
	if phase == "intent" { // written before there is a verdict
		rec.Outcome, rec.Reason = "", ""
	}
	if d.snapshot != nil {
		rec.Revision = d.snapshot.Revision()
	}
	rec.Operation = v.Operation()
	if v.Route != nil {
		rec.Route = v.Route.Pattern
	}
	if q := v.Requirement; q != nil {
		for _, choice := range q.Scopes {
			rec.Scopes = append(rec.Scopes, choice[0])
		}
		if q.Deny != nil {
			rec.PolicyCode = q.Deny.Code
		}
	}
	if v.WouldNeed {
		rec.WouldNeed = "step_up"
	}
	if v.Subject != "" {
		rec.SubjectHash = g.config.Hash("sub", v.Subject)
	}
	if d.claimed {
		rec.TokenID = g.config.Hash("token", string(d.key[:]))
	}
	if v.spend != nil {
		rec.TokenState = string(TokenReserved)
	}
	return g.config.Record(rec)
}
