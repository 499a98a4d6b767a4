package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// server is a process under load.
type server struct {
	address string
	pid     int
	stop    func()
}

// source yields the bytes of the next request; it is called by many workers at once and returns nil when it is dry.
type source func() []byte

// constant repeats one request.
func constant(request []byte) func(n int) source {
	return func(int) source { return func() []byte { return request } }
}

// load runs one leg. Workers hold one connection each and write prebuilt requests; net/http's client would cost more than
// the proxies that are measured.
func (l *lab) load(ctx context.Context, s *server, requests func(n int) source, concurrency, status int) (result, error) {
	next := requests(0)
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var mu sync.Mutex
	var latencies []time.Duration
	before, err := cpuTime(s.pid)
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	deadline := began.Add(l.settings.leg)
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			taken, err := work(ctx, s.address, next, status, deadline)
			count.Add(int64(len(taken)))
			mu.Lock()
			latencies = append(latencies, taken...)
			mu.Unlock()
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := cpuTime(s.pid)
	if err != nil {
		return result{}, err
	}
	if p := failed.Load(); p != nil {
		return result{}, *p
	}
	if count.Load() == 0 {
		return result{}, errors.New("no request was answered")
	}
	slices.Sort(latencies)
	return result{
		perSecond: float64(count.Load()) / took.Seconds(),
		cpu:       float64((after - before).Microseconds()) / float64(count.Load()),
		p50:       latencies[len(latencies)/2],
		p99:       latencies[len(latencies)*99/100],
	}, nil
}

func work(ctx context.Context, address string, next source, status int, deadline time.Time) ([]time.Duration, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(deadline.Add(10 * time.Second)) // a TCP connection takes deadlines
	in := bufio.NewReaderSize(conn, 16<<10)
	var taken []time.Duration
	for now := time.Now(); now.Before(deadline) && ctx.Err() == nil; {
		request := next()
		if request == nil {
			break
		}
		if _, err := conn.Write(request); err != nil {
			return taken, err
		}
		got, err := readAnswer(in)
		if err != nil {
			return taken, err
		}
		if got != status {
			return taken, fmt.Errorf("answered %d, want %d", got, status)
		}
		done := time.Now()
		taken = append(taken, done.Sub(now))
		now = done
	}
	return taken, nil
}

// readAnswer reads one response with Content-Length or chunks and returns its status.
func readAnswer(in *bufio.Reader) (int, error) {
	line, err := in.ReadSlice('\n')
	if err != nil || len(line) < 12 {
		return 0, fmt.Errorf("status line: %w", err)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length, chunked := 0, false
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	for chunked {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return 0, err
		}
		if _, err := in.Discard(int(n) + 2); err != nil {
			return 0, err
		}
		if n == 0 {
			return status, nil
		}
	}
	_, err = in.Discard(length)
	return status, err
}

// cpuTime is the user and system time of a process, in the kernel's ticks of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, io.ErrUnexpectedEOF
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}
