package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// evalError says where and how an evaluation failed, without OPA's message: that quotes values, and a request's values belong
// neither in logs nor in metrics.
type evalError struct{ cause *topdown.Error }

func (e evalError) Error() string {
	text := e.cause.Code
	if e.cause.Location != nil {
		text = e.cause.Location.String() + ": " + text
	}
	return "policy: evaluate: " + text
}

// isLate reports whether an evaluation was cut off by its timeout.
func isLate(err error) bool {
	var e evalError
	return errors.As(err, &e) && e.cause.Code == topdown.CancelErr || errors.Is(err, context.DeadlineExceeded)
}

// evaluated wraps an error of OPA's.
func evaluated(err error) error {
	var cause *topdown.Error
	if errors.As(err, &cause) {
		return evalError{cause}
	}
	return fmt.Errorf("policy: evaluate: %w", err)
}

// inFull is the error with OPA's message on one line. Only for inputs that are nobody's.
func inFull(err error) string {
	var e evalError
	if !errors.As(err, &e) {
		return err.Error()
	}
	return e.Error() + ": " + strings.Join(strings.Fields(e.cause.Message), " ")
}
