package postgres_test

import (
	"strings"
	"testing"

	"github.com/stepward/stepward/ledger/postgres"
)

func TestParseURL(t *testing.T) {
	for _, row := range []struct{ url, says string }{
		{"postgres://stepward@db.internal/stepward?sslmode=verify-full", ""},
		{"postgresql://stepward:p%40ss@db:5432/stepward", ""},
		{"postgres://a:1,b:2/stepward?target_session_attrs=read-write&connect_timeout=1", ""},
		{"postgres://[::1]:5432/stepward", ""},
		{"postgres:///stepward?host=/run/postgresql", ""},
		{"", "is not PostgreSQL's"},
		{"host=db password=hunter2", "is not PostgreSQL's"},
		{"postgres:stepward", "is not PostgreSQL's"},
		{"mysql://hunter2@db/", "is not PostgreSQL's"},
		{"postgres://", "names no host"},
		{"postgres:///stepward", "names no host"},
		{"postgres://user:hunter2%@db/x", "cannot be read as a URL"},
		{"postgres://user:hunter2@db:port/x", "cannot be read as a URL"},
		{"postgres://user:hunter2@db:99999/x", "do not understand"},
		{"postgres://user:hunter2@db/x?sslmode=hunter2", "unknown sslmode"},
		{"postgres://user:hunter2@db/x?sslrootcert=/missing/ca.pem", "the address's sslrootcert: open /missing/ca.pem"},
		{"postgres://user:hunter2@db/x?target_session_attrs=standby", "takes no writes"},
		{"postgres://user:hunter2@db/x?connect_timeout=hunter2", "do not understand"},
		{"postgres://user:hunter2@db/x?a=%zz", "options that cannot be read"},
	} {
		err := postgres.ParseURL(row.url)
		switch {
		case row.says == "" && err != nil:
			t.Errorf("%s: %v", row.url, err)
		case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
			t.Errorf("%s: got %v, want that it says %q", row.url, err, row.says)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error has the password: %v", row.url, err)
		}
	}
}

func TestMigrationIsForAKnownName(t *testing.T) {
	for _, row := range []struct{ schema, has string }{
		{"", `CREATE SCHEMA IF NOT EXISTS "stepward";`}, {"other", `"other".spent`},
	} {
		if sql, err := postgres.Migration(row.schema); err != nil || !strings.Contains(sql, row.has) || strings.Contains(sql, "$") {
			t.Errorf("%q: got %v, want %s in\n%s", row.schema, err, row.has, sql)
		}
	}
	for _, schema := range []string{"pg_x", "Upper", `a"b`, "1", strings.Repeat("a", 64)} {
		if _, err := postgres.Migration(schema); err == nil {
			t.Errorf("%q: got no error", schema)
		}
	}
}

// FuzzParseURL looks for an address whose error says the password.
func FuzzParseURL(f *testing.F) {
	for _, url := range []string{"postgres://u:%s@h:1/d", "postgresql://%s", "postgres://u:%s@h,%s/d?sslmode=%s", "%s", "postgres://h/?x=%s"} {
		f.Add(strings.ReplaceAll(url, "%s", "hunter2"))
	}
	f.Fuzz(func(t *testing.T, url string) {
		// A file's name is said.
		if strings.Contains(url, "sslrootcert") || strings.Contains(url, "sslcert") || strings.Contains(url, "sslkey") {
			t.Skip()
		}
		if err := postgres.ParseURL(url); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	})
}
