# Two stages: the toolchain builds one static binary, and the image holds nothing else but certificates. No shell.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -tags grpcnotrace -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /stepward ./cmd/stepward \
 && mkdir -p /var/lib/stepward

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /stepward /stepward
COPY --from=build --chown=65532:65532 /var/lib/stepward /var/lib/stepward
USER 65532:65532
VOLUME /var/lib/stepward
EXPOSE 8080
# The binary asks its own admin listener, which is on loopback in here; there is no shell or curl to do it. Whoever moves
# admin.listen gives this command --admin ADDRESS. The door's default is loopback too: write listen: 0.0.0.0:8080.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/stepward", "health"]
ENTRYPOINT ["/stepward"]
CMD ["run", "--config", "/etc/stepward/stepward.yaml"]
