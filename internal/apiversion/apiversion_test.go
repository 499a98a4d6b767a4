package apiversion_test

import (
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/apiversion"
)

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		text string
		want apiversion.Version // "" is an error
	}{
		{"2026_04_01", "2026_04_01"},
		{"2026-04-01", "2026_04_01"},
		{"2028_02_29", "2028_02_29"},
		{"2026_02_29", ""},
		{"2026_4_1", ""},
		{"2026_04-01", ""},
		{"2026_04_01 ", ""},
		{"2026_04_01\n", ""},
		{"02026_04_01", ""},
		{"２０２６_04_01", ""},
		{"latest", ""},
		{"", ""},
	} {
		got, err := apiversion.Parse(c.text)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: got %q, %v, want %q", c.text, got, err, c.want)
		}
	}
}

// A declaration is a date, a build of the generated client, nothing, or an error; only a date declares a version.
func TestDeclarations(t *testing.T) {
	for _, c := range []struct {
		header string
		want   apiversion.Declaration
		bad    bool
	}{
		{"", apiversion.Declaration{}, false},
		{"2026-01-01", apiversion.Declaration{Version: "2026_01_01"}, false},
		{"API/0.0.1125", apiversion.Declaration{Build: "0.0.1125"}, false},
		{"API/0.0.927-next.1", apiversion.Declaration{Build: "0.0.927-next.1"}, false},
		{"API/", apiversion.Declaration{}, true},
		{"API/1", apiversion.Declaration{}, true},
		{"api/0.0.1125", apiversion.Declaration{}, true},
		{"0.0.1125", apiversion.Declaration{}, true},
		{"API/2026_04_01", apiversion.Declaration{}, true},
		{"2026_01_01, 2026_04_01", apiversion.Declaration{}, true},
	} {
		got, err := apiversion.ParseDeclaration(c.header)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: got %+v, %v", c.header, got, err)
		}
	}
}

func TestSDKs(t *testing.T) {
	for _, c := range []struct {
		header string
		want   apiversion.SDK
		bad    bool
	}{
		{"ClientSDK/1.27.1", apiversion.SDK{Name: "ClientSDK", Release: "1.27.1"}, false},
		{"WalletKit/5.0.0-alpha.1", apiversion.SDK{Name: "WalletKit", Release: "5.0.0-alpha.1"}, false},
		{"4.76.0", apiversion.SDK{Name: "WalletKit", Release: "4.76.0"}, false},
		{"4.76.0+abc", apiversion.SDK{Name: "WalletKit", Release: "4.76.0+abc"}, false},
		{"4.76.0-alpha.1", apiversion.SDK{Name: "WalletKit", Release: "4.76.0-alpha.1"}, false},
		{"WalletKit/5.0.0-alpha.1+b-2", apiversion.SDK{Name: "WalletKit", Release: "5.0.0-alpha.1+b-2"}, false},
		{"Another-SDK/1.0.0", apiversion.SDK{Name: "Another-SDK", Release: "1.0.0"}, false},
		{"walletkit/4.76.0", apiversion.SDK{Name: "walletkit", Release: "4.76.0"}, false},
		{"", apiversion.SDK{}, false},
		{"undefined", apiversion.SDK{}, true},
		{"WalletKit", apiversion.SDK{}, true},
		{"WalletKit/undefined", apiversion.SDK{}, true},
		{"WalletKit/04.76.0", apiversion.SDK{}, true},
		{"WalletKit/4.76.0, ClientSDK/1.27.1", apiversion.SDK{}, true},
		{"ClientSDK/", apiversion.SDK{}, true},
		{"/1.27.1", apiversion.SDK{}, true},
		{"ClientSDK/v1.27.1", apiversion.SDK{}, true},
		{"ClientSDK/1.27", apiversion.SDK{}, true},
		{"Client SDK/1.27.1", apiversion.SDK{}, true},
		{"ClientSDK/1.27.1/x", apiversion.SDK{}, true},
		{strings.Repeat("a", 33) + "/1.27.1", apiversion.SDK{}, true},
		{"ClientSDK/1.27.1-" + strings.Repeat("a", 64), apiversion.SDK{}, true},
	} {
		got, err := apiversion.ParseSDK(c.header)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: got %+v, %v", c.header, got, err)
		}
	}
}

// The iframe's core counts for itself: as WalletKit it would be older than every minimum.
func TestTheWalletSDKIsNotWalletKit(t *testing.T) {
	for _, c := range []struct {
		header string
		want   apiversion.SDK
		bad    bool
	}{
		{"1.0.99", apiversion.SDK{Name: "WalletSDK", Release: "1.0.99"}, false},
		{"1.0.99-rc.1+b", apiversion.SDK{Name: "WalletSDK", Release: "1.0.99-rc.1+b"}, false},
		{"", apiversion.SDK{}, false},
		{"WalletKit/4.76.0", apiversion.SDK{}, true},
		{"undefined", apiversion.SDK{}, true},
	} {
		got, err := apiversion.ParseWalletSDK(c.header)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q: got %+v, %v", c.header, got, err)
		}
	}
}

func TestOrder(t *testing.T) {
	for _, c := range []struct{ older, newer apiversion.Release }{
		{"", "0.0.1"},
		{"4.9.0", "4.76.0"},
		{"4.76.0-alpha.1", "4.76.0"},
		{"4.76.0-alpha.1+abc", "4.76.0"},
		{"0.24.1-rc.1", "0.24.1"},
		{"0.24.1-rc.2", "0.24.1-rc.10"},
		{"4.76.0", "5.0.0-alpha.1"},
	} {
		if !c.older.Less(c.newer) || c.newer.Less(c.older) {
			t.Errorf("%q is not older than %q", c.older, c.newer)
		}
	}
	if apiversion.Release("1.2.3+build").Less("1.2.3") || apiversion.Release("1.2.3").Less("1.2.3+build") {
		t.Error("build metadata orders releases")
	}
	if v := apiversion.Version(""); !v.Less("2026_01_01") || apiversion.Version("2026_04_01").Less("2026_01_01") {
		t.Error("versions are not ordered by date")
	}
}

// FuzzHeaders: whatever a client sends, what is accepted is short, is printable, and reads the same once more.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"", "2026_04_01", "2026-04-01", "API/0.0.1125", "ClientSDK/1.27.1", "4.76.0-rc.1+b", "API/\x00", "é/1.2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := apiversion.ParseDeclaration(s); err == nil && d.Version != "" {
			again, err := apiversion.Parse(string(d.Version))
			if err != nil || again != d.Version || len(again) != len("2026_04_01") {
				t.Errorf("%q became %q, and that %q, %v", s, d.Version, again, err)
			}
		}
		if core, err := apiversion.ParseWalletSDK(s); err == nil && core.Name != "" {
			if kit, err := apiversion.ParseSDK(s); err != nil || kit.Name != apiversion.WalletKit || kit.Release != core.Release {
				t.Errorf("%q is the release %q in one header and %+v, %v in the other", s, core.Release, kit, err)
			}
		}
		sdk, err := apiversion.ParseSDK(s)
		if err != nil || sdk.Name == "" {
			return
		}
		again, err := apiversion.ParseSDK(sdk.Name + "/" + string(sdk.Release))
		if err != nil || again != sdk {
			t.Errorf("%q became %+v, and that %+v, %v", s, sdk, again, err)
		}
		for _, c := range []byte(sdk.Name + string(sdk.Release)) {
			if c <= ' ' || c > '~' || c == '"' || c == '\\' {
				t.Errorf("%q was accepted with the byte %#x", s, c)
			}
		}
	})
}
