package challenge

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/policy"
)

// informed is a refusal with everything that there is to tell.
func informed() *gate.Verdict {
	v := verdictFor(reason.ElevatedTokenRequired)
	v.SDK, v.SDKVersion, v.Advised = "ClientSDK", "0.24.0", "0.24.1"
	v.Gap = &policy.Gap{SDK: "ClientSDK", Note: "ClientSDK attaches no token here."}
	v.Requirement.Announced = &policy.Announcement{
		Version: "2026_10_01", Deprecation: time.Unix(1796083200, 0), Sunset: time.Date(2027, 2, 1, 10, 0, 0, 0, time.FixedZone("", 3600)),
		Link: "https://docs.example/2026",
	}
	return v
}

func TestWhatDevelopersAreTold(t *testing.T) {
	var b strings.Builder
	for _, form := range []struct {
		name   string
		header []string
	}{{"JSON", []string{"Origin", "https://app.example"}}, {"gRPC", []string{"Content-Type", "application/grpc"}}} {
		b.WriteString("== " + form.name + "\n" + dump(t, answer(newWriter(t, nil), request(form.header...), informed())) + "\n")
	}
	compare(t, filepath.Join("testdata", "informed.golden"), b.String())
}

func TestEveryKindOfChallengeTellsIt(t *testing.T) {
	for _, why := range reason.All() {
		v := verdictFor(why)
		if v.Requirement == nil {
			continue
		}
		from := informed()
		v.SDK, v.SDKVersion, v.Advised, v.Gap, v.Requirement.Announced = from.SDK, from.SDKVersion, from.Advised, from.Gap, from.Requirement.Announced
		var got problem
		if err := json.Unmarshal(answer(newWriter(t, nil), request(), v).Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		c := got.Challenge
		if c.Advice == nil || *c.Advice != (advice{"sdk_version_too_old", "ClientSDK", "0.24.1", "0.24.0"}) || c.ClientGap == "" ||
			c.AnnouncedVersion != "2026_10_01" || c.Sunset != "2027-02-01T09:00:00Z" {
			t.Errorf("%s: got %+v", why, c)
		}
	}
}

func (s *scopes) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = scopes{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// Whatever an SDK may be called, the field can be read (RFC 9651).
func TestAdviceIsAStructuredField(t *testing.T) {
	for _, declared := range []string{"ClientSDK/0.1.0", "a.B-c_9/0.0.0-x.1+y-2", strings.Repeat("Z", 32) + "/1.0.0"} {
		sdk, err := apiversion.ParseSDK(declared)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		Inform(h, &gate.Verdict{SDK: sdk.Name, SDKVersion: string(sdk.Release), Advised: sdk.Release})
		list, err := httpsfv.UnmarshalList(h["Stepward-Advice"])
		if err != nil || len(list) != 1 {
			t.Fatalf("%q: %v", h["Stepward-Advice"], err)
		}
		item, _ := list[0].(httpsfv.Item)
		name, _ := item.Params.Get("sdk")
		least, _ := item.Params.Get("minimum")
		if item.Value != httpsfv.Token("sdk_version_too_old") || name != sdk.Name || least != string(sdk.Release) {
			t.Errorf("%q reads %v", h["Stepward-Advice"], list)
		}
	}
}

func TestAnAnnouncementMayHaveNoDayAndNoLink(t *testing.T) {
	v := informed()
	v.Requirement.Announced = &policy.Announcement{Version: "2026_10_01", Deprecation: time.Unix(1796083200, 0)}
	rec := answer(newWriter(t, nil), request(), v)
	h := rec.Header()
	if h.Get("Deprecation") != "@1796083200" || h.Get("Sunset") != "" || h.Get("Link") != "" || strings.Contains(rec.Body.String(), `"sunset"`) {
		t.Errorf("got %v\n%s", h, rec.Body)
	}
}

func TestNothingIsToldWhereThereIsNothingToTell(t *testing.T) {
	h := http.Header{}
	for _, v := range []*gate.Verdict{{}, {Allow: true, Requirement: &policy.Requirement{Operation: "a"}}} {
		if Inform(h, v); len(h) > 0 {
			t.Errorf("got %v", h)
		}
	}
}

// The longest note that a policy may have fits, beside everything else.
func TestALongNoteIsKept(t *testing.T) {
	v := informed()
	v.Gap = &policy.Gap{SDK: "ClientSDK", Note: strings.Repeat("n", 400)}
	rec := answer(newWriter(t, nil), request(), v)
	if rec.Body.Len() >= maxBody || !strings.Contains(rec.Body.String(), v.Gap.Note) {
		t.Errorf("%d bytes: %s", rec.Body.Len(), rec.Body)
	}
}
