package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// silence is how long a server may at least be silent before its connection is given up.
const silence = 10 * time.Millisecond

// missesToDrop is after how many calls without an answer all connections are given up, also ones that say something.
const missesToDrop = 3

var errOutOfStep = errors.New("an answer belongs to another question: is there a proxy before the server?")

// within runs f and returns at ctx's deadline even where rueidis does not, as while it waits for another caller's connection. What
// f still does then comes too late to be believed: its outcome is unclear.
func within[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if err := s.enter(); err != nil {
		return none, &dialError{errClosed}
	}
	done := make(chan result, 1)
	// f should end a little earlier: it may know that nothing was sent.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(2 * dialTimeout)
	}
	inner, cancel := context.WithDeadline(ctx, deadline.Add(-min(2*time.Millisecond, time.Until(deadline)/8)))
	go func() {
		defer s.calls.Done()
		defer cancel()
		value, err := f(inner)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// heard looks at how asking ended, and gives up connections that seem to lead nowhere.
func (s *Store) heard(began time.Time, err error) {
	switch {
	case err == nil:
		s.misses.Store(0)
		return
	case errors.Is(err, errOutOfStep):
		s.links.drop(began, 0)
		return
	case outcomeOf(err) != unclear:
		return
	}
	if s.misses.Add(1)%missesToDrop == 0 {
		s.links.drop(began, 0)
	} else {
		s.links.drop(began, max(silence, time.Since(began)*3/4))
	}
}

// askAndWait reserves and waits for replicas, on a connection that nobody else uses meanwhile: WAIT looks at what its own
// connection wrote, and holds it up.
func (s *Store) askAndWait(ctx context.Context, deadline time.Time, a *attempt) (byte, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	one := a.question(deadline)
	one.done = make(chan answer, 1)
	batch := []*question{one}
	began := time.Now()
	type waited struct {
		replicas int64
		lost     error // why WAIT did not say
	}
	r, err := within(ctx, s, func(ctx context.Context) (waited, error) {
		both := s.together(ctx, s.evalsha(reserveScript, a.bucket, batch), s.wait(ctx))
		if isUnknownScript(both[0].Error()) {
			both = s.together(ctx, s.eval(reserveScript, a.bucket, batch), s.wait(ctx))
		}
		s.tell(began, reserveScript, batch, both[0])
		n, lost := both[1].AsInt64()
		return waited{n, lost}, nil
	})
	if err != nil { // it took too long
		s.heard(began, err)
		return 0, err
	}
	told := <-one.done
	said, err := told.said, told.err
	if err != nil || said != saysGranted {
		return said, err
	}
	if r.lost != nil {
		// Not %w: a refusal of WAIT does not undo the reservation.
		return 0, fmt.Errorf("WAIT: %s", explain(r.lost).Error())
	}
	if r.replicas < int64(s.replicas) {
		return 0, fmt.Errorf("%d replicas have the reservation in time, and %d are asked for", r.replicas, s.replicas)
	}
	return said, nil
}

// together sends both on one connection, which WAIT makes one of its own.
func (s *Store) together(ctx context.Context, first, second rueidis.Completed) []rueidis.RedisResult {
	if s.address.mode != cluster {
		return s.client.DoMulti(ctx, first, second)
	}
	// Not DoMulti of the cluster's client: it would send the first alone where a slot has moved to.
	c, release := s.client.Dedicate()
	both := c.DoMulti(ctx, first, second)
	if both[0].NonRedisError() != nil || both[1].NonRedisError() != nil {
		c.Close() // An answer may be on its way.
	} else {
		release()
	}
	return both
}

func (s *Store) wait(ctx context.Context) rueidis.Completed {
	patience := s.patience
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)*9/10)
	}
	return s.client.B().Wait().Numreplicas(int64(s.replicas)).Timeout(max(1, patience.Milliseconds())).Build()
}

// renew makes sure of one bucket's epoch.
func (s *Store) renew(ctx context.Context, bucket int) error {
	return s.renewSome(ctx, []int{bucket})
}

func (s *Store) renewBefore(ctx context.Context, deadline time.Time, bucket int) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return s.renew(ctx, bucket)
}

// renewAll makes sure of every bucket's epoch.
func (s *Store) renewAll(ctx context.Context) error {
	all := make([]int, s.buckets)
	for b := range all {
		all[b] = b
	}
	return s.renewSome(ctx, all)
}

func (s *Store) renewSome(ctx context.Context, buckets []int) error {
	began := time.Now()
	replies, err := within(ctx, s, func(ctx context.Context) ([]rueidis.RedisResult, error) {
		args := s.renewArgs()
		cmds := make([]rueidis.Completed, len(buckets))
		for i, b := range buckets {
			cmds[i] = renewScript.eval(s.client.B(), []string{s.epochKey(b)}, args)
		}
		return s.client.DoMulti(ctx, cmds...), nil
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	var fresh *renewed
	for i, r := range replies {
		n, err2 := readRenewed(r)
		if err2 != nil {
			err = err2 // The other buckets may lie elsewhere.
			continue
		}
		s.learn(buckets[i], n, took)
		if n.fresh != epochKept {
			fresh = &n
		}
	}
	if fresh != nil {
		s.raised(*fresh)
	}
	return err
}

func readRenewed(r rueidis.RedisResult) (renewed, error) {
	items, err := r.ToArray()
	if err != nil {
		return renewed{}, err
	}
	if len(items) != 4 {
		return renewed{}, errProtocol
	}
	var texts [4]string
	for i, item := range items {
		if i == 1 {
			continue
		}
		if texts[i], err = item.ToString(); err != nil {
			return renewed{}, err
		}
	}
	fresh, err := items[1].AsInt64()
	if err != nil {
		return renewed{}, err
	}
	return parseRenewed(texts[0], fresh, texts[2], texts[3])
}
