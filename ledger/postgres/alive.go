package postgres

import (
	"crypto/tls"
	"net"
)

// underTLS is the connection that the network knows.
func underTLS(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// hangUp closes without a word: tls.Conn.Close would wait for a server that hangs.
func hangUp(c net.Conn) { _ = underTLS(c).Close() }
