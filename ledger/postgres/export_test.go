package postgres

import "context"

// Sweep is a turn of the sweeper, at once.
func (s *Store) Sweep(ctx context.Context) (int64, error) { return s.sweepOnce(ctx) }

// Setting is what a session that reserves shows.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	var value string
	err := s.pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value)
	return value, err
}

// Confuse makes an idle connection take its session for another one, as behind a pooler that hands out transactions.
func (s *Store) Confuse(ctx context.Context) error {
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	c.Conn().PgConn().CustomData()[backendKey] = int32(1)
	return nil
}
