// Builds `kubectl gpu-gate` into kubectl/dist: plain JavaScript that runs on Node.js 20 with no
// package beside it. `npm pack ./kubectl` runs this first.
import { chmodSync, cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'vite';
import { readArguments } from './arguments.ts';

readArguments('node scripts/run.mjs scripts/plugin.ts     builds kubectl gpu-gate into kubectl/dist', { options: {} });
const ROOT = join(import.meta.dirname, '..');
const dist = join(ROOT, 'kubectl/dist');
rmSync(dist, { recursive: true, force: true });
await build({
  root: ROOT,
  configFile: false,
  logLevel: 'warn',
  ssr: { noExternal: true },
  resolve: { alias: { undici: join(import.meta.dirname, 'plugin/undici.ts') } },
  build: {
    ssr: true,
    target: 'node20',
    outDir: dist,
    minify: true,
    rolldownOptions: {
      input: {
        'kubectl-gpu_gate': join(ROOT, 'app/kubectl-gpu_gate.ts'),
        'kubectl_complete-gpu_gate': join(ROOT, 'app/kubectl-complete.ts'),
        'credentials-reader': join(ROOT, 'platform/credentials-reader.ts'),
      },
      output: { entryFileNames: '[name].mjs', chunkFileNames: '[name]-[hash].mjs' },
    },
  },
});
// npm makes it executable where it installs it; Krew takes it as it is packed.
for (const program of ['kubectl-gpu_gate', 'kubectl_complete-gpu_gate']) chmodSync(join(dist, `${program}.mjs`), 0o755);
// The status page: one script, no request to anybody else.
const page = join(ROOT, 'kubectl/page');
await build({
  root: page,
  configFile: false,
  logLevel: 'warn',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: 'es2023',
    outDir: join(dist, 'page'),
    emptyOutDir: true,
    minify: true,
    modulePreload: false,
    rolldownOptions: { input: join(page, 'main.tsx'), output: { entryFileNames: 'page.js' } },
  },
});
for (const file of ['index.html', 'page.css']) cpSync(join(page, file), join(dist, 'page', file));
cpSync(join(ROOT, 'LICENSE'), join(ROOT, 'kubectl/LICENSE'));
