package postgres

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/stepward/stepward/ledger"
)

const (
	sweepEvery = 10 * time.Second
	sweepRows  = 1000 // deleted by one statement: some ms
	// sweepTimeout is for one statement. It is the server's statement_timeout, too.
	sweepTimeout = 5 * time.Second
)

// turn: $1 now. One process has its turn at a time. It moves the mark below which claims are refused, as their keys may be
// gone, and gets the one that was set at least sweepEvery before: no claim that has read an older one is still under way. A key
// is over only by both clocks, so a process whose clock is ahead takes away nothing that others need.
const turnSQL = `WITH t AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 AS server)
UPDATE $schema.ledger l SET swept = t.server, forgotten = greatest(l.forgotten, least(t.server, $1::bigint))
FROM t, (SELECT forgotten FROM $schema.ledger FOR UPDATE) AS before
WHERE l.swept <= t.server - 10000000000 OR l.swept > t.server + 60000000000
RETURNING before.forgotten`

// sweep: $1 until.
const sweepSQL = unflushed + `DELETE FROM $schema.spent USING quick WHERE key IN (
    SELECT key FROM $schema.spent WHERE until <= $1 ORDER BY until LIMIT 1000 FOR UPDATE SKIP LOCKED)`

func (s *Store) sweep(ctx context.Context) {
	defer close(s.stopped)
	for {
		// Ten processes must not all come at once.
		wait := time.NewTimer(sweepEvery/2 + rand.N(sweepEvery)) //nolint:gosec // to spread load
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		_, err := s.sweepOnce(ctx)
		if err != nil && ctx.Err() == nil && s.troubles.allows() {
			s.log.LogAttrs(ctx, slog.LevelWarn, "ledger: old keys cannot be deleted, and the table grows",
				slog.String("error", explain(err)))
		}
	}
}

// sweepOnce deletes what is over, if it is this process's turn, and reports how many keys.
func (s *Store) sweepOnce(ctx context.Context) (int64, error) {
	before, mine, err := s.turn(ctx)
	if err != nil || !mine {
		return 0, err
	}
	for total := int64(0); ; {
		n, err := s.sweepSome(ctx, before)
		total += n
		if err != nil || n < sweepRows {
			return total, err
		}
	}
}

func (s *Store) turn(ctx context.Context) (before int64, mine bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql.turn, ledger.Nanos(s.now()))
	if err != nil {
		return 0, false, err
	}
	defer rows.Close()
	for rows.Next() {
		mine = true
		if err := rows.Scan(&before); err != nil {
			return 0, false, err
		}
	}
	return before, mine, rows.Err()
}

func (s *Store) sweepSome(ctx context.Context, before int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	done, err := s.pool.Exec(ctx, s.sql.sweep, before)
	if err != nil {
		return 0, err
	}
	return done.RowsAffected(), nil
}
