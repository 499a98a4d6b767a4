package decisionlog

import "time"

// Record is one decision. It never holds a token, a jti, a query string or a raw path: Route is the matched pattern, and
// TokenID a keyed hash.
type Record struct {
	Time         time.Time     `json:"time"`
	Phase        string        `json:"phase"` // "decision"; of a spent token also "outcome" and, with a blocking log, "intent" before it
	DecisionID   string        `json:"decision_id"`
	RequestID    string        `json:"request_id,omitempty"`
	Method       string        `json:"method"`
	Route        string        `json:"route"`
	Operation    string        `json:"operation,omitempty"`
	Environment  string        `json:"environment,omitempty"`
	Outcome      string        `json:"outcome,omitempty"` // of a decision: "allow", "refuse", "would_refuse"
	Reason       string        `json:"reason,omitempty"`  // of a decision; "none" when allowed
	PolicyCode   string        `json:"policy_code,omitempty"`
	Revision     string        `json:"policy_revision,omitempty"`
	SubjectHash  string        `json:"subject_hash,omitempty"`
	TokenID      string        `json:"token_id,omitempty"`    // keyed hash of the spent key
	TokenState   string        `json:"token_state,omitempty"` // "reserved", "committed", "released"
	Scopes       []string      `json:"required_scopes,omitempty"`
	SDK          string        `json:"sdk,omitempty"`
	SDKVersion   string        `json:"sdk_version,omitempty"`
	SDKAdvised   string        `json:"sdk_advised,omitempty"` // the least release that its developers are advised to ship
	SDKGap       bool          `json:"sdk_gap,omitempty"`     // the token is missing that this SDK is known not to attach here
	WouldNeed    string        `json:"would_need,omitempty"`  // "step_up": passes, and would be challenged once the announced version is in force
	Status       int           `json:"status,omitempty"`      // the backend's, when it answered
	GateDuration time.Duration `json:"gate_ns,omitempty"`
}
