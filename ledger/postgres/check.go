package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stepward/stepward/ledger"
)

// sessionSQL makes a session ready. A plan that was made while the table was small must not outlast that, so sequential scans
// are the last resort, of which the planner then thinks so badly that it would compile it (jit). A statement ends some time
// after nobody waits for it any more. A grant that is not flushed is none, whatever the server's default says, and one that
// need not be seen on standbys is enough only where the server does not ask for more.
const sessionSQL = `SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false), set_config('statement_timeout', '5s', false),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)`

const aboutSQL = `SELECT pg_backend_pid(), current_setting('fsync'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

// The server's own name, its timeline, and how far it has written. A managed service may forbid them.
const (
	systemSQL   = `SELECT system_identifier FROM pg_control_system()`
	timelineSQL = `SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint,
    (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint`
	// The table's number: a dump that is restored into the same server makes another.
	knownSQL = `SELECT system_identifier, timeline, spent::bigint, '$schema.spent'::regclass::oid::bigint FROM $schema.ledger`
	// $1 before, $2 lifts, $3 to $5 what is, $6 to $8 what was known: of several processes one does it.
	raiseSQL = `UPDATE $schema.ledger SET fence_before = greatest(fence_before, $1), fence_lifts = greatest(fence_lifts, $2),
    system_identifier = coalesce($3, system_identifier), timeline = coalesce($4, timeline), spent = $5::bigint::oid
WHERE system_identifier IS NOT DISTINCT FROM $6 AND timeline IS NOT DISTINCT FROM $7
    AND spent::bigint IS NOT DISTINCT FROM $8::bigint`
)

// identity is of a memory: another one may not hold what was written to the one before.
type identity struct {
	system, timeline *int64 // nil where the server does not say
	table            *int64
}

// differs compares what both know. What is known for the first time differs, too: nobody knows what was before.
func (i identity) differs(known identity) bool {
	return changed(i.system, known.system) || changed(i.timeline, known.timeline) || changed(i.table, known.table)
}

func changed(is, was *int64) bool { return is != nil && (was == nil || *is != *was) }

// sight is how far this process has seen a server write. One that has written less was put back to a copy of its disk.
type sight struct {
	identity identity
	flushed  int64
}

type history struct {
	mu     sync.Mutex
	latest sight // guarded by mu
}

func (h *history) last() sight {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest
}

func (h *history) note(is identity, flushed int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !is.differs(h.latest.identity) {
		// Connections that are checked at the same time may come in another order.
		flushed = max(flushed, h.latest.flushed)
	}
	h.latest = sight{is, flushed}
}

const backendKey = "stepward"

// backendOf is the session that check looked at. A pooler gives out its own numbers, so pgx's would not do.
func backendOf(c *pgx.Conn) int32 {
	backend, _ := c.PgConn().CustomData()[backendKey].(int32)
	return backend
}

// check makes a new connection ready, before anything is reserved through it.
func (s *Store) check(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, c.Config().ConnectTimeout)
	defer cancel()
	if _, err := c.Exec(ctx, sessionSQL); err != nil {
		return err
	}
	if err := s.about(ctx, c); err != nil {
		return err
	}
	if err := s.recognize(ctx, c); err != nil {
		return err
	}
	for name, sql := range s.sql.prepared() {
		if _, err := c.Prepare(ctx, name, sql); err != nil {
			return err
		}
	}
	return nil
}

// about notes the session's number, and compares the clocks.
func (s *Store) about(ctx context.Context, c *pgx.Conn) error {
	var backend int32
	var fsync string
	var micros int64
	asked := time.Now()
	if err := c.QueryRow(ctx, aboutSQL).Scan(&backend, &fsync, &micros); err != nil {
		return err
	}
	answered := time.Now()
	c.PgConn().CustomData()[backendKey] = backend
	skew := time.UnixMicro(micros).Sub(asked.Add(answered.Sub(asked) / 2))
	s.skew.Store(int64(skew))
	if skew.Abs() > max(s.leeway/2, time.Second, answered.Sub(asked)) && s.clocks.allows() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "ledger: the database's clock and this one differ: check both machines' NTP",
			slog.Duration("database_is_ahead_by", skew))
	}
	if fsync == "off" && s.troubles.allows() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "ledger: the database runs with fsync=off: a crash may forget what was granted")
	}
	return nil
}

// recognize raises the fence where the server is not the one that the ledger's row knows.
func (s *Store) recognize(ctx context.Context, c *pgx.Conn) error {
	// What was seen before the server is asked: other connections go on and see more meanwhile.
	seen := s.seen.last()
	is, flushed, inserted, err := s.identify(ctx, c)
	if err != nil {
		return err
	}
	for range 10 {
		var known identity
		if err := c.QueryRow(ctx, s.sql.known).Scan(&known.system, &known.timeline, &known.table, &is.table); err != nil {
			return failure(err)
		}
		putBack := is.timeline != nil && !is.differs(seen.identity) && inserted < seen.flushed
		if !is.differs(known) && !putBack {
			s.seen.note(is, flushed)
			return nil
		}
		done, err := s.raise(ctx, c, is, known)
		if err != nil {
			return fmt.Errorf("the server is another than before, and the ledger's row cannot be changed: %w", err)
		}
		if done {
			s.seen.note(is, flushed)
			return nil
		}
	}
	return fmt.Errorf("%w: the ledger's row changes again and again", ledger.ErrUnavailable)
}

func (s *Store) raise(ctx context.Context, c *pgx.Conn, is, known identity) (bool, error) {
	before, lifts := s.fence()
	first := known == identity{}
	if first {
		// The row is new, and its fence is of this very moment.
		before, lifts = 0, 0
	}
	done, err := c.Exec(ctx, s.sql.raise, before, lifts, is.system, is.timeline, is.table,
		known.system, known.timeline, known.table)
	if err != nil || done.RowsAffected() == 0 {
		return false, err
	}
	if !first {
		s.log.LogAttrs(ctx, slog.LevelError, "ledger: the database is another than before (a failover, or a backup that was "+
			"restored) and may have forgotten: tokens issued before now are refused",
			number("system_was", known.system), number("system_is", is.system),
			number("timeline_was", known.timeline), number("timeline_is", is.timeline),
			number("table_was", known.table), number("table_is", is.table))
	}
	return true, nil
}

func number(name string, n *int64) slog.Attr {
	if n == nil {
		return slog.String(name, "unknown")
	}
	return slog.Int64(name, *n)
}

// identify asks the server who it is, as far as it says.
func (s *Store) identify(ctx context.Context, c *pgx.Conn) (is identity, flushed, inserted int64, err error) {
	var system int64
	if err := c.QueryRow(ctx, systemSQL).Scan(&system); err == nil {
		is.system = &system
	} else if !errorOfServer(err) {
		return is, 0, 0, err
	}
	var hex string
	if err := c.QueryRow(ctx, timelineSQL).Scan(&hex, &flushed, &inserted); err == nil {
		timeline, err := strconv.ParseInt(hex, 16, 64)
		if err != nil {
			return is, 0, 0, fmt.Errorf("the server's timeline: %w", err)
		}
		is.timeline = &timeline
	} else if !errorOfServer(err) {
		return is, 0, 0, err
	}
	if (is.system == nil || is.timeline == nil) && s.troubles.allows() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "ledger: the database does not say which server it is, so a failover that loses "+
			"writes cannot be noticed: grant EXECUTE on pg_control_system, or use synchronous replication")
	}
	return is, flushed, inserted, nil
}
