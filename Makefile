# make demo   the story, against itself (ARGS=--once exits after it)
# make test   everything, on a fresh Debian machine with Go and Node.js
# make bench  the ratios, under ten minutes
# make bench-ledger  every kind of ledger, the same rows
# make torture       a thousand kills for each of bolt: and redis:
SHELL := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_BUILD := CGO_ENABLED=0 go build -tags grpcnotrace -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

.PHONY: build demo test bench bench-ledger torture lint fuzz generate clean
build:
	$(GO_BUILD) -o bin/stepward ./cmd/stepward

demo: build
	./bin/stepward demo $(ARGS)

test:
	./test/run

bench: build
	go run ./bench $(ARGS)

bench-ledger:
	go test ./bench/ledger -run '^$$' -bench . -benchtime 2s -timeout 60m $(ARGS)

torture:
	STEPWARD_TORTURE_ROUNDS=1000 STEPWARD_REAL_PARTS=required go test -count=1 -v -timeout 60m -run TestKillsNeverSpendATokenTwice ./cmd/stepward

lint:
	./test/lint

fuzz:
	./test/fuzz $(ARGS)

generate:
	go generate ./...

clean:
	rm -rf bin .work
