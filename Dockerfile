# Two stages: a build, and an image with the C library, the program, and nothing else: no shell, no root. The config is to be mounted at
# /etc/hedgerow/config.toml; docs/src/containers.md has an example.
FROM rust:1-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock config.toml ./
COPY benches benches
COPY src src
COPY zones zones
RUN cargo build --locked --release

FROM gcr.io/distroless/cc-debian12:nonroot
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/hedgerow/
COPY --from=build /build/target/release/hedgerow /usr/bin/hedgerow
# That of the image's user `nonroot`, as a number: Kubernetes checks no names (runAsNonRoot).
USER 65532:65532
EXPOSE 53/udp 53/tcp 5380/tcp
ENTRYPOINT ["/usr/bin/hedgerow"]
CMD ["serve", "-c", "/etc/hedgerow/config.toml"]
