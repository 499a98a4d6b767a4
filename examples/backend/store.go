package backend

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// One bucket for each kind of record; records are JSON, counts are big-endian.
const (
	bucketUsers   = "users"   // user id: user
	bucketWallets = "wallets" // wallet id: wallet
	bucketIntents = "intents" // intent: the business account it is for
	bucketCounts  = "counts"  // method, space, path: how often it was called
)

// user is what the backend keeps about one; who users are, the gate knows.
type user struct {
	ID      string   `json:"id"`
	Wallets []string `json:"wallets"`
}

// wallet is an Ed25519 key pair.
type wallet struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Address string    `json:"address"`
	Seed    []byte    `json:"seed"`
	Shares  int       `json:"shares"` // how often its key shares were refreshed
	Deleted bool      `json:"deleted"`
	Created time.Time `json:"created"`
}

func (b *Backend) makeBuckets() error {
	// Losing a count with the power is no loss, and a write to disk for each read would be one. Keys are synced: see update.
	b.db.NoSync = true
	return b.update(func(tx *bolt.Tx) error {
		for _, name := range []string{bucketUsers, bucketWallets, bucketIntents, bucketCounts} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("create bucket %s: %w", name, err)
			}
		}
		return nil
	})
}

// update runs f in one transaction, which is on disk when update returns.
func (b *Backend) update(f func(tx *bolt.Tx) error) error {
	if err := b.db.Update(f); err != nil {
		return err
	}
	return b.db.Sync()
}

func put(tx *bolt.Tx, bucket, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", bucket, err)
	}
	return tx.Bucket([]byte(bucket)).Put([]byte(key), raw)
}

// get reports whether there is a record, and reads it into value.
func get(tx *bolt.Tx, bucket, key string, value any) (bool, error) {
	raw := tx.Bucket([]byte(bucket)).Get([]byte(key))
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return false, fmt.Errorf("decode %s: %w", bucket, err)
	}
	return true, nil
}

func remove(tx *bolt.Tx, bucket, key string) error {
	return tx.Bucket([]byte(bucket)).Delete([]byte(key))
}

// load reads a user; whoever the gate lets in and the file does not know is a new one.
func load(tx *bolt.Tx, id string) (user, error) {
	u := user{ID: id}
	_, err := get(tx, bucketUsers, id, &u)
	return u, err
}

// loadWallet finds a wallet of this user's. To everybody else it does not exist.
func loadWallet(tx *bolt.Tx, id, user string) (wallet, error) {
	var w wallet
	known, err := get(tx, bucketWallets, id, &w)
	if err == nil && (!known || w.User != user) {
		err = notFound("Wallet")
	}
	return w, err
}

func (b *Backend) count(method, path string) error {
	return b.db.Update(func(tx *bolt.Tx) error {
		counts, key := tx.Bucket([]byte(bucketCounts)), []byte(method+" "+path)
		var n uint64
		if raw := counts.Get(key); raw != nil {
			n = binary.BigEndian.Uint64(raw)
		}
		return counts.Put(key, binary.BigEndian.AppendUint64(nil, n+1))
	})
}

// Counts returns how often each method and path, such as "GET /api/v0/sdk/…/users", was called: all that ever reached the
// backend, whatever came of it, since the file was made.
func (b *Backend) Counts() (map[string]int, error) {
	all := map[string]int{}
	err := b.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketCounts)).ForEach(func(k, v []byte) error {
			all[string(k)] = int(binary.BigEndian.Uint64(v))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("backend: read counts: %w", err)
	}
	return all, nil
}

// Executions returns how often a path was called, by whatever method; see Counts. It is -1 if the file cannot be read, which
// no caller can take for a count.
func (b *Backend) Executions(path string) int {
	all, err := b.Counts()
	if err != nil {
		b.cfg.Log.Error("count", "error", err)
		return -1
	}
	sum := 0
	for call, n := range all {
		if _, p := cut(call); p == path {
			sum += n
		}
	}
	return sum
}

func cut(call string) (method, path string) {
	method, path, _ = strings.Cut(call, " ")
	return method, path
}

// newID returns a random UUID (RFC 9562 version 4): Dynamic's ids are such.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
