package ledger

import (
	"fmt"
	"runtime/debug"
	"time"
)

// sweep drops expired keys from memory. The writer does not, since a million of them would keep requests waiting.
func (b *Bolt) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.expire(Nanos(b.now()))
		case <-b.stop:
			return
		}
	}
}

// run is the writer: it alone touches the file. While one batch is being written the next one gathers.
func (b *Bolt) run() {
	// A page that points outside the file must break this store, not the process.
	debug.SetPanicOnFault(true)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.wake:
			if batch := b.begin(true); batch != nil {
				b.finish(batch)
			}
		case <-tick.C:
			b.tidy()
		case <-b.stop:
			if batch := b.begin(false); batch != nil {
				b.finish(batch)
			}
			return
		}
	}
}

// begin takes the next batch for writing; nil where there is none, or none that a caller waits for if that is asked.
func (b *Bolt) begin(waitedFor bool) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.next
	if b.broken != nil || len(batch.ops) == 0 || (waitedFor && batch.reserves == 0) {
		return nil
	}
	batch.begun = true
	b.next = newBatch()
	return batch
}

// finish writes a batch and answers it.
func (b *Bolt) finish(batch *batch) {
	// Twice as many expired records go as new ones come, so the sweep keeps up without commits of its own.
	if err := b.file.write(batch.ops, Nanos(b.now()), 16+2*len(batch.ops)); err != nil {
		b.breakDown(err)
		batch.err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	close(batch.done)
}

// tidyChunk is how many expired records one commit of the sweep removes: a request may come to wait for one of them.
const tidyChunk = 1024

// tidy does what no request waits for: bookkeeping, expired records, and a look at whether the file is still in its place.
func (b *Bolt) tidy() {
	now := Nanos(b.now())
	if b.isBroken() {
		return
	}
	if err := b.file.moved(); err != nil {
		b.breakDown(err)
		return
	}
	if batch := b.begin(false); batch != nil {
		b.finish(batch)
	}
	for b.idle() {
		due, err := b.file.due(now)
		if err == nil && due {
			err = b.file.write(nil, now, tidyChunk)
		}
		if err != nil {
			b.breakDown(err)
		}
		if !due {
			return
		}
	}
}

// idle says that nobody waits for the writer, so it may go on sweeping.
func (b *Bolt) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused == nil && b.next.reserves == 0
}

func (b *Bolt) isBroken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken != nil
}

// breakDown refuses everything from now on, those who wait for the next batch included: nothing of theirs was written.
func (b *Bolt) breakDown(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = fmt.Errorf("%s: %w", b.file.path, err)
	b.refused = fmt.Errorf("%w: %w", ErrUnavailable, b.broken)
	batch := b.next
	b.next = newBatch()
	batch.err = b.refused
	close(batch.done)
}
