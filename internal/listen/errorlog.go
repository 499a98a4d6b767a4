package listen

import (
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// The bounds on what clients can make the server log.
const (
	maxScan   = 64 << 10
	maxLine   = 8 << 10 // bytes of a panic's stack
	maxDetail = 256     // bytes of any other line: the peer had a hand in its text
	perMinute = 30      // lines above debug
)

// tokenLike finds compact JWTs and bearer credentials. net/http itself quotes no header values, but a panic's text may.
var tokenLike = regexp.MustCompile(`eyJ[\w.\-]+|(?i:bearer|dpop) +[\w.~+/=\-]+`)

// errorLog turns net/http's lines into records with a constant message.
type errorLog struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	minute  time.Time // guarded by mu, as are the counts
	lines   int
	dropped int
}

func newErrorLog(logger *slog.Logger, now func() time.Time) *log.Logger {
	return log.New(&errorLog{log: logger, now: now}, "", 0)
}

func (e *errorLog) Write(p []byte) (int, error) {
	level, msg, limit := classify(string(p[:min(len(p), 64)]))
	if level > slog.LevelDebug {
		admitted, dropped := e.admit()
		if dropped > 0 {
			e.log.Warn("http server lines dropped", "count", dropped)
		}
		if !admitted {
			return len(p), nil
		}
	}
	// Redacted before it is cut, so that no half of a token is left that the pattern does not know.
	line := tokenLike.ReplaceAllString(string(p[:min(len(p), maxScan)]), "[redacted]")
	detail := strings.ToValidUTF8(strings.TrimSpace(line[:min(len(line), limit)]), "?")
	e.log.Log(context.Background(), level, msg, "detail", detail)
	return len(p), nil
}

// classify knows the lines that are ours to mend; all others are a client's doing.
func classify(head string) (level slog.Level, msg string, limit int) {
	switch {
	case strings.HasPrefix(head, "http: panic serving"), strings.HasPrefix(head, "http2: panic serving"):
		return slog.LevelError, "handler panicked", maxLine
	case strings.HasPrefix(head, "http: Accept error"):
		return slog.LevelError, "cannot accept connections", maxDetail
	case strings.HasPrefix(head, "http: superfluous"), strings.HasPrefix(head, "http: response.Write"):
		return slog.LevelWarn, "handler misused its response", maxDetail
	}
	return slog.LevelDebug, "connection failed", maxDetail
}

// admit reports whether a line is within the limit, and how many were dropped in the minute that has just ended.
func (e *errorLog) admit() (ok bool, dropped int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.now(); now.Sub(e.minute) >= time.Minute {
		dropped = e.dropped
		e.minute, e.lines, e.dropped = now, 0, 0
	}
	if e.lines >= perMinute {
		e.dropped++
		return false, dropped
	}
	e.lines++
	return true, dropped
}
