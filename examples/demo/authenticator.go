package demo

import (
	"context"
	"time"

	"github.com/pquerna/otp/totp"
)

const (
	period = 30 * time.Second
	// onTheWay is how long a code may travel to the issuer.
	onTheWay = 5 * time.Second
)

// authenticator is an authenticator app (RFC 6238).
type authenticator struct {
	secret string
	last   int64 // the time step of the last code
	now    func() time.Time
}

// next returns the oldest code that is good and was not used. An app shows one code each half minute, and a code works once;
// issuers allow for clocks that differ by one step either way, so that three step-ups need not wait for the clock.
func (a *authenticator) next(ctx context.Context) (string, error) {
	step := max(a.last+1, stepOf(a.now().Add(onTheWay))-1)
	if early := time.Unix((step-1)*int64(period/time.Second), 0).Sub(a.now()); early > 0 {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(early):
		}
	}
	a.last = step
	return totp.GenerateCode(a.secret, time.Unix(step*int64(period/time.Second), 0))
}

func stepOf(t time.Time) int64 { return t.Unix() / int64(period/time.Second) }
