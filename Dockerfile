# Three small images from one file: quipu itself, and Debian's PgBouncer and Tor, each as a user without rights.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /quipu
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/quipu/target \
    cargo build --locked --profile dist --bin quipu && install target/dist/quipu /usr/local/bin/quipu

FROM debian:12.11-slim AS quipu
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --uid 10001 quipu
COPY --from=build /usr/local/bin/quipu /usr/local/bin/quipu
USER quipu
WORKDIR /home/quipu
ENTRYPOINT ["quipu"]
CMD ["up"]

FROM debian:12.11-slim AS pgbouncer
RUN apt-get update \
 && apt-get install -y --no-install-recommends pgbouncer \
 && rm -rf /var/lib/apt/lists/* /etc/pgbouncer/*
COPY scripts/container-pgbouncer /usr/local/bin/container-pgbouncer
USER postgres
CMD ["container-pgbouncer"]

FROM debian:12.11-slim AS tor
RUN apt-get update \
 && apt-get install -y --no-install-recommends tor \
 && rm -rf /var/lib/apt/lists/*
USER debian-tor
CMD ["tor", "-f", "/dev/null", "--SocksPort", "0.0.0.0:9050", "--DataDirectory", "/var/lib/tor", "--Log", "notice stdout"]
