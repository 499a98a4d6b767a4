//go:build !unix

package postgres

import "net"

// alive cannot look without reading here: the first operation on a connection that has ended finds out.
func alive(net.Conn) bool { return true }
