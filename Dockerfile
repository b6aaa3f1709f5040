# Two stages: the build, and an image with only the C library and the program: no shell, no root. Mount the config at
# /etc/hedgerow/config.toml; docs/src/containers.md has an example.
FROM rust:1-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock config.toml ./
COPY benches benches
COPY crates crates
COPY src src
COPY zones zones
RUN cargo build --locked --release

FROM gcr.io/distroless/cc-debian12:nonroot
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/hedgerow/
COPY --from=build /build/target/release/hedgerow /usr/bin/hedgerow
# The user `nonroot` of the image, as a number: Kubernetes cannot check names (runAsNonRoot).
USER 65532:65532
EXPOSE 53/udp 53/tcp 5380/tcp
ENTRYPOINT ["/usr/bin/hedgerow"]
CMD ["serve", "-c", "/etc/hedgerow/config.toml"]
