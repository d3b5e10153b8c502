# Built and run by `docker compose up`; see docs/operations.md. The image holds the binary and the
# system's CA certificates, runs as nobody in particular, and writes only below /var/lib/keywheel.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin keywheel

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/keywheel --create-home keywheel
COPY --from=build /src/target/release/keywheel /usr/local/bin/keywheel
USER 10001
WORKDIR /var/lib/keywheel
ENV KEYWHEEL_DATA_DIR=/var/lib/keywheel
# The port is published to a proxy that ends TLS, or to this machine alone. With server.tls the daemon ends TLS itself.
ENV KEYWHEEL_SERVER__PLAIN_HTTP=behind-a-proxy
VOLUME /var/lib/keywheel
EXPOSE 8440
ENTRYPOINT ["keywheel"]
CMD ["serve", "--listen", "0.0.0.0:8440"]
