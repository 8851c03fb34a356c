# docker build -t nearside:0.2.0 .
# docker run --network host nearside:0.2.0 --upstream redis://127.0.0.1:6379
#
# scripts/image makes the same image without Docker: it builds the last stage of this file from what its first stage lays out.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN scripts/image.d/rootfs /rootfs

# The program, which is static, the CAs of the build stage's Debian, and a list of what it is made of: no shell, no packages.
FROM scratch
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nearside" \
      org.opencontainers.image.description="A coherent near cache for Redis, behind a plain Redis port at your application's side" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /rootfs /
# By number, so that Kubernetes knows that it is not root.
USER 65532:65532
EXPOSE 6380 9380
ENTRYPOINT ["/usr/local/bin/nearside"]
