package issuer

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// One bucket for each kind of record; records are JSON.
const (
	bucketMeta         = "meta"         // "keys": []storedKey
	bucketUsers        = "users"        // user id: user
	bucketCredentials  = "credentials"  // key of a credential: user id
	bucketVerification = "verification" // verificationUUID: verification
	bucketGuesses      = "guesses"      // key of a credential: guesses
	bucketDeviceTokens = "deviceTokens" // SHA-256 of the token in a device link: deviceToken
	bucketNonces       = "nonces"       // nonce: its expiry
	bucketMFATokens    = "mfaTokens"    // SHA-256 of the token: mfaToken
	bucketCeremonies   = "ceremonies"   // purpose and session id: a WebAuthn ceremony that has begun
	bucketAssertions   = "assertions"   // SHA-256 of the jti of an external assertion: its expiry
	bucketSocial       = "social"       // SHA-256 of a state: a social sign-in that has begun
	bucketRevoked      = "revoked"      // session id: until when its token could have been refreshed
)

// user is all that the issuer knows about a person.
type user struct {
	ID          string       `json:"id"`
	Profile     profile      `json:"profile"`
	Credentials []credential `json:"credentials"`
	Devices     []device     `json:"devices"`
	MFA         []totpDevice `json:"mfa"`
	Passkeys    []passkey    `json:"passkeys"`
	Recovery    recovery     `json:"recovery"`
	DefaultMFA  string       `json:"defaultMfa"` // the id of a device or a passkey; empty leaves the first
}

func (i *Issuer) makeBuckets() error {
	return i.db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{bucketMeta, bucketUsers, bucketCredentials, bucketVerification, bucketGuesses, bucketDeviceTokens,
			bucketNonces, bucketMFATokens, bucketCeremonies, bucketAssertions, bucketSocial, bucketRevoked} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("create bucket %s: %w", name, err)
			}
		}
		return nil
	})
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

// load reads a user. A user whom the file does not know is one about whom nothing is known yet: tokens for such a user can be
// made with SessionToken.
func load(tx *bolt.Tx, id string) (user, error) {
	u := user{ID: id}
	_, err := get(tx, bucketUsers, id, &u)
	return u, err
}

func (i *Issuer) user(id string) (user, error) {
	var u user
	err := i.db.View(func(tx *bolt.Tx) error {
		var err error
		u, err = load(tx, id)
		return err
	})
	return u, err
}

// change applies f to a user in one transaction. f may return *kept to say that its changes count although it failed, as those
// of a wrong guess do.
func (i *Issuer) change(id string, f func(tx *bolt.Tx, u *user) error) error {
	return i.update(func(tx *bolt.Tx) error {
		u, err := load(tx, id)
		if err != nil {
			return err
		}
		failed := f(tx, &u)
		if _, ok := errors.AsType[*kept](failed); failed != nil && !ok {
			return failed
		}
		if err := put(tx, bucketUsers, id, u); err != nil {
			return err
		}
		return failed
	})
}

// kept is an error after which the transaction is committed all the same.
type kept struct{ error }

func (k *kept) Unwrap() error { return k.error }

// update runs f in one transaction; see kept.
func (i *Issuer) update(f func(tx *bolt.Tx) error) error {
	var failed *kept
	err := i.db.Update(func(tx *bolt.Tx) error {
		err := f(tx)
		if errors.As(err, &failed) {
			return nil
		}
		return err
	})
	if err == nil && failed != nil {
		return failed.error
	}
	return err
}

// expiring is the part that all records which end by themselves have in common.
type expiring struct {
	Expires time.Time `json:"expires"`
}

// sweep removes the expired records of a bucket. Each record has a member expires.
func sweep(tx *bolt.Tx, bucket string, now time.Time) error {
	b := tx.Bucket([]byte(bucket))
	var old [][]byte
	err := b.ForEach(func(k, v []byte) error {
		var record expiring
		if err := json.Unmarshal(v, &record); err != nil {
			return fmt.Errorf("decode %s: %w", bucket, err)
		}
		if now.After(record.Expires) {
			old = append(old, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range old {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// newID returns a random UUID (RFC 9562 version 4): Dynamic's ids are such.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
