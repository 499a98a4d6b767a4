package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The headers by which the SDK makes a device known, and the one that brings back the token of the link in the mail. Dynamic's
// OpenAPI text names the last one differently from what its SDKs send; both work.
const (
	headerNonce       = "x-dynamic-device-nonce"
	headerPublicKey   = "x-dynamic-device-publickey"
	headerSignedNonce = "x-dynamic-device-signed-nonce"
	headerDeviceToken = "x-dynamic-device-registration-token" // #nosec G101 -- a header's name
	headerDeviceOther = "x-dynamic-device-token-registration" // #nosec G101 -- a header's name
)

const (
	nonceLifetime       = 24 * time.Hour
	maxNonces           = 20
	deviceTokenLifetime = 15 * time.Minute
)

// device is a registered one.
type device struct {
	ID        string    `json:"id"`
	PublicKey string    `json:"publicKey"` // or, in cookie mode, the hash of its cookie
	UserAgent string    `json:"userAgent"`
	CreatedAt time.Time `json:"createdAt"`
}

func (u *user) device(id string) *device {
	if n := slices.IndexFunc(u.Devices, func(d device) bool { return d.ID == id }); n >= 0 {
		return &u.Devices[n]
	}
	return nil
}

// deviceToken stands behind the link that approves a device. It is good for the user and the device that it was made for.
type deviceToken struct {
	User      string `json:"user"`
	PublicKey string `json:"publicKey"`
	expiring
}

// GET /nonce
func (i *Issuer) getNonce(*http.Request) (any, error) {
	nonces, err := i.newNonces(1)
	if err != nil {
		return nil, err
	}
	return map[string]string{"nonce": nonces[0]}, nil
}

// GET /nonces?count=5
func (i *Issuer) getNonces(r *http.Request) (any, error) {
	count := 1
	if raw := r.URL.Query().Get("count"); raw != "" {
		n, err := strconv.Atoi(raw)
		if err != nil || n < 1 || n > maxNonces {
			return nil, fail(http.StatusBadRequest, "bad_request", "count: want 1 to "+strconv.Itoa(maxNonces))
		}
		count = n
	}
	nonces, err := i.newNonces(count)
	return map[string][]string{"nonces": nonces}, err
}

func (i *Issuer) newNonces(count int) ([]string, error) {
	nonces := make([]string, count)
	err := i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketNonces, i.cfg.Now()); err != nil {
			return err
		}
		for n := range nonces {
			nonces[n] = strings.ReplaceAll(newID(), "-", "") // EIP-4361 wants letters and digits
			if err := put(tx, bucketNonces, nonces[n], i.expiry(nonceLifetime)); err != nil {
				return err
			}
		}
		return nil
	})
	return nonces, err
}

// spendNonce takes a nonce that was given out and has not been used, and says whether there was one.
func (i *Issuer) spendNonce(tx *bolt.Tx, nonce string) (bool, error) {
	var e expiring
	known, err := get(tx, bucketNonces, nonce, &e)
	if err != nil || !known || i.cfg.Now().After(e.Expires) {
		return false, err
	}
	return true, remove(tx, bucketNonces, nonce)
}

// deviceKey returns the public key of the device that a request proves to come from, empty if it does not try. The nonce is
// spent in the caller's transaction. In cookie mode the device's cookie stands for the key.
func (i *Issuer) deviceKey(tx *bolt.Tx, r *http.Request) (string, error) {
	if i.keepsCookies() {
		return deviceByCookie(r), nil
	}
	nonce, publicKey := r.Header.Get(headerNonce), r.Header.Get(headerPublicKey)
	if publicKey == "" {
		return "", nil
	}
	fresh, err := i.spendNonce(tx, nonce)
	if err != nil {
		return "", err
	}
	if !fresh || !signedBy(publicKey, nonce, r.Header.Get(headerSignedNonce)) {
		return "", fail(http.StatusBadRequest, "invalid_device_signature", "Device nonce or signature invalid")
	}
	return publicKey, nil
}

// signedBy checks a P-256 signature over SHA-256 of nonce: a compressed point, and r followed by s, both in hex.
func signedBy(publicKey, nonce, signature string) bool {
	point, err := hex.DecodeString(publicKey)
	if err != nil {
		return false
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), point)
	sig, err := hex.DecodeString(signature)
	if err != nil || x == nil || len(sig) != 64 {
		return false
	}
	uncompressed := slices.Concat([]byte{4}, x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32)))
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(nonce))
	return ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// admit decides whether somebody signs in on a known device. A new user's first device is registered without asking. On any
// other unknown device the session may only register it, by the link in the mail that admit returns. How the service reaches
// users who have neither an address nor a number is not documented; here no mail is sent and the device stays unregistered.
func (i *Issuer) admit(tx *bolt.Tx, r *http.Request, n *newSession, publicKey string) (*Mail, error) {
	for _, d := range n.user.Devices {
		if publicKey != "" && d.PublicKey == publicKey {
			n.device = d.ID
			return nil, nil
		}
	}
	if n.created && publicKey != "" {
		n.device = n.user.register(r, publicKey, i.cfg.Now())
		return nil, put(tx, bucketUsers, n.user.ID, n.user)
	}
	if n.created || !i.stepsUp() {
		return nil, nil
	}
	n.scope = scopeDeviceRegister
	to := n.user.mailbox()
	if to == "" {
		return nil, nil
	}
	if err := sweep(tx, bucketDeviceTokens, i.cfg.Now()); err != nil {
		return nil, err
	}
	token := newID()
	err := put(tx, bucketDeviceTokens, hash(token), deviceToken{n.user.ID, publicKey, i.expiry(deviceTokenLifetime)})
	return &Mail{To: to, Token: token, Link: i.site(r) + "/?deviceRegistrationToken=" + url.QueryEscape(token)}, err
}

// site is the origin that a request comes from, if it is one of ours: links lead nowhere else.
func (i *Issuer) site(r *http.Request) string {
	if origin := r.Header.Get("Origin"); slices.Contains(i.cfg.Origins, origin) {
		return origin
	}
	return i.cfg.Audience
}

func (u *user) register(r *http.Request, publicKey string, now time.Time) (id string) {
	d := device{ID: newID(), PublicKey: publicKey, UserAgent: r.UserAgent(), CreatedAt: now}
	u.Devices = append(u.Devices, d)
	return d.ID
}

// POST /deviceRegistration, with the token of the link in a header, from the device that signed in.
func (i *Issuer) registerDevice(r *http.Request, s session) (any, error) {
	token := r.Header.Get(headerDeviceToken)
	if token == "" {
		token = r.Header.Get(headerDeviceOther)
	}
	invalid := fail(http.StatusForbidden, "invalid_device_registration_token", "Device registration token invalid")
	n := s.next(user{})
	n.scope = scopeBasic
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		var t deviceToken
		known, err := get(tx, bucketDeviceTokens, hash(token), &t)
		if err != nil {
			return err
		}
		if !known || i.cfg.Now().After(t.Expires) || t.User != s.User || t.PublicKey != publicKey {
			return invalid
		}
		if publicKey == "" {
			return fail(http.StatusBadRequest, "invalid_device_signature", "Device headers missing")
		}
		n.device = u.register(r, publicKey, i.cfg.Now())
		n.user = *u
		return remove(tx, bucketDeviceTokens, hash(token))
	})
	if err != nil {
		return nil, err
	}
	return i.respond(n)
}

// GET /deviceRegistrations answers 401 for a user without any, as the service does.
func (i *Issuer) listDevices(_ *http.Request, s session) (any, error) {
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	if len(u.Devices) == 0 {
		return nil, errUnauthorized
	}
	type registration struct {
		ID        string    `json:"id"`
		Current   bool      `json:"isCurrentDevice"`
		UserAgent string    `json:"userAgent,omitempty"`
		CreatedAt time.Time `json:"createdAt"`
	}
	list := make([]registration, 0, len(u.Devices))
	for _, d := range u.Devices {
		list = append(list, registration{d.ID, d.ID == s.Device, d.UserAgent, d.CreatedAt})
	}
	return map[string]any{"count": len(list), "deviceRegistrations": list}, nil
}

// DELETE /deviceRegistrations/{id}
func (i *Issuer) deleteDevice(r *http.Request, s session) (any, error) {
	id := r.PathValue("id")
	return i.deleteDevices(s, func(d device) bool { return d.ID == id })
}

// DELETE /deviceRegistrations
func (i *Issuer) deleteAllDevices(_ *http.Request, s session) (any, error) {
	return i.deleteDevices(s, func(device) bool { return true })
}

// deleteDevices also ends the sessions of the devices: session tokens name theirs.
func (i *Issuer) deleteDevices(s session, which func(device) bool) (any, error) {
	if !s.complete() {
		return nil, errUnauthorized
	}
	current := false
	err := i.change(s.User, func(_ *bolt.Tx, u *user) error {
		before := len(u.Devices)
		u.Devices = slices.DeleteFunc(u.Devices, func(d device) bool {
			current = current || which(d) && d.ID == s.Device
			return which(d)
		})
		if len(u.Devices) == before {
			return fail(http.StatusNotFound, "not_found", "No such device registration")
		}
		return nil
	})
	return map[string]bool{"currentDeviceRevoked": current}, err
}
