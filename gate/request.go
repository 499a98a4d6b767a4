package gate

import (
	"net/http"
	"time"
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
	// Environment is the one that a door's own configuration names, for requests that come through a part of it; "" says nothing.
	Environment string
	// Shadow is a door's word that this is a rehearsal, as if the environment were in shadow mode: everything is judged, nothing is
	// reserved, and what would be refused passes and is counted.
	Shadow bool
	// Deadline is when whoever asked stops waiting for the verdict; zero is never. A token is not spent so close to it that the
	// answer would come too late.
	Deadline time.Time
}
