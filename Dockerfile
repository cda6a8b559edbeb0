# An image with nothing in it but what scripts/image-root lays out. It brings no Postgres: DATABASE_URL is required.
# docs/operating.md shows how it is run.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates musl-tools && \
    rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
RUN scripts/image-root /image

FROM scratch
COPY --from=build /image/ /
# What may be written belongs to the account that runs it.
COPY --from=build --chown=65532:65532 /image/var/lib/uptally /var/lib/uptally
USER 65532:65532
WORKDIR /var/lib/uptally
# Reports are in csvs/ in here.
VOLUME /var/lib/uptally
ENV UPTALLY_STATE_DIR=/var/lib/uptally SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
EXPOSE 8080
ENTRYPOINT ["/usr/bin/uptally"]
# Other machines reach it, so it wants a token too: UPTALLY__HTTP__TRIGGER_TOKENS_FILE.
CMD ["serve", "--listen", "0.0.0.0:8080"]
