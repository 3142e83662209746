// What a pod's credentials are: its ServiceAccount's files, read here and by no other program.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { accessOf, type PodSource } from '../../platform/credentials.ts';
import { explainError } from '../../platform/log.ts';

let folder: string;
const { execPath } = process;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gpu-gate-pod-'));
  // Whatever tries to run a program fails.
  process.execPath = join(folder, 'no-such-program');
});
afterEach(() => {
  process.execPath = execPath;
  rmSync(folder, { recursive: true });
});

const put = (name: string, text: string): void => writeFileSync(join(folder, name), text);
const pod = (more: Partial<PodSource> = {}): PodSource => ({ folder, host: '10.0.0.1', port: '443', ...more });
const access = (source: PodSource) => accessOf({ kubeconfigs: [], pod: source });
const mounted = (): void => {
  put('token', 'first\n');
  put('ca.crt', 'a CA\n');
  put('namespace', 'gpu-gate\n');
};

it('reads the files of the ServiceAccount', async () => {
  mounted();
  expect(await access(pod())).toMatchObject({
    server: 'https://10.0.0.1:443',
    namespace: 'gpu-gate',
    https: { ca: 'a CA', headers: { Authorization: 'Bearer first' } },
  });
});

it('reads them again once the kubelet has replaced one', async () => {
  mounted();
  await access(pod());
  put('token', 'second, renewed\n');
  expect((await access(pod())).https.headers).toEqual({ Authorization: 'Bearer second, renewed' });
});

it('writes an IPv6 address in brackets', async () => {
  mounted();
  expect((await access(pod({ host: 'fd00::1' }))).server).toBe('https://[fd00::1]:443');
});

it.each([
  ['no files', () => undefined, {}, 'ENOENT'],
  ['an empty token', () => (mounted(), put('token', '\n')), {}, 'is empty'],
  ['no address', mounted, { host: undefined }, 'KUBERNETES_SERVICE_HOST is not set'],
  ['an empty address', mounted, { host: '' }, 'KUBERNETES_SERVICE_HOST is not set'],
])('says what to do with %s', async (_, prepare, more, because) => {
  prepare();
  const failure = explainError(await access(pod(more)).catch((error: unknown) => error));
  expect(failure).toContain('no API server to talk to: give --kubeconfig PATH, or run in a pod');
  expect(failure).toContain(because);
});

it('does not run the library for a pod, and does for a kubeconfig', async () => {
  put('kubeconfig', '{}');
  await expect(accessOf({ kubeconfigs: [join(folder, 'kubeconfig')] })).rejects.toThrow('no-such-program');
});
