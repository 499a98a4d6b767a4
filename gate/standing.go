package gate

import (
	"context"
	"errors"

	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/internal/standing"
	"github.com/stepward/stepward/policy"
)

// standing asks whether the session still is one at the backend: a signature cannot tell that its device was revoked since.
// What is worth a token, or what the policy says (recheck), is never answered from memory.
//
// A sign-in that is not finished reaches only what finishes it, which the backend judges. It is not asked about: whether the
// backend's answer to that question is a 401, which logs users out, is not documented.
func (g *Gate) standing(ctx context.Context, r *Request, v *Verdict, d *decision, q *policy.Requirement) reason.Reason {
	if g.config.Session.Check == nil || !q.Session || d.session == nil || v.DeviceState != policy.Registered {
		return reason.None
	}
	inHeader, _ := single(r.Header, g.config.Session.Header)
	err := g.config.Session.Check(ctx, standing.Session{
		Environment: v.Environment, Token: d.sessionToken, InCookie: bearer(inHeader) == "", Fresh: q.Recheck || spends(q),
	})
	switch {
	case err == nil:
		return reason.None
	case errors.Is(err, standing.ErrEnded):
		return reason.SessionInvalid
	}
	return reason.VerificationUnavailable
}
