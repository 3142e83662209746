// The image is built for amd64 here. Nothing in it depends on that but Node.js, which the base
// image brings for each architecture; no arm64 machine has built it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const text = (path: string): string => readFileSync(join(import.meta.dirname, '..', path), 'utf8');

interface Locked {
  readonly dev?: boolean;
  readonly cpu?: readonly string[];
  readonly os?: readonly string[];
  readonly hasInstallScript?: boolean;
}

it('no package of the image is for one architecture, or compiles when it is installed', () => {
  const { packages } = JSON.parse(text('package-lock.json')) as { packages: Readonly<Record<string, Locked>> };
  const shipped = Object.entries(packages).filter(
    ([name, { dev }]) => name.startsWith('node_modules/') && dev !== true,
  );
  expect(shipped.length).toBeGreaterThan(20);
  const bound = shipped.filter(([, { cpu, os, hasInstallScript }]) => cpu ?? os ?? hasInstallScript);
  expect(bound.map(([name]) => name)).toEqual([]);
});

it.each(['Dockerfile', 'scripts/image-tree.mjs'])('%s names no architecture', (path) =>
  expect(text(path)).not.toMatch(/amd64|x86_64|x64|arm64|aarch64|TARGETARCH/),
);
