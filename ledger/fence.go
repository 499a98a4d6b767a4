package ledger

import (
	"math"
	"time"
)

// fence keeps out what may have been spent before a store's memory began.
type fence struct {
	before int64 // claims issued earlier are refused
	lifts  int64 // claims without a time of issue are refused until then
}

// newFence begins at began. An issuer's clock may be ahead by leeway, so a token issued just before may say later.
// Claims without a time of issue are remembered for at most remember: after that a store that had not forgotten would
// take them too. A remember of zero is for ever.
func newFence(began time.Time, leeway, remember time.Duration) fence {
	f := fence{before: Nanos(began.Add(leeway)), lifts: math.MaxInt64}
	if remember > 0 {
		f.lifts = Nanos(began.Add(leeway).Add(remember))
	}
	return f
}

func (f fence) refuses(issued time.Time, now int64) bool {
	if issued.IsZero() {
		return now < f.lifts
	}
	return Nanos(issued) < f.before
}
