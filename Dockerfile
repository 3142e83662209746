# gpu-gate: the program, production dependencies and Node.js; no shell is needed, nothing is written, nobody is root.
FROM node:24-bookworm-slim AS build
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

FROM gcr.io/distroless/cc-debian12:nonroot
# What only a build knows: docker build --build-arg VERSION=… --build-arg REVISION=$(git rev-parse HEAD) .
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gpu-gate" \
      org.opencontainers.image.description="A GPU pod starts only on a node whose GPU stack has been proven to work" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# What scripts/image-tree.mjs compiled; read only.
ENV NODE_COMPILE_CACHE=/app/.compile-cache NODE_COMPILE_CACHE_PORTABLE=1
USER 65532:65532
WORKDIR /app
ENTRYPOINT ["/usr/local/bin/node", "/app/main.ts"]
CMD ["run"]
