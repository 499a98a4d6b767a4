package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// yes is an ext_authz service that lets everything pass.
type yes struct {
	authv3.UnimplementedAuthorizationServer
}

func (yes) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

// alwaysYes serves it until ctx ends.
func alwaysYes(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, yes{})
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(l)
}

// extAuthz prints the gRPC door's rows: session known and requirement cached, against a service that always says yes.
func (l *lab) extAuthz(ctx context.Context, w io.Writer) error {
	const name = "ext_authz, allowed, warm"
	if !matches(name, l.settings.only) {
		return nil
	}
	bare, err := start(ctx, "0", func(a string) []string { return []string{l.self, "-role", "yes", "-listen", a} })
	if err != nil {
		return err
	}
	defer bare.stop()
	under, err := l.asked(ctx)
	if err != nil {
		return err
	}
	defer under.stop()
	for _, concurrency := range []int{1, 32, 256} {
		if c := l.settings.concurrency; c != 0 && c != concurrency {
			continue
		}
		var legs series
		for range l.settings.rounds {
			a1, err := l.ask(ctx, bare, concurrency)
			if err != nil {
				return err
			}
			b, err := l.ask(ctx, under, concurrency)
			if err != nil {
				return err
			}
			a2, err := l.ask(ctx, bare, concurrency)
			if err != nil {
				return err
			}
			legs.add(a1, b, a2)
		}
		legs.print(w, name, concurrency)
	}
	return nil
}

// asked is a Stepward with the gRPC door alone.
func (l *lab) asked(ctx context.Context) (*server, error) {
	dir, err := os.MkdirTemp(l.dir, "run-")
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	return start(ctx, "0", func(address string) []string {
		var text strings.Builder
		for line := range strings.Lines(l.config(row{ledger: "memory:"}, dir, address, admin)) {
			switch key, _, _ := strings.Cut(line, ":"); key {
			case "upstream":
			case "listen":
				text.WriteString("ext_authz: {listen: " + address + "}\n")
			default:
				text.WriteString(line)
			}
		}
		file := filepath.Join(dir, "stepward.yaml")
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		return []string{l.settings.binary, "run", "--config", file}
	})
}

// asBytes sends and receives messages as they are, so that what Go's protobuf needs for them on this side, where Envoy is in C++,
// counts neither for nor against a service.
type asBytes struct{}

func (asBytes) Name() string { return "proto" }

func (asBytes) Marshal(v any) (mem.BufferSlice, error) {
	text, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not a message in bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*text)}, nil
}

func (asBytes) Unmarshal(data mem.BufferSlice, v any) error {
	text, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T is not a message in bytes", v)
	}
	*text = data.Materialize()
	return nil
}

// allowed returns an error unless the answer has an ok_response.
func allowed(answer []byte) error {
	const okResponse = 3
	for len(answer) > 0 {
		n, kind, size := protowire.ConsumeTag(answer)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if n == okResponse {
			return nil
		}
		answer = answer[size:]
		if size = protowire.ConsumeFieldValue(n, kind, answer); size < 0 {
			return protowire.ParseError(size)
		}
		answer = answer[size:]
	}
	return errors.New("refused")
}

// question is a CheckRequest as Envoy sends it of a signed-in user's request.
func (l *lab) question() ([]byte, error) {
	return proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
		Method: "GET", Path: "/api/v0/sdk/" + environment + "/users", Host: "wallet.example", Scheme: "https", Protocol: "HTTP/1.1", Size: -1,
		Headers: map[string]string{
			":authority": "wallet.example", ":method": "GET", ":path": "/api/v0/sdk/" + environment + "/users", ":scheme": "https",
			"authorization": "Bearer " + l.session, "accept": "application/json", "x-request-id": "0f8fad5b-d9cb-469f-a165-70867728950e",
		},
	}}}})
}

// ask runs one leg: so many questions at a time over one connection, as an Envoy worker has it.
func (l *lab) ask(ctx context.Context, s *server, concurrency int) (result, error) {
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return result{}, err
	}
	defer func() { _ = conn.Close() }()
	question, err := l.question()
	if err != nil {
		return result{}, err
	}
	check := func() error {
		var answer []byte
		if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, &question, &answer, grpc.ForceCodecV2(asBytes{})); err != nil {
			return err
		}
		return allowed(answer)
	}
	if err := check(); err != nil {
		return result{}, fmt.Errorf("a question that should be allowed: %w", err)
	}
	before, err := cpuTime(s.pid)
	if err != nil {
		return result{}, err
	}
	var failed atomic.Pointer[error]
	var mu sync.Mutex
	var latencies []time.Duration
	began := time.Now()
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			var mine []time.Duration
			for sent := time.Now(); sent.Sub(began) < l.settings.leg; sent = time.Now() {
				if err := check(); err != nil {
					failed.Store(&err)
					return
				}
				mine = append(mine, time.Since(sent))
			}
			mu.Lock()
			latencies = append(latencies, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := cpuTime(s.pid)
	if p := failed.Load(); p != nil {
		err = *p
	}
	if err != nil {
		return result{}, err
	}
	slices.Sort(latencies)
	return result{
		perSecond: float64(len(latencies)) / took.Seconds(), cpu: float64((after - before).Microseconds()) / float64(len(latencies)),
		p50: latencies[len(latencies)/2], p99: latencies[len(latencies)*99/100],
	}, nil
}
