# The broker in a container: one static program, CA certificates, nobody's shell.
#
#   docker build -t sallyport .
#
# BASE builds the programs: any image with Go 1.26 and CA certificates.
ARG BASE=golang:1.26-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/usr/bin/ ./cmd/... \
	&& mkdir -p /out/etc/ssl/certs /out/etc/sallyport/keys /out/var/lib/sallyport \
	&& cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
	&& echo 'sallyport:x:65532:65532::/var/lib/sallyport:/sbin/nologin' >/out/etc/passwd \
	&& echo 'sallyport:x:65532:' >/out/etc/group \
	&& chmod 700 /out/etc/sallyport/keys /out/var/lib/sallyport \
	&& chown -R 65532:65532 /out/etc/sallyport /out/var/lib/sallyport

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENV PATH=/usr/bin SALLYPORT_LISTEN=0.0.0.0:8080
EXPOSE 8080
# The keys (sallyportd ca init), and the last checkpoint seen.
VOLUME ["/etc/sallyport/keys", "/var/lib/sallyport"]
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/bin/sallyportd", "healthcheck"]
ENTRYPOINT ["/usr/bin/sallyportd"]
CMD ["serve"]
