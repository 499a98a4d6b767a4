package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
	"github.com/stepward/stepward/ledger"
)

var (
	errClosed   = errors.New("it was closed")
	errNoAnswer = errors.New("the server's answer is none of the script's")
)

// remedies are for the first word of a server's refusal. A script that a server answered so has written nothing: what a script
// writes is the last thing that it does, and the server looks first.
var remedies = map[string]string{
	"READONLY":    "it is a replica",
	"LOADING":     "it is reading its data",
	"CLUSTERDOWN": "the cluster lacks a master",
	"MASTERDOWN":  "it has lost its master",
	"TRYAGAIN":    "a slot is on its way to another server",
	"MOVED":       "it is part of a cluster that is changing: or write redis+cluster:// in place of redis://",
	"ASK":         "a slot is on its way to another server",
	"CROSSSLOT":   "it is part of a cluster: write redis+cluster:// in place of redis://",
	"NOAUTH":      "it wants a user or a password: write them in the address or in the password file",
	"WRONGPASS":   "it does not take the user or the password: look at the address and at the password file",
	"NOPERM":      "the user may not do what the ledger needs: see the ACL in the documentation",
	"MISCONF":     "it cannot write to its disk",
	"NOREPLICAS":  "it has too few replicas to write (min-replicas-to-write)",
	"BUSY":        "another script runs on it",
	"NOSCRIPT":    "it forgot a script at once",
	"DENIED":      "it is in protected mode: set a password, or bind to an address",
	"OOM":         "its memory is full: raise maxmemory",
}

// refusal says why a server answered so, for an answer of which the text is known.
func refusal(text string) error {
	word := firstWord(text)
	if remedy := remedies[word]; remedy != "" {
		return fmt.Errorf("%s: %s", word, remedy)
	}
	if after, ok := strings.CutPrefix(text, "STEPWARD "); ok {
		return ourRefusal(after)
	}
	switch {
	case strings.HasPrefix(text, "unknown command 'SENTINEL'"):
		return errors.New("the address is no Sentinel's: write redis:// in place of redis+sentinel://")
	case strings.Contains(text, "without any password configured"):
		return errors.New("the server has no password: leave it out")
	}
	return errors.New(text)
}

// firstWord is what kind of refusal it is. A user may not run what a script needs: the server has no word for that.
func firstWord(text string) string {
	if strings.Contains(text, "user executing the script can't") {
		return "NOPERM"
	}
	word, _, _ := strings.Cut(text, " ")
	return word
}

// answerError is what an answer to a handshake's command says.
func answerError(name string, r reply) error {
	if r.kind != '-' {
		return fmt.Errorf("%s: %w", name, errProtocol)
	}
	return fmt.Errorf("%s: %w", name, refusal(r.text))
}

// ours are the errors of renewScript, after their first word.
var ours = map[string]string{
	"nameless":   "the server hides its run_id or master_replid in INFO, so that a restart could not be seen: use another",
	"old":        "the server is older than Redis 7.0: use a newer one",
	"cluster":    "the server is part of a cluster: write redis+cluster:// in place of redis://",
	"standalone": "the server is not part of a cluster: write redis:// in place of redis+cluster://",
}

func ourRefusal(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	if word == "skew" {
		return fmt.Errorf("the server's clock is %s s ahead of this machine's: set both by NTP", rest)
	}
	if remedy := ours[word]; remedy != "" {
		return errors.New(remedy)
	}
	return fmt.Errorf("the server is of a kind that keeps no ledger: %s", word)
}

// outcome is what an error says about a script that was to run.
type outcome int

const (
	unclear outcome = iota // it may have run
	nothing                // nothing was written
	full                   // nothing was written for want of memory
)

func outcomeOf(err error) outcome {
	var dial *dialError
	if errors.As(err, &dial) {
		return nothing
	}
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return unclear
	}
	word := firstWord(answer.Error())
	switch {
	case word == "OOM":
		return full
	case remedies[word] != "":
		return nothing
	}
	return unclear
}

// explain adds what to do to an error of rueidis.
func explain(err error) error {
	if answer, ok := rueidis.IsRedisErr(err); ok {
		return refusal(answer.Error())
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in time: %w", err)
	}
	return err
}

func unavailable(err error) error {
	return fmt.Errorf("%w: redis: %w", ledger.ErrUnavailable, explain(err))
}
func unknown(err error) error { return fmt.Errorf("%w: redis: %w", ledger.ErrUnknown, explain(err)) }

// refuse is the error of a reservation that failed so. One of which a part may have been written is unknown.
func refuse(err error, written bool) error {
	switch o := outcomeOf(err); {
	case written || o == unclear:
		return unknown(err)
	case o == full:
		return fmt.Errorf("%w: redis: %w", ledger.ErrFull, explain(err))
	}
	return unavailable(err)
}
