# The three programs of the pipeline: one build, one image each.
#
#   docker build --target thyme .
#   docker build --target log-generator .
#   docker build --target nop-collector .
#
# `make docker-build` does all three with labels. A machine without a registry puts its own base
# images in the place of these two by --build-context; deployment/images/local-base makes them.
#
# The names are literal, so that Dependabot sees them. They are tags: no registry was at hand to ask for
# their digests, and none is made up. Dependabot's first change can add them.

# The version is that of rust-toolchain.toml; deployment/images/tests/check compares them.
FROM docker.io/library/rust:1.95.0-trixie AS builder
WORKDIR /src
# rust-toolchain.toml stays outside (.dockerignore): the base is that toolchain, and the file would
# make rustup download the components that only `make lint` needs.
COPY . .
ARG REVISION=
ARG CREATED=
# The caches outlive a build, so a change of one crate compiles that crate. The programs must leave
# the target directory in the same step, because a cache is no part of a layer. Line tables, four fifths of
# a program, stay behind; symbols do not, so that a panic names its functions.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 \
    THYME_COMMIT="${REVISION}" THYME_BUILD_DATE="${CREATED%%T*}" \
    cargo build --release --locked --bin thyme-agent --bin log-generator --bin nop-collector \
    && mkdir /out \
    && cp target/release/thyme-agent target/release/log-generator target/release/nop-collector /out/ \
    && strip --strip-debug /out/*

# glibc, libgcc and root certificates of Debian 13; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot AS runtime
# A user that owns nothing. Kubernetes gives the agent group 0, which may read the kubelet's files.
USER 65534:65534
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=https://github.com/ollygarden/thyme
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="OllyGarden" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

FROM runtime AS thyme
COPY --from=builder --chown=0:0 --chmod=0555 /out/thyme-agent /usr/local/bin/thyme-agent
# Health, and the Prometheus page.
EXPOSE 13133 8888
ENTRYPOINT ["/usr/local/bin/thyme-agent"]
LABEL org.opencontainers.image.title="thyme" \
      org.opencontainers.image.description="Node agent that tails container log files and exports OTLP"

FROM runtime AS log-generator
COPY --from=builder --chown=0:0 --chmod=0555 /out/log-generator /usr/local/bin/log-generator
# Manifest, metrics, health and the stop.
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/log-generator"]
LABEL org.opencontainers.image.title="log-generator" \
      org.opencontainers.image.description="Writes stamped log lines at an exact rate"

FROM runtime AS nop-collector
COPY --from=builder --chown=0:0 --chmod=0555 /out/nop-collector /usr/local/bin/nop-collector
# OTLP over gRPC and HTTP; report, metrics and health.
EXPOSE 4317 4318 8080
ENTRYPOINT ["/usr/local/bin/nop-collector"]
LABEL org.opencontainers.image.title="nop-collector" \
      org.opencontainers.image.description="Receives OTLP logs, counts them, and proves loss and duplicates"
