package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stepward/stepward/ledger"
)

// errUnclear is a statement of which nobody said what became of it.
var errUnclear = errors.New("no answer")

// SQLSTATE codes, from PostgreSQL's appendix A.
const (
	diskFull              = "53100"
	invalidSchema         = "3F000"
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
)

// failure says what an error of a statement means for what it was to write.
func failure(err error) error {
	var server *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: the table ledger has lost its row: restart to begin anew", ledger.ErrUnavailable)
	// An ERROR is of a transaction that was rolled back. FATAL may reach a session whose transaction was committed and that
	// waits for a standby.
	case errorOfServer(err):
		if errors.As(err, &server) && server.Code == diskFull {
			return fmt.Errorf("%w: %s", ledger.ErrFull, explain(err))
		}
		return fmt.Errorf("%w: %s", ledger.ErrUnavailable, explain(err))
	case pgconn.SafeToRetry(err):
		return fmt.Errorf("%w: %s", ledger.ErrUnavailable, explain(err))
	}
	return fmt.Errorf("%w: %s", errUnclear, explain(err))
}

// errorOfServer reports whether the server refused a statement and goes on.
func errorOfServer(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.SeverityUnlocalized == "ERROR"
}

// explain says what went wrong in one line that holds neither an address with a password nor a statement's parameters.
func explain(err error) string {
	var server *pgconn.PgError
	var network *net.OpError
	switch {
	case errors.As(err, &server):
		return fmt.Sprintf("%s (SQLSTATE %s)", server.Message, server.Code)
	case errors.As(err, &network):
		return network.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "the server did not answer in time"
	case errors.Is(err, context.Canceled):
		return "it was cancelled"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// refused is an error of Open, with what to do where that is known.
func refused(err error) error {
	var server *pgconn.PgError
	var stated *remedy
	switch {
	case errors.As(err, &stated):
		return stated
	case errors.As(err, &server):
		switch server.Code {
		case "28P01", "28000":
			return fmt.Errorf("%s: check the user, the password and the server's pg_hba.conf", explain(err))
		case "3D000":
			return fmt.Errorf("%s: create the database, or name another", explain(err))
		case insufficientPrivilege:
			return fmt.Errorf("%s: grant this user USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its "+
				"tables spent and ledger", explain(err))
		}
	case strings.Contains(err.Error(), "read only connection"), strings.Contains(err.Error(), "server is in hot standby"):
		return errors.New("the server takes no writes: name the primary, or all of its hosts")
	}
	return errors.New(explain(err))
}

// remedy is an error that says what to do.
type remedy struct{ text string }

func (r *remedy) Error() string { return r.text }
