// Package apiversion reads the versions that clients and policies speak of: dated API versions such as 2026_04_01, SDK
// releases such as 4.76.0, and the two headers in which Dynamic's clients declare themselves.
package apiversion

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// Version is a dated API version in its canonical spelling, "2026_04_01". The zero value means "none". Versions are
// totally ordered by Less.
type Version string

// StepUp is the version from which step-up authentication replaces action-based MFA.
const StepUp Version = "2026_04_01"

// Parse reads "2026_04_01" or "2026-04-01", which mean the same. Anything else, including a day that no calendar has and
// mixed separators, is an error.
func Parse(s string) (Version, error) {
	for _, layout := range [...]string{"2006_01_02", "2006-01-02"} {
		if day, err := time.Parse(layout, s); err == nil && len(s) == len(layout) {
			return Version(day.Format("2006_01_02")), nil
		}
	}
	return "", fmt.Errorf("api version %.32q: want a date such as 2026_04_01", s)
}

// Less reports whether v is older than w. None is older than every version.
func (v Version) Less(w Version) bool { return v < w }

// Declaration is what a client says in the API version header.
type Declaration struct {
	// Version is the declared dated version; zero when the client declared none.
	Version Version
	// Build is the generated client's release, such as "0.0.1125", when the header carries API/<semver>.
	Build Release
}

// ParseDeclaration reads the API version header: a date is a declared version, "API/<semver>" and "" are undeclared
// (dynamic.md f), anything else is an error.
func ParseDeclaration(header string) (Declaration, error) {
	if header == "" {
		return Declaration{}, nil
	}
	if build, ok := strings.CutPrefix(header, "API/"); ok {
		r, err := ParseRelease(build)
		return Declaration{Build: r}, err
	}
	v, err := Parse(header)
	return Declaration{Version: v}, err
}

// Release is an SDK release in semantic versioning without a leading v, such as "4.76.0" or "5.0.0-alpha.1". The zero
// value means "unknown". Releases are ordered by Less, build metadata aside.
type Release string

// ParseRelease reads a full major.minor.patch release of at most 64 bytes.
func ParseRelease(s string) (Release, error) {
	core, _, _ := strings.Cut(s, "-")
	if len(s) > 64 || !semver.IsValid("v"+s) || strings.Count(core, ".") < 2 {
		return "", fmt.Errorf("release %.32q: want major.minor.patch such as 4.76.0", s)
	}
	return Release(s), nil
}

// Less reports whether r is older than s. Unknown is older than every release.
func (r Release) Less(s Release) bool { return semver.Compare("v"+string(r), "v"+string(s)) < 0 }

// SDK is a client library and its release. The zero value is an unknown one.
type SDK struct {
	Name    string // "WalletKit", "ClientSDK", …; "" when unknown
	Release Release
}

// The names of Dynamic's libraries. The first two are their own words (SDK_NAMESPACE of @dynamic-labs-wallet/core); the third
// is ours for that core itself, which declares a release without a name.
const (
	WalletKit = "WalletKit" // React, React Native, and what shows itself in the web view of Flutter, Kotlin and Swift apps
	ClientSDK = "ClientSDK" // JavaScript
	WalletSDK = "WalletSDK" // the wallet iframe's core
)

// ParseSDK reads how a client names its SDK, in the SDK version header and in the session claim sdkVersion: "NS/<semver>", where
// a bare semver is WalletKit's, as parseNamespacedVersion of @dynamic-labs-wallet/core reads it (dynamic.md g). A name that is
// neither of Dynamic's two stays what it is, although that function takes it for WalletKit's: a minimum of WalletKit says nothing
// about another library. "" is unknown and no error.
func ParseSDK(header string) (SDK, error) {
	if header == "" {
		return SDK{}, nil
	}
	name, release, ok := strings.Cut(header, "/")
	if !ok {
		name, release = WalletKit, header
	}
	if !isName(name) {
		return SDK{}, fmt.Errorf("sdk version %.32q: want a name and a release such as WalletKit/4.76.0", header)
	}
	r, err := ParseRelease(release)
	if err != nil {
		return SDK{}, err
	}
	return SDK{Name: name, Release: r}, nil
}

// ParseWalletSDK reads the wallet SDK version header of the iframe: the bare release of its core, such as "1.0.99", which must
// not be read as WalletKit's. "" is unknown and no error.
func ParseWalletSDK(header string) (SDK, error) {
	if header == "" {
		return SDK{}, nil
	}
	r, err := ParseRelease(header)
	if err != nil {
		return SDK{}, err
	}
	return SDK{Name: WalletSDK, Release: r}, nil
}

func isName(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
