package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/stepward/stepward/ledger"
)

// schemaVersion is of the tables that Migration makes.
const schemaVersion = 1

// schemaSQL asks for rights in the database even where the schema exists.
const schemaSQL = `CREATE SCHEMA IF NOT EXISTS $schema;

`

// migration is idempotent. The table spent keeps room in its pages so that a commit writes a new version of a row beside the
// old one, without an entry in an index.
const migration = `-- One row for each token that was spent. Times are nanoseconds since 1970.
CREATE TABLE IF NOT EXISTS $schema.spent (
    key       bytea   NOT NULL PRIMARY KEY CHECK (octet_length(key) = 32),
    owner     bytea   NOT NULL CHECK (octet_length(owner) = 16),
    attempt   bigint  NOT NULL,
    until     bigint  NOT NULL,
    committed boolean NOT NULL DEFAULT false
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX IF NOT EXISTS spent_until ON $schema.spent (until);

-- One row: what the ledger knows of itself.
CREATE TABLE IF NOT EXISTS $schema.ledger (
    one               boolean PRIMARY KEY DEFAULT true CHECK (one),
    version           integer NOT NULL,
    fence_before      bigint  NOT NULL, -- tokens issued before are refused
    fence_lifts       bigint  NOT NULL, -- tokens without a time of issue are refused until then
    forgotten         bigint  NOT NULL, -- keys of up to then may have been deleted
    swept             bigint  NOT NULL, -- when keys were last deleted, by the server's clock
    system_identifier bigint,           -- of the server that holds this memory: another one may have forgotten
    timeline          bigint,
    spent             oid
);
`

// rights is what a user needs who may not create.
const rights = `
-- For a user that may not create tables:
-- GRANT USAGE ON SCHEMA $schema TO stepward;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON $schema.spent, $schema.ledger TO stepward;
`

// Migration is the SQL that makes the tables in a schema, for an administrator to run where Stepward's user may not. An empty
// name is DefaultSchema. Running it again changes nothing.
func Migration(schema string) (string, error) {
	if schema == "" {
		schema = DefaultSchema
	}
	if err := checkSchema(schema); err != nil {
		return "", err
	}
	return in(schema, schemaSQL+migration+rights), nil
}

func in(schema, sql string) string {
	return strings.ReplaceAll(sql, "$schema", pgx.Identifier{schema}.Sanitize())
}

// migrate makes sure that the tables and the ledger's row are there.
func (s *Store) migrate(ctx context.Context, pooled *pgxpool.Config) error {
	to := pooled.ConnConfig.Copy()
	if pooled.BeforeConnect != nil {
		if err := pooled.BeforeConnect(ctx, to); err != nil {
			return err
		}
	}
	c, err := pgx.ConnectConfig(ctx, to)
	if err != nil {
		return refused(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }() // It has no more to say.
	err = s.begin(ctx, c)
	if missing(err) {
		if err = s.create(ctx, c); err == nil {
			err = s.begin(ctx, c)
		}
	}
	if err != nil {
		return refused(err)
	}
	return nil
}

// missing reports whether an error is that the tables are not there.
func missing(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == undefinedTable || server.Code == invalidSchema)
}

// create lets one process at a time make the tables: two that do collide even with IF NOT EXISTS.
func (s *Store) create(ctx context.Context, c *pgx.Conn) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after Commit it does nothing
	name := fnv.New64a()
	name.Write([]byte("stepward ledger " + s.sql.schema))
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(name.Sum64())); err != nil {
		return fmt.Errorf("waiting for another process that makes the tables: %w", err)
	}
	sql := migration
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", s.sql.schema).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		sql = schemaSQL + sql
	}
	if _, err := tx.Conn().PgConn().Exec(ctx, in(s.sql.schema, sql)).ReadAll(); err != nil {
		if server := new(pgconn.PgError); errors.As(err, &server) && server.Code == insufficientPrivilege {
			return &remedy{"the tables are missing and this user may not create them (" + explain(err) +
				"): have an administrator run this:\n" + in(s.sql.schema, schemaSQL+migration+rights)}
		}
		return err
	}
	return tx.Commit(ctx)
}

// begin reads the version of the tables. The first process ever writes the row: memory begins at its time.
func (s *Store) begin(ctx context.Context, c *pgx.Conn) error {
	var version int
	err := c.QueryRow(ctx, s.sql.version).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		before, lifts := s.fence()
		if _, err := c.Exec(ctx, s.sql.begin, schemaVersion, before, lifts); err != nil {
			return err
		}
		err = c.QueryRow(ctx, s.sql.version).Scan(&version)
	}
	if err != nil {
		return err
	}
	if version != schemaVersion {
		return &remedy{fmt.Sprintf("the tables are of version %d and this program knows %d: run the newer program that made them, "+
			"or name another schema", version, schemaVersion)}
	}
	return nil
}

// fence is what a memory that begins now refuses: see ledger.NewMemory.
func (s *Store) fence() (before, lifts int64) {
	began := s.now().Add(s.leeway)
	if s.keep > 0 {
		return ledger.Nanos(began), ledger.Nanos(began.Add(s.keep))
	}
	return ledger.Nanos(began), math.MaxInt64
}

// outcome is what the statements say.
type outcome int16

const (
	granted  outcome = 0
	reserved outcome = 1
	consumed outcome = 2
	fenced   outcome = 3
	strange  outcome = 4 // another session than the one that was looked at
	over     outcome = 5 // held by a row that was not yet swept
	absent   outcome = 6
)

// The names of prepared statements.
const (
	reserveName = "stepward_reserve"
	replaceName = "stepward_replace"
	whyName     = "stepward_why"
	lookName    = "stepward_look"
	commitName  = "stepward_commit"
	releaseName = "stepward_release"
)

// statements are the SQL for one schema.
type statements struct {
	schema                      string
	begin, version              string
	reserve, replace, why, look string
	commit, release             string
	stats                       string
	known, raise                string
	turn, sweep                 string
}

// reserve: $1 key, $2 owner, $3 attempt, $4 until, $5 now, $6 issued or null, $7 the session that was looked at.
//
// A token that was used is refused without a write, after which one would wait for the disk: so what holds the key is looked
// for first, and ON CONFLICT does nothing, where DO UPDATE would lock the row. The fence is read in the same statement, so one
// that another process raised holds at once.
const reserveSQL = `INSERT INTO $schema.spent (key, owner, attempt, until)
SELECT $1::bytea, $2::bytea, $3::bigint, $4::bigint FROM $schema.ledger l
WHERE l.one AND ` + mayClaim + ` AND NOT EXISTS (SELECT FROM $schema.spent WHERE key = $1)
ON CONFLICT (key) DO NOTHING`

// replace is reserve for a key that is over and was not yet swept. Of several the first one does it: the others wait for its
// row, and find a new until.
const replaceSQL = `UPDATE $schema.spent s SET owner = $2::bytea, attempt = $3::bigint, until = $4::bigint, committed = false
FROM $schema.ledger l
WHERE s.key = $1::bytea AND s.until <= $5 AND l.one AND ` + mayClaim

const mayClaim = `pg_backend_pid() = $7::integer AND $4 > l.forgotten
    AND CASE WHEN $6::bigint IS NULL THEN $5::bigint >= l.fence_lifts ELSE $6 >= l.fence_before END`

// why a reserve wrote nothing: $1 key, $2 until, $3 now, $4 issued or null, $5 the session that was looked at.
const whySQL = `SELECT CASE
    WHEN pg_backend_pid() <> $5::integer THEN 4
    WHEN s.until > $3::bigint AND s.committed THEN 2
    WHEN s.until > $3 THEN 1
    WHEN $2::bigint <= l.forgotten THEN 3
    WHEN CASE WHEN $4::bigint IS NULL THEN $3 < l.fence_lifts ELSE $4 < l.fence_before END THEN 3
    WHEN s.until IS NOT NULL THEN 5
    ELSE 6 END::smallint
FROM $schema.ledger l LEFT JOIN $schema.spent s ON s.key = $1 WHERE l.one`

// look: $1 key, $2 owner, $3 attempt, $4 now.
const lookSQL = `SELECT CASE WHEN owner = $2 AND attempt = $3 THEN 0 WHEN committed THEN 2 ELSE 1 END::smallint
FROM $schema.spent WHERE key = $1 AND until > $4`

// unflushed makes the statement that it stands before not wait for the disk. It ends with the statement's transaction.
const unflushed = `WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)) `

// commit and release: $1 key, $2 owner, $3 now.
const commitSQL = unflushed + `UPDATE $schema.spent SET committed = true FROM quick
WHERE key = $1 AND owner = $2 AND until > $3`

const releaseSQL = unflushed + `DELETE FROM $schema.spent USING quick
WHERE key = $1 AND owner = $2 AND until > $3 AND NOT committed`

// stats: $1 now.
const statsSQL = `SELECT CASE WHEN n.few > 10000 THEN greatest(n.few, c.reltuples::bigint) ELSE n.few END, l.fence_before
FROM $schema.ledger l, pg_class c,
    (SELECT count(*) AS few FROM (SELECT FROM $schema.spent WHERE until > $1 LIMIT 10001) AS live) AS n
WHERE c.oid = '$schema.spent'::regclass`

func newStatements(schema string) statements {
	return statements{
		schema: schema,
		begin: in(schema, `INSERT INTO $schema.ledger (version, fence_before, fence_lifts, forgotten, swept)
			VALUES ($1, $2, $3, 0, 0) ON CONFLICT DO NOTHING`),
		version: in(schema, `SELECT version FROM $schema.ledger`),
		reserve: in(schema, reserveSQL), replace: in(schema, replaceSQL), why: in(schema, whySQL), look: in(schema, lookSQL),
		commit: in(schema, commitSQL), release: in(schema, releaseSQL),
		stats: in(schema, statsSQL),
		known: in(schema, knownSQL), raise: in(schema, raiseSQL),
		turn: in(schema, turnSQL), sweep: in(schema, sweepSQL),
	}
}

func (s statements) prepared() map[string]string {
	return map[string]string{
		reserveName: s.reserve, replaceName: s.replace, whyName: s.why, lookName: s.look, commitName: s.commit, releaseName: s.release,
	}
}

var _ ledger.Store = (*Store)(nil)
