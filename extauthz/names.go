package extauthz

import (
	"maps"
	"net"
	"slices"

	"google.golang.org/grpc/peer"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// hostOf names a peer without its port, which differs from connection to connection.
func hostOf(p *peer.Peer) string {
	if p == nil || p.Addr == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		return host
	}
	return p.Addr.String()
}
