package gate

import (
	"net/http"
)

// Request is what a door hands to the gate: one HTTP request whose target has passed package canon. The gate reads it and
// changes nothing.
type Request struct {
	RequestID string // a trusted proxy's, validated; "" is given the decision's
	Method    string
	Path      string // from canon.Target: byte for byte what will be sent
	RawQuery  string // from canon.Target
	Host      string
	Header    http.Header
	// WebSocket: the client asks for exactly "Upgrade: websocket". Upgrade: it asks for any other protocol.
	WebSocket bool
	Upgrade   bool
	// ReadBody returns the whole body when it is at most limit bytes, and keeps it for the backend. A longer body is
	// ErrBodyTooLarge, one that cannot be read ErrBodyUnreadable. Nil means that this door cannot show bodies.
	ReadBody func(limit int64) ([]byte, error)
	// NoSpend is a door's word that this is a rehearsal: everything is judged but nothing is reserved.
	NoSpend bool
}
