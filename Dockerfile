# Dependencies are compiled in a layer of their own (cargo-chef), so that a change of flowcast alone
# builds in a minute.
FROM rust:1.95-slim-bookworm AS chef
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install --locked cargo-chef --version 0.1.78
WORKDIR /build

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /build/recipe.json recipe.json
RUN cargo chef cook --profile dist --locked --recipe-path recipe.json --bin flowcast
COPY . .
# What `flowcast --version` says: docker build --build-arg FLOWCAST_COMMIT="$(git show --no-patch --format='%h %cs')" .
ARG FLOWCAST_COMMIT=""
RUN cargo build --profile dist --locked --bin flowcast

FROM debian:bookworm-slim
# Certificates for the providers' TLS; time zones and all else come along in the binary.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/flowcast flowcast
COPY --from=build /build/target/dist/flowcast /usr/local/bin/flowcast
USER 10001
WORKDIR /var/lib/flowcast
ENV FLOWCAST_HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
# A worker is stopped by SIGTERM, and finishes what is under way.
STOPSIGNAL SIGTERM
# Unhealthy is a worker whose loop has made no progress for 30 s: it has to be started again.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["/usr/local/bin/flowcast"]
CMD ["worker"]
