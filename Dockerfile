# gpu-gate: the program, production dependencies and Node.js. It needs no shell, writes nothing, and does not run as root.
# NODE_VERSION is the version that the tests run. A release build pins both bases by digest, and makes equal images twice:
#   docker build --build-arg BUILD_BASE=node@sha256:… --build-arg RUNTIME_BASE=gcr.io/distroless/cc-debian12@sha256:… \
#     --build-arg VERSION=… --build-arg REVISION=$(git rev-parse HEAD) \
#     --build-arg SOURCE_DATE_EPOCH=0 --output type=image,rewrite-timestamp=true .
ARG NODE_VERSION=24.21.0
# Not the slim one: strip makes Node.js smaller.
ARG BUILD_BASE=docker.io/library/node:${NODE_VERSION}-bookworm
ARG RUNTIME_BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc LICENSE ./
COPY scripts/image-tree.mjs scripts/
COPY main.ts ./
COPY core core
COPY platform platform
COPY webhook webhook
COPY extender extender
COPY reconciler reconciler
COPY certs certs
COPY gate gate
COPY explain explain
COPY app app
RUN node scripts/image-tree.mjs /image

FROM ${RUNTIME_BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gpu-gate" \
      org.opencontainers.image.description="A GPU pod starts only on a node whose GPU stack has been proven to work" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# What scripts/image-tree.mjs compiled; the program only reads it.
ENV NODE_COMPILE_CACHE=/app/.compile-cache NODE_COMPILE_CACHE_PORTABLE=1
USER 65532:65532
WORKDIR /app
# Threads that help to collect garbage compete with the event loop for the few cores of a pod: without them the slowest calls of the
# extender take three quarters of the time, and all take less CPU (docs/extender.md).
ENTRYPOINT ["/usr/local/bin/node", "--single-threaded-gc", "/app/main.ts"]
CMD ["run"]
