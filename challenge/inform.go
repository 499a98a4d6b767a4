package challenge

import (
	"net/http"
	"strconv"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
)

// adviceHeader is an RFC 9651 list of tokens with parameters: `sdk_version_too_old;sdk="WalletKit";minimum="4.76.0"`.
const adviceHeader = "Stepward-Advice"

// Inform tells the developers of a client, in the header of an answer that allows or refuses, what they should know before their
// app is refused for it: that its SDK is older than advised, and that a coming floor will ask more of this operation
// (Deprecation, RFC 9745; Sunset, RFC 8594; Link). A door calls it once for every final answer, but not for a switch of
// protocols.
//
// A backend that announces something itself has the word: with its Deprecation or Sunset none of ours is sent, since
// each may occur once and those of two speakers contradict each other.
func Inform(h http.Header, v *gate.Verdict) {
	if v.Advised != "" { // both values are of alphabets that have nothing to escape
		h.Set(adviceHeader, string(reason.SDKVersionTooOld)+`;sdk="`+v.SDK+`";minimum="`+string(v.Advised)+`"`)
	}
	if v.Requirement == nil || v.Requirement.Announced == nil || len(h["Deprecation"]) > 0 || len(h["Sunset"]) > 0 {
		return
	}
	a := v.Requirement.Announced
	h.Set("Deprecation", "@"+strconv.FormatInt(a.Deprecation.Unix(), 10))
	if a.Link != "" { // a list: the backend's own stay
		h.Add("Link", "<"+a.Link+`>; rel="deprecation"`)
	}
	if a.Sunset.IsZero() {
		return
	}
	h.Set("Sunset", a.Sunset.UTC().Format(http.TimeFormat))
	if a.Link != "" {
		h.Add("Link", "<"+a.Link+`>; rel="sunset"`)
	}
}
