package redis

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// A server runs a script for many records nearly as fast as for one, so calls that are there at the same time are asked as one.
// Nobody waits for others to come: what is there when a batch has been answered goes with the next.
const (
	maxBatch  = 64 // records of one script: it holds the server up for so long, some 8 µs each
	maxAsking = 2  // batches under way for one script and bucket: the client works on one while the server does on the other
	// fullEnough is how many must wait for a second batch under way: two small ones cost more than one.
	fullEnough = maxBatch / 2
)

// queue gathers the questions of one script about one bucket.
type queue struct {
	store  *Store
	script script
	bucket int

	mu      sync.Mutex
	waiting []*question
	asking  int // goroutines that empty it
}

// question is one record of a script.
type question struct {
	key      string
	shared   string // what all records of one batch have in common: the epoch
	args     []string
	now      int64  // ns: the caller's clock, for a claim
	clock    int64  // ms: up to when, by the server's clock, the arguments of a claim are good
	echo     string // comes back with the answer
	deadline time.Time
	done     chan answer // has room for the one answer
}

type answer struct {
	said byte
	err  error
}

// ask returns at the question's deadline even where rueidis does not. What is still asked then comes too late to be believed: its outcome is
// unclear, unless it was never sent. The caller is counted by enter.
func (q *queue) ask(ctx context.Context, one *question) (byte, error) {
	one.done = make(chan answer, 1)
	q.mu.Lock()
	q.waiting = append(q.waiting, one)
	begin := q.asking == 0 || q.asking < maxAsking && len(q.waiting) >= fullEnough
	if begin {
		q.asking++
		q.store.calls.Add(1) // never the first: the caller is counted
	}
	q.mu.Unlock()
	if begin {
		go q.empty()
	}
	late := time.NewTimer(time.Until(one.deadline))
	defer late.Stop()
	err := context.DeadlineExceeded
	select {
	case a := <-one.done:
		return a.said, a.err
	case <-late.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if q.withdraw(one) {
		return 0, &dialError{err}
	}
	return 0, err
}

// withdraw reports whether a question was not sent, and now never will be.
func (q *queue) withdraw(one *question) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.waiting)
	q.waiting = slices.DeleteFunc(q.waiting, func(w *question) bool { return w == one })
	return len(q.waiting) < before
}

// empty asks until nothing waits.
func (q *queue) empty() {
	defer q.store.calls.Done()
	for batch := q.take(); batch != nil; batch = q.take() {
		q.store.askBatch(q.script, q.bucket, batch)
	}
}

// take returns what goes next: the oldest question and those that share with it what a script says once.
func (q *queue) take() []*question {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 || q.asking > 1 && len(q.waiting) < fullEnough {
		q.asking--
		return nil
	}
	shared := q.waiting[0].shared
	batch := make([]*question, 0, min(len(q.waiting), maxBatch))
	q.waiting = slices.DeleteFunc(q.waiting, func(one *question) bool {
		goes := len(batch) < maxBatch && one.shared == shared
		if goes {
			batch = append(batch, one)
		}
		return goes
	})
	return batch
}

// askBatch runs a script for all of batch and gives each question its answer.
func (s *Store) askBatch(sc script, bucket int, batch []*question) {
	began := time.Now()
	last := batch[0].deadline
	for _, one := range batch {
		if one.deadline.After(last) {
			last = one.deadline
		}
	}
	// A little before the callers leave: rueidis may know that nothing was sent.
	ctx, cancel := context.WithDeadline(context.Background(), last.Add(-min(2*time.Millisecond, time.Until(last)/8)))
	defer cancel()
	r := s.client.Do(ctx, s.evalsha(sc, bucket, batch))
	if isUnknownScript(r.Error()) {
		r = s.client.Do(ctx, s.eval(sc, bucket, batch))
	}
	s.tell(began, sc, batch, r)
}

// tell gives each question its answer.
func (s *Store) tell(began time.Time, sc script, batch []*question, r rueidis.RedisResult) {
	texts, err := r.AsStrSlice()
	if err == nil {
		texts, err = sc.inStep(batch, texts)
	}
	for i, one := range batch {
		if err != nil {
			one.done <- answer{err: err}
			continue
		}
		one.done <- answer{said: sc.said(one, texts[i])}
	}
	s.heard(began, err)
}

// inStep returns the text for each question, or says that the answer belongs to others.
func (sc script) inStep(batch []*question, texts []string) ([]string, error) {
	if sc.claims {
		switch {
		case len(texts) == 2 && texts[0] == batch[0].echo && texts[1] != "":
			return slices.Repeat(texts[1:], len(batch)), nil
		case len(texts) != 2+len(batch) || texts[0] != batch[0].echo || texts[1] != "":
			return nil, errOutOfStep
		}
		return texts[2:], nil
	}
	if len(texts) != len(batch) {
		return nil, errOutOfStep
	}
	for i, one := range batch {
		if len(texts[i]) != 1+len(one.echo) || texts[i][1:] != one.echo {
			return nil, errOutOfStep
		}
	}
	return texts, nil
}

// said is the word for a question; a claim's comes from what the server has in its place.
func (sc script) said(one *question, text string) byte {
	switch {
	case !sc.claims:
		return text[0]
	case text == "":
		return saysGranted
	case len(text) == 1:
		return text[0]
	case len(text) != recordSize:
		return saysReserved // somebody else's
	case text[recordSize-untilSize:] <= digits(one.now):
		return saysLook
	case text[recordSize-untilSize-1] == 'c':
		return saysConsumed
	}
	return saysReserved
}

// texts are the KEYS and ARGV of a script: the epoch, and then the same of each record.
func (s *Store) texts(sc script, bucket int, batch []*question) (keys, args []string) {
	keys = make([]string, 0, 1+len(batch))
	args = make([]string, 0, 3+len(batch)*len(batch[0].args))
	keys, args = append(keys, s.epochKey(bucket)), append(args, batch[0].shared)
	if sc.claims {
		clock := batch[0].clock
		for _, one := range batch {
			clock = min(clock, one.clock)
		}
		args = append(args, strconv.FormatInt(clock, 10), batch[0].echo)
	}
	for _, one := range batch {
		keys, args = append(keys, one.key), append(args, one.args...)
	}
	return keys, args
}

// evalsha calls a script, which the server may not know: see isUnknownScript.
func (s *Store) evalsha(sc script, bucket int, batch []*question) rueidis.Completed {
	keys, args := s.texts(sc, bucket, batch)
	return s.client.B().Evalsha().Sha1(sc.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

func (s *Store) eval(sc script, bucket int, batch []*question) rueidis.Completed {
	keys, args := s.texts(sc, bucket, batch)
	return s.client.B().Eval().Script(sc.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}
