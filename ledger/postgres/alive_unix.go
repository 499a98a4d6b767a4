//go:build unix

package postgres

import (
	"errors"
	"net"
	"syscall"
)

// alive reports whether an idle connection may still reach its server. One whose server has ended has its end to read. To
// find that out by a statement would be too late: it could be one of which nobody knows whether it was carried out.
func alive(c net.Conn) bool {
	s, ok := underTLS(c).(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	// Not raw.Read, which would wait for a reader that pgx may have left behind after a write that took long.
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// What a server says unasked is most often that it ends.
		quiet = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && quiet
}
