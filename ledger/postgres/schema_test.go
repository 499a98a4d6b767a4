//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/postgres"
)

// refused opens a store that must not open, and checks what the error says and that it says no password.
func refused(t *testing.T, c postgres.Config, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := postgres.Open(ctx, c)
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("open: got %v, want that it says %q", err, says)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has the password: %v", err)
	}
}

// as is the address for another user.
func as(t *testing.T, rawURL, user, password string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

func TestOpen(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	p.Exec("CREATE ROLE limited LOGIN PASSWORD 'limited-secret'")
	limited := as(t, p.URL, "limited", "limited-secret")

	t.Run("many processes at once, one fence", func(t *testing.T) {
		schema := newSchema()
		stores := make([]*postgres.Store, 8)
		var wg sync.WaitGroup
		for i := range stores {
			wg.Go(func() {
				s, err := postgres.Open(t.Context(), postgres.Config{URL: p.URL, Schema: schema})
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				stores[i] = s
			})
		}
		wg.Wait()
		for _, s := range stores {
			if s == nil {
				continue
			}
			defer s.Close()
			if got, first := fence(t, s), fence(t, stores[0]); !got.Equal(first) {
				t.Errorf("fence: got %s and %s, want one", got, first)
			}
		}
	})
	t.Run("many connections at once move no fence", func(t *testing.T) {
		s := begun(t, p.URL, newSchema())
		before := fence(t, s)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 20 {
					granted(t, s)
				}
			})
		}
		wg.Wait()
		if after := fence(t, s); !after.Equal(before) {
			t.Errorf("fence: got %s, want %s", after, before)
		}
	})
	t.Run("a user that may not create", func(t *testing.T) {
		schema := newSchema()
		refused(t, postgres.Config{URL: limited, Schema: schema}, "have an administrator run")
		sql, err := postgres.Migration(schema)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			p.Exec(sql)
		}
		refused(t, postgres.Config{URL: limited, Schema: schema}, "grant this user USAGE")
		p.Exec(fmt.Sprintf("GRANT USAGE ON SCHEMA %[1]s TO limited; "+
			"GRANT SELECT, INSERT, UPDATE, DELETE ON %[1]s.spent, %[1]s.ledger TO limited", schema))
		s := begun(t, limited, schema)
		c := granted(t, s)
		want(t, "reserve again", s.Reserve(t.Context(), other(c)), ledger.ErrReserved)
		want(t, "release", s.Release(t.Context(), c.Key, c.Owner), nil)
	})
	t.Run("a user that may create tables in a schema of its own", func(t *testing.T) {
		schema := newSchema()
		p.Exec("CREATE SCHEMA " + schema + " AUTHORIZATION limited")
		granted(t, begun(t, limited, schema))
	})
	t.Run("tables of a newer version", func(t *testing.T) {
		schema := newSchema()
		begun(t, p.URL, schema).Close()
		p.Exec("UPDATE " + schema + ".ledger SET version = 2")
		refused(t, postgres.Config{URL: p.URL, Schema: schema}, "version 2 and this program knows 1")
	})
	t.Run("a wrong password", func(t *testing.T) {
		refused(t, postgres.Config{URL: as(t, p.URL, "limited", "another-secret")}, "check the user, the password")
	})
	t.Run("a password from a file, which is read anew", func(t *testing.T) {
		name := file(t, []byte("limited-secret\n"))
		schema := newSchema()
		p.Exec("CREATE SCHEMA " + schema + " AUTHORIZATION limited")
		c := postgres.Config{URL: as(t, p.URL, "limited", "wrong-secret"), Schema: schema, PasswordFile: name}
		granted(t, open(t, c))
		c.PasswordFile = name + "-missing"
		refused(t, c, "the password file: ")
		c.PasswordFile = file(t, []byte("\n"))
		refused(t, c, "write the password into it")
	})
	t.Run("a database that is missing", func(t *testing.T) {
		refused(t, postgres.Config{URL: strings.Replace(p.URL, "/postgres?", "/missing?", 1)}, "create the database")
	})
	t.Run("a server that is missing", func(t *testing.T) {
		refused(t, postgres.Config{URL: strings.Replace(p.URL, p.Addr, "127.0.0.1:1", 1)}, "connection refused")
	})
	t.Run("a database that takes no writes", func(t *testing.T) {
		p.Exec("CREATE DATABASE readonly; ")
		p.Exec("ALTER DATABASE readonly SET default_transaction_read_only = on")
		refused(t, postgres.Config{URL: strings.Replace(p.URL, "/postgres?", "/readonly?", 1)}, "takes no writes")
	})
	t.Run("settings that make no sense", func(t *testing.T) {
		refused(t, postgres.Config{URL: p.URL, Timeout: -1}, "timeout -1ns")
		refused(t, postgres.Config{URL: p.URL, MaxConns: -1}, "-1 connections")
		refused(t, postgres.Config{URL: p.URL, Schema: `x"; DROP`}, "the schema's name")
	})
	t.Run("clocks are compared", func(t *testing.T) {
		if skew := begun(t, p.URL, newSchema()).Skew(); skew.Abs() > 10*time.Second {
			t.Errorf("skew of one machine: %s", skew)
		}
	})
}

func TestStatements(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	// failing has the server fail each insert into spent so.
	failing := func(t *testing.T, body string) *postgres.Store {
		t.Helper()
		schema := newSchema()
		s := begun(t, p.URL, schema)
		p.Exec("CREATE FUNCTION " + schema + ".fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + "; RETURN NEW; END $$")
		p.Exec("CREATE TRIGGER fail BEFORE INSERT ON " + schema + ".spent EXECUTE FUNCTION " + schema + ".fail()")
		return s
	}
	for _, row := range []struct {
		name, body string
		want       error
	}{
		{"a full disk", "RAISE EXCEPTION 'no room' USING ERRCODE = '53100'", ledger.ErrFull},
		{"a statement that is cancelled", "RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'", ledger.ErrUnavailable},
		{"a server that takes no more writes", "RAISE EXCEPTION 'read only' USING ERRCODE = '25006'", ledger.ErrUnavailable},
		{"a session that is ended", "PERFORM pg_terminate_backend(pg_backend_pid())", ledger.ErrUnknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := failing(t, row.body)
			err := s.Reserve(t.Context(), fresh())
			want(t, "reserve", err, row.want)
			if errors.Is(row.want, ledger.ErrUnavailable) && !strings.Contains(err.Error(), "SQLSTATE") {
				t.Errorf("the error does not say the SQLSTATE: %v", err)
			}
		})
	}
	t.Run("another session than the one that was looked at writes nothing", func(t *testing.T) {
		s := open(t, postgres.Config{URL: p.URL, Schema: newSchema(), MaxConns: 1})
		if err := s.Confuse(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		c := fresh()
		want(t, "reserve through it", s.Reserve(t.Context(), c), ledger.ErrUnavailable)
		want(t, "reserve through a new one", again(t, s, c), nil)
	})
	t.Run("a row that was deleted begins anew", func(t *testing.T) {
		schema := newSchema()
		s := begun(t, p.URL, schema)
		c := granted(t, s)
		p.Exec("DELETE FROM " + schema + ".ledger")
		want(t, "reserve", s.Reserve(t.Context(), fresh()), ledger.ErrUnavailable)
		second := open(t, postgres.Config{URL: p.URL, Schema: schema})
		want(t, "reserve what was issued before", second.Reserve(t.Context(), ledger.Claim{
			Key: numbered(1 << 41), IssuedAt: c.IssuedAt, Until: c.Until,
		}), ledger.ErrFenced)
	})
	t.Run("a fence that another raised holds at once", func(t *testing.T) {
		schema := newSchema()
		s := begun(t, p.URL, schema)
		granted(t, s)
		p.Exec(fmt.Sprintf("UPDATE %s.ledger SET fence_before = %d", schema, time.Now().Add(time.Minute).UnixNano()))
		want(t, "reserve", s.Reserve(t.Context(), fresh()), ledger.ErrFenced)
	})
	t.Run("a loser writes nothing", func(t *testing.T) {
		s := begun(t, p.URL, newSchema())
		c := granted(t, s)
		number := func() int {
			n, err := strconv.Atoi(p.Query("SELECT pg_current_xact_id()"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := number()
		for range 100 {
			want(t, "reserve again", s.Reserve(t.Context(), other(c)), ledger.ErrReserved)
		}
		if n := number() - before; n > 50 { // The server itself writes now and then.
			t.Errorf("%d transactions wrote", n)
		}
	})
}

func TestSweep(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	turn := func(schema string) { p.Exec("UPDATE " + schema + ".ledger SET swept = 0") }
	count := func(schema string) string { return p.Query("SELECT count(*) FROM " + schema + ".spent") }

	t.Run("100,000 keys that are over do not hold up who reserves", func(t *testing.T) {
		schema := newSchema()
		s := begun(t, p.URL, schema)
		kept := granted(t, s)
		over := time.Now().Add(-time.Minute).UnixNano()
		p.Exec(fmt.Sprintf("INSERT INTO %s.spent SELECT sha256(n::text::bytea), substr(sha256(n::text::bytea), 1, 16), n, %d "+
			"FROM generate_series(1, 100000) AS n", schema, over))
		if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("the first turn: got %d keys, %v, want none: a claim may be under way that has read the older mark", n, err)
		}
		if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("a turn at once: got %d keys, %v, want none", n, err)
		}
		turn(schema)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if n, err := s.Sweep(context.Background()); n != 100_000 || err != nil {
				t.Errorf("the second turn: got %d keys, %v, want 100000", n, err)
			}
		}()
		n := 0
		for sweeping := true; sweeping; n++ {
			select {
			case <-done:
				sweeping = false
			default:
			}
			want(t, "reserve meanwhile", s.Reserve(t.Context(), fresh()), nil)
		}
		if n < 3 {
			t.Errorf("only %d reserves while keys were deleted", n)
		}
		want(t, "reserve what is kept", s.Reserve(t.Context(), other(kept)), ledger.ErrReserved)
		late := fresh()
		late.Until = time.Unix(0, over)
		want(t, "reserve what was forgotten", s.Reserve(t.Context(), late), ledger.ErrFenced)
	})
	t.Run("a clock that is ahead takes nothing away", func(t *testing.T) {
		schema := newSchema()
		s := open(t, postgres.Config{URL: p.URL, Schema: schema, Now: func() time.Time { return time.Now().Add(24 * time.Hour) }})
		right := begun(t, p.URL, schema)
		late := fresh()
		late.IssuedAt = late.IssuedAt.Add(25 * time.Hour)
		want(t, "reserve", right.Reserve(t.Context(), late), nil)
		for range 3 {
			turn(schema)
			if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
				t.Errorf("sweep: got %d keys, %v, want none", n, err)
			}
		}
		if n := count(schema); n != "1" {
			t.Errorf("keys: got %s, want 1", n)
		}
	})
	t.Run("many keys are estimated, few are counted", func(t *testing.T) {
		schema := newSchema()
		s := begun(t, p.URL, schema)
		granted(t, s)
		granted(t, s)
		if stats, err := s.Stats(t.Context()); stats.Entries != 2 || err != nil {
			t.Errorf("stats: got %+v, %v, want 2 entries", stats, err)
		}
		p.Exec(fmt.Sprintf("INSERT INTO %s.spent SELECT sha256(n::text::bytea), substr(sha256(n::text::bytea), 1, 16), n, %d "+
			"FROM generate_series(1, 20000) AS n; ANALYZE %[1]s.spent", schema, time.Now().Add(time.Hour).UnixNano()))
		if stats, err := s.Stats(t.Context()); stats.Entries < 19_000 || stats.Entries > 21_000 || err != nil {
			t.Errorf("stats: got %+v, %v, want about 20,000 entries", stats, err)
		}
	})
}
