# gpu-gate: the program, production dependencies and Node.js; no shell is needed, nothing is written, nobody is root.
FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
COPY scripts/image-tree.mjs scripts/
COPY main.ts ./
COPY core core
COPY platform platform
COPY webhook webhook
COPY extender extender
COPY reconciler reconciler
COPY certs certs
COPY cli cli
RUN node scripts/image-tree.mjs /image

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /app
ENTRYPOINT ["/usr/local/bin/node", "/app/main.js"]
CMD ["run"]
