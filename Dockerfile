# An image with the static program alone: no shell, no C library, no root, no list of users. The context is a folder with the program
# for each platform, as deploy/container-image makes it. Mount the config at /etc/hedgerow/config.toml: docs/src/containers.md
FROM scratch
ARG TARGETARCH
COPY hedgerow-${TARGETARCH} /usr/bin/hedgerow
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/hedgerow/
# A number, because the image has no /etc/passwd, and Kubernetes cannot check names (runAsNonRoot).
USER 65534:65534
EXPOSE 53/udp 53/tcp 5380/tcp
# The config names the admin server. Without [admin], disable this check.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/hedgerow", "ctl", "status"]
ENTRYPOINT ["/usr/bin/hedgerow"]
CMD ["serve", "-c", "/etc/hedgerow/config.toml"]
