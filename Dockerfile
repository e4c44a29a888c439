# Three small images from one file: quipu itself, and Debian's PgBouncer and Tor, each as a user without rights.
#
# PROGRAM=prebuilt takes the program from prebuilt/quipu instead of building it; it has to run on Debian 13.
ARG PROGRAM=source

FROM rust:1.95-slim-trixie AS source
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /quipu
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/quipu/target \
    cargo build --locked --profile dist --bin quipu && install target/dist/quipu /usr/local/bin/quipu

FROM debian:13.8-slim AS prebuilt
COPY prebuilt/quipu /usr/local/bin/quipu

FROM ${PROGRAM} AS program

FROM debian:13.8-slim AS quipu
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /quipu --create-home quipu \
 && install -d -m 1777 /quipu/data \
 && install -d -o quipu -g quipu -m 0700 /quipu/objects /quipu/blobs
COPY --from=program /usr/local/bin/quipu /usr/local/bin/quipu
USER 10001:10001
WORKDIR /quipu
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=4 \
    CMD ["quipu", "health", "http://127.0.0.1:4701/healthz"]
ENTRYPOINT ["quipu"]
CMD ["up"]

FROM debian:13.8-slim AS pgbouncer
RUN apt-get update \
 && apt-get install -y --no-install-recommends pgbouncer postgresql-client \
 && rm -rf /var/lib/apt/lists/* /etc/pgbouncer/* \
 && install -d -m 1777 /var/lib/pgbouncer
COPY scripts/container-pgbouncer /usr/local/bin/container-pgbouncer
USER postgres
CMD ["container-pgbouncer"]

FROM debian:13.8-slim AS tor
RUN apt-get update \
 && apt-get install -y --no-install-recommends tor curl \
 && rm -rf /var/lib/apt/lists/* /etc/tor/*
USER debian-tor
CMD ["tor", "-f", "/etc/tor/torrc"]
