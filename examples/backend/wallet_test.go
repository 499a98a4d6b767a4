package backend_test

import (
	"bufio"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/backend"
)

func TestSignaturesVerify(t *testing.T) {
	w := newWorld(t)
	wallet := w.wallet("ann")
	got := w.do("ann", "POST", "/waas/"+wallet.ID+"/signMessage", m{"message": "pay Bob"})
	signature, err := hex.DecodeString(got.Signature)
	if err != nil || !ed25519.Verify(wallet.Public, []byte("pay Bob"), signature) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAnExportCanBeReadByWhoAskedOnly(t *testing.T) {
	w := newWorld(t)
	wallet := w.wallet("ann")
	key, other := exportKey(t), exportKey(t)
	got := w.do("ann", "POST", "/waas/"+wallet.ID+"/privateKey/export", m{"exportId": key.ID()})
	private, err := key.Open(got.EncryptedPrivateKey)
	if err != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !wallet.Public.Equal(private.Public()) {
		t.Error("exported another key")
	}
	if _, err := other.Open(got.EncryptedPrivateKey); err == nil {
		t.Error("a stranger could read it")
	}
	for _, id := range []string{"", "!", "AAAA", strings.Repeat("A", 44), strings.Repeat("A", 43)} {
		refuse(t, w.do("ann", "POST", "/waas/"+wallet.ID+"/privateKey/export", m{"exportId": id}), 422, "invalid_export_id")
	}
}

func exportKey(t *testing.T) *backend.ExportKey {
	t.Helper()
	key, err := backend.NewExportKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestWalletsOfOthersDoNotExist(t *testing.T) {
	w := newWorld(t)
	wallet := w.wallet("ann")
	for _, call := range []string{
		"POST /waas/" + wallet.ID + "/signMessage", "POST /waas/" + wallet.ID + "/privateKey/export",
		"POST /waas/" + wallet.ID + "/refresh", "GET /waas/byWalletAddress/" + wallet.Address,
		"DELETE /users/embeddedWallets/" + wallet.ID + "/softDelete", "PUT /users/embeddedWallets/" + wallet.ID + "/restore",
	} {
		method, path, _ := strings.Cut(call, " ")
		refuse(t, w.do("bob", method, path, m{"exportId": exportKey(t).ID()}), 404, "not_found")
	}
}

func TestADeletedWalletDoesNothingUntilRestored(t *testing.T) {
	w := newWorld(t)
	created := w.do("ann", "POST", "/waas/create", m{"chain": "SVM"})
	if created.Status != 200 || len(created.AccountAddress) < 32 {
		t.Fatalf("create: got %+v", created)
	}
	find := func() answer { return w.do("ann", "GET", "/waas/byWalletAddress/"+created.AccountAddress, nil) }
	if got := find(); got.WalletID != created.WalletID {
		t.Errorf("by address: got %+v", got)
	}
	if got := w.do("ann", "DELETE", "/users/embeddedWallets/"+created.WalletID+"/softDelete", nil); got.Status != 204 {
		t.Errorf("delete: got %d", got.Status)
	}
	refuse(t, find(), 404, "not_found")
	refuse(t, w.do("ann", "POST", "/waas/"+created.WalletID+"/signMessage", m{"message": "x"}), 404, "not_found")
	if got := w.do("ann", "PUT", "/users/embeddedWallets/"+created.WalletID+"/restore", nil); got.Status != 204 {
		t.Errorf("restore: got %d", got.Status)
	}
	if got := w.do("ann", "POST", "/waas/"+created.WalletID+"/refresh", m{}); got.Status != 200 || got.WalletID != created.WalletID {
		t.Errorf("refresh: got %+v", got)
	}
	refuse(t, w.do("ann", "POST", "/waas/create", m{"chain": "EVM"}), 422, "invalid_chain")
}

func TestSigningStreams(t *testing.T) {
	const pause = 300 * time.Millisecond
	w := newWorld(t, func(c *backend.Config) { c.Pause = pause })
	wallet := w.wallet("ann")
	path := "/waas/" + wallet.ID + "/signMessage"
	res := w.send("ann", "POST", path, m{"message": "pay Bob"}, "Accept", "text/event-stream")
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("got %d %q", res.StatusCode, got)
	}
	events := bufio.NewReader(res.Body)
	name, _ := next(t, events)
	first := time.Now()
	if name != "room_created" {
		t.Errorf("first event: got %q", name)
	}
	name, data := next(t, events)
	if waited := time.Since(first); waited < pause/2 {
		t.Errorf("the first event came only %v before the second: it was held back", waited)
	}
	if name != "ceremony_complete" || data.WalletID != wallet.ID || data.Signature == "" {
		t.Errorf("second event: got %q %+v", name, data)
	}
	if _, err := events.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}

	whole := w.do("ann", "POST", path, m{"message": "pay Bob"}, "Accept", "text/event-stream", "x-idempotency-key", "1")
	if whole.Signature != data.Signature {
		t.Errorf("with an idempotency key: got %+v", whole)
	}
	refuse(t, w.do("bob", "POST", path, m{"message": "x"}, "Accept", "text/event-stream"), 404, "not_found")
}

func next(t *testing.T, events *bufio.Reader) (name string, data answer) {
	t.Helper()
	for {
		line, err := events.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		if value, ok := strings.CutPrefix(line, "event: "); ok {
			name = value
		}
		if value, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				t.Fatal(err)
			}
		}
		if line == "" {
			return name, data
		}
	}
}
