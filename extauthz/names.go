package extauthz

import (
	"maps"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/peer"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func lowered(names []string) []string {
	for i, name := range names {
		names[i] = strings.ToLower(name)
	}
	return names
}

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
