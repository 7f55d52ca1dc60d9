# The image of subletd: one static binary and nothing else. `make build` makes
# the binary first, so that the image builds without any registry or network:
#   make image        (buildah)
#   docker build -t ghcr.io/sublet-dev/subletd:dev .
FROM scratch
COPY bin/subletd /usr/local/bin/subletd
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/subletd"]
