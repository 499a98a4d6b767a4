package redis_test

import (
	"strings"
	"testing"

	"github.com/stepward/stepward/ledger/redis"
)

func TestAddressesThatAreTaken(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"redis://h", "redis://h:6380", "redis://h/", "redis://h/3", "redis://u@h:1", "redis://u:p%40w@h", "redis://:pw@h", "redis://[::1]:6379/0",
		"redis://[::1]", "rediss://h.internal:6379", "redis+sentinel://a,b:1,c/main", "rediss+sentinel://u:p@a:1/main/2", "redis+cluster://a:1,b:2",
		"rediss+cluster://a", "redis+cluster://a/",
	} {
		if err := redis.ParseURL(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"":                                 "write redis://",
		"redis:":                           "write redis://",
		"redis:h":                          "write redis://",
		"http://h":                         "write redis://",
		"redis://":                         "no host",
		"redis://:6379":                    "no host",
		"redis://h:":                       "port",
		"redis://h:0":                      "port",
		"redis://h:65536":                  "port",
		"redis://h:x":                      "port",
		"redis://::1":                      "[::1]:6379",
		"redis://h/x":                      "database",
		"redis://h/-1":                     "database",
		"redis://h/0/1":                    "database",
		"redis://h?db=1":                   "options",
		"redis://h#f":                      "options",
		"redis://a,b":                      "redis+sentinel://",
		"redis://u:hunter2@w@h":            "%40",
		"redis://u:hunter2%zz@h":           "%40",
		"redis://u:hunter2/@h":             "%40",
		"redis+sentinel://a:1":             "which master",
		"redis+sentinel://a:1/":            "which master",
		"redis+sentinel://a:1/main/x":      "database",
		"redis+cluster://u:hunter2@a:1/0":  "no databases",
		"redis+cluster://a:1,":             "no host",
		"redis://u:hunter2@h h":            "no host",
		"redis+sentinel://u:hunter2@,/mas": "no host",
	} {
		err := redis.ParseURL(address)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", address, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: its password is in the error: %v", address, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, address := range []string{"redis://u:hunter2@h:1/0", "rediss+sentinel://u@a:1,b:2/main/2", "redis+cluster://[::1]:1", "redis://%"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		err := redis.ParseURL(strings.ReplaceAll(address, "hunter2", ""))
		again := redis.ParseURL(strings.ReplaceAll(address, "hunter2", ""))
		if (err == nil) != (again == nil) {
			t.Errorf("%v, then %v", err, again)
		}
		if err := redis.ParseURL("redis://user:hunter2" + address); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a password is in %q", err)
		}
	})
}

func TestAnswersThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "\r\n", "+OK", "+OK\n", "+O\rK\r\n", "?1\r\n", ":x\r\n", "$3\r\nab\r\n", "$2\r\nabcd", "$-2\r\n", "$99999999999\r\n", "$16385\r\n", "*1025\r\n",
		"*2\r\n+a\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n+deep\r\n", ">1\r\n+push\r\n", "*1000\r\n" + strings.Repeat("*1\r\n+a\r\n", 1000),
		"-" + strings.Repeat("x", 20<<10) + "\r\n",
	} {
		if _, err := redis.ReadReply([]byte(text)); err == nil {
			t.Errorf("%.40q is taken", text)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, text := range []string{"+OK\r\n", "-ERR no\r\n", ":1\r\n", "$2\r\nab\r\n", "$-1\r\n", "*-1\r\n", "*2\r\n:1\r\n*1\r\n$0\r\n\r\n", "*0\r\n"} {
		f.Add([]byte(text))
		f.Add([]byte(text + "more"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := redis.ReadReply(text)
		if err != nil {
			return
		}
		if n < 3 || n > len(text) {
			t.Errorf("took %d of %d bytes", n, len(text))
		}
		if again, err := redis.ReadReply(text[:n]); again != n || err != nil {
			t.Errorf("alone it is %d, %v, want %d", again, err, n)
		}
		if _, err := redis.ReadReply(text[:n-1]); err == nil {
			t.Error("it is whole without its end")
		}
	})
}
