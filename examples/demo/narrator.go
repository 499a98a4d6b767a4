package demo

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

const width = 100

const (
	bold   = "1"
	faint  = "2"
	red    = "1;31"
	green  = "32"
	glad   = "1;32"
	yellow = "33"
	cyan   = "36"
)

// narrator writes for a person at a terminal.
type narrator struct {
	w     io.Writer
	color bool
	named map[string]bool // sessions that this step has named already
}

// line writes one line; what goes wrong there, nobody can be told.
func (n *narrator) line(style, text string) {
	if n.color && style != "" {
		text = "\x1b[" + style + "m" + text + "\x1b[0m"
	}
	_, _ = io.WriteString(n.w, text+"\n")
}

func (n *narrator) blank() { n.line("", "") }

func (n *narrator) title(number int, text string) {
	n.named = map[string]bool{}
	n.blank()
	n.line(bold, fmt.Sprintf("%d. %s", number, text))
}

func (n *narrator) prose(format string, args ...any) {
	for _, l := range fold(fmt.Sprintf(format, args...), width-3, words) {
		n.line("", "   "+l)
	}
}

func (n *narrator) good(format string, args ...any) { n.line(glad, fmt.Sprintf(format, args...)) }

// check says whether something is as it should be; its error says what is instead.
func (n *narrator) check(claim string, holds bool, got string) error {
	if !holds {
		return fmt.Errorf("expected that %s, got %s", claim, got)
	}
	for i, l := range fold(claim, width-6, words) {
		n.line(glad, []string{"   ok ", "      "}[min(i, 1)]+l)
	}
	return nil
}

func (n *narrator) wrong(err error) {
	for i, l := range fold(err.Error(), width-9, words) {
		n.line(red, []string{"   WRONG ", "         "}[min(i, 1)]+l)
	}
}

func (n *narrator) sent(b *browser, r request) {
	n.line(cyan, "   > "+r.String())
	if r.signed {
		n.line(cyan, "   > x-dynamic-device-nonce, -publickey, -signed-nonce: <signed by "+b.name+">")
	}
	if session := describe(b.session); b.session != "" && !n.named[session] {
		n.line(cyan, "   > Authorization: Bearer "+session)
		n.named[session] = true
	}
	if r.elevated != "" {
		n.line(cyan, "   > "+elevatedHeader+": "+describe(r.elevated))
	}
	if r.mfa != "" {
		n.line(cyan, "   > "+mfaHeader+": <MFA token>")
	}
	if r.deviceToken != "" {
		n.line(cyan, "   > "+deviceTokenHeader+": <from the link>")
	}
	if r.terse {
		n.line(cyan, "   > {…}")
	} else if r.body != nil {
		raw, _ := json.Marshal(r.body) // it was sent as well
		n.folded(cyan, "   > ", discreet(string(raw)))
	}
}

// came tells of an answer: a refusal without anything special to show in full, and any other that was not expected.
func (n *narrator) came(a answer, w want, expected bool) {
	style := green
	if a.status >= http.StatusBadRequest {
		style = yellow
	}
	status := fmt.Sprintf("   < %d %s", a.status, http.StatusText(a.status))
	if !expected {
		style = red
	}
	n.line(style, status)
	if expected && (w.code == "" || len(w.shows) > 0) {
		if excerpt := a.body.excerpt(w); excerpt != "" {
			n.folded(style, "   < ", excerpt)
		}
		return
	}
	for _, name := range []string{"Content-Type", "WWW-Authenticate", "Step-Up-Challenge", "Cache-Control", "Retry-After"} {
		if value := a.header.Get(name); value != "" {
			n.folded(style, "   < ", name+": "+discreet(value))
		}
	}
	if len(a.raw) > 0 {
		n.folded(style, "   < ", discreet(strings.TrimSpace(string(a.raw))))
	}
}

func (n *narrator) json(indent string, raw []byte) {
	n.folded(faint, indent+" ", discreet(string(raw)))
}

// folded writes a header or JSON over as many lines as it takes.
func (n *narrator) folded(style, indent, text string) {
	for i, l := range fold(text, width-len(indent)-2, members) {
		if i > 0 {
			l = "  " + l
		}
		n.line(style, indent+l)
	}
}

// excerpt is the part of a body that is to be shown, with an ellipsis for the rest.
func (o object) excerpt(w want) string {
	var parts []string
	if w.code != "" {
		parts = append(parts, fmt.Sprintf("%q:%q", "code", w.code))
	}
	for _, path := range w.shows {
		name, member, deeper := strings.Cut(path, ".")
		value := o[name]
		if inner, ok := value.(map[string]any); deeper && ok {
			value = inner[member]
		}
		raw, _ := json.Marshal(value) // it came out of JSON
		text := fmt.Sprintf("%q:%s", name, raw)
		if deeper {
			text = fmt.Sprintf("%q:{%q:%s,…}", name, member, raw)
		}
		parts = append(parts, text)
	}
	if parts == nil {
		return ""
	}
	return discreet("{" + strings.Join(parts, ",") + ",…}")
}

var (
	tokens  = regexp.MustCompile(`"?eyJ[\w-]+\.[\w-]+\.[\w-]+"?`)
	secrets = regexp.MustCompile(`"(verificationToken|secret|code)":"([A-Z2-7]{16,}|\d{6})"`)
	mfas    = regexp.MustCompile(`"mfa_[0-9a-f-]+"`)
	codes   = regexp.MustCompile(`"([a-z2-7]{4}-){3}[a-z2-7]{4}"`)
	links   = regexp.MustCompile(`(deviceRegistrationToken=)[\w-]+`)
	uuids   = regexp.MustCompile(`([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	blobs   = regexp.MustCompile(`([\w-]{8})[\w-]{35,}`) // 32 bytes in base64 and more
)

// discreet is text without what would let a reader in, and with long names cut short.
func discreet(text string) string {
	text = tokens.ReplaceAllStringFunc(text, func(t string) string { return describe(strings.Trim(t, `"`)) })
	text = secrets.ReplaceAllString(text, `"$1":<secret>`)
	text = mfas.ReplaceAllString(text, "<MFA token>")
	text = codes.ReplaceAllString(text, "<secret>")
	text = links.ReplaceAllString(text, "$1<secret>")
	text = uuids.ReplaceAllString(text, "$1…")
	return blobs.ReplaceAllString(text, "$1…")
}

type claims struct {
	Scope     string
	Sid       string // of session tokens
	SingleUse *bool
	Iat, Exp  int64
}

// claimsOf reads a token as an app does: it looks, and leaves proving to others.
func claimsOf(token string) (c claims) {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(raw, &c) // not a token: it says nothing
	}
	return c
}

func scopeOf(token string) string { return claimsOf(token).Scope }

func isSingleUse(token string) bool {
	c := claimsOf(token)
	return c.SingleUse != nil && *c.SingleUse
}

// describe says what a token is good for.
func describe(token string) string {
	c := claimsOf(token)
	lifetime := (time.Duration(c.Exp-c.Iat) * time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(lifetime, zero) {
			lifetime = lifetime[:len(lifetime)-2]
		}
	}
	switch {
	case c.SingleUse == nil && c.Sid == "":
		return fmt.Sprintf("<assertion %s, %s>", c.Scope, lifetime)
	case c.SingleUse == nil:
		return fmt.Sprintf("<session %s, %s>", c.Scope, lifetime)
	case *c.SingleUse:
		return fmt.Sprintf("<elevated %s, single-use, %s>", c.Scope, lifetime)
	}
	return fmt.Sprintf("<elevated %s, %s>", c.Scope, lifetime)
}

// fold breaks text into lines of at most so many columns, between the pieces that split makes of it. A piece that is longer by
// itself is broken between words.
func fold(text string, columns int, split func(string) []string) []string {
	var lines []string
	line := ""
	add := func(piece string) {
		if line != "" && utf8.RuneCountInString(line+strings.TrimRight(piece, " ")) > columns {
			lines = append(lines, strings.TrimRight(line, " "))
			line = ""
		}
		line += piece
	}
	for _, piece := range split(text) {
		if utf8.RuneCountInString(piece) <= columns {
			add(piece)
			continue
		}
		for _, word := range words(piece) {
			add(word)
		}
	}
	return append(lines, strings.TrimRight(line, " "))
}

func words(text string) []string { return strings.SplitAfter(text, " ") }

// members splits a header or JSON after the commas that no quotes enclose.
func members(text string) []string {
	var pieces []string
	quoted, began := false, 0
	for i, r := range text {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			end := i + 1
			for end < len(text) && text[end] == ' ' {
				end++
			}
			pieces, began = append(pieces, text[began:end]), end
		}
	}
	return append(pieces, text[began:])
}
