# docker build -t nearside:0.1.0 .
# docker run --network host nearside:0.1.0 --upstream redis://127.0.0.1:6379

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin nearside

# Has the C library of the build stage's Debian, and neither shell nor package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/nearside /usr/local/bin/nearside
COPY --from=build /src/LICENSE /usr/share/doc/nearside/LICENSE
EXPOSE 6380 9380
ENTRYPOINT ["/usr/local/bin/nearside"]
