// The image is built from the Dockerfile for real and started as a container starts it: its files
// read only, as its user.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { freePort, startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { installChart } from '../../../lab/cluster/gate.ts';
import { untilReady } from '../../../lab/cluster/lifetime.ts';
import { GATE_CONFIG } from '../../../lab/real-node/images.ts';
import { imageBuilder, inImage, whyNoImage, type Builder, type Built } from '../../../lab/image.ts';

const reason = whyNoImage();
if (reason !== undefined) console.log(`the image: skipped, ${reason}`);

describe.skipIf(reason !== undefined)('the image', () => {
  let builder: Builder;
  let image: Built;
  beforeAll(() => {
    builder = imageBuilder();
    image = builder.build();
  });
  afterAll(() => builder?.close());

  it('starts as the one that the real node runs', () => {
    const { Labels, ...config } = image.config;
    expect({ ...config, Env: config.Env.filter((line) => !line.startsWith('PATH=')) }).toEqual(GATE_CONFIG);
    expect(Labels['org.opencontainers.image.version']).toBe('0.1.0');
  });

  it('is small: the base of distroless, 25 MB, and 160 MB at most', () => {
    console.log(`the image adds ${(image.bytes / 1e6).toFixed(0)} MB to its base`);
    expect(image.bytes).toBeLessThan(160e6);
  });

  it('holds the program and its licence, and nothing that only developers need', () => {
    expect(existsSync(join(image.files, 'app/LICENSE'))).toBe(true);
    const packages = join(image.files, 'app/node_modules');
    for (const name of ['vitest', 'typescript', 'oxlint', 'knip', '@types'])
      expect(existsSync(join(packages, name)), name).toBe(false);
    const files = readdirSync(packages, { recursive: true, encoding: 'utf8' });
    expect(files.length).toBeGreaterThan(500);
    expect(files.filter((file) => /\.d\.[cm]?ts$|\.map$|\.bare$/.test(file))).toEqual([]);
    // Each package keeps its licence.
    expect(files.filter((file) => /licen[cs]e/i.test(file)).length).toBeGreaterThan(50);
    expect(existsSync(join(image.files, 'bin/sh'))).toBe(false);
  });

  it('is the same, byte for byte, when it is built again', () => expect(builder.build().digest).toBe(image.digest));

  describe('as a container', () => {
    let cp: ControlPlane;
    beforeAll(async () => {
      cp = await startControlPlane({
        binaries: await binariesFromEnvironment(console.log),
        scheduler: false,
        controllerManager: false,
      });
      await installChart(cp, 'install', { deployments: { create: false } });
    });
    afterAll(async () => cp?.stop());

    it('serves with a ServiceAccount’s files, and writes nothing', async () => {
      const account = mkdtempSync(join(tmpdir(), 'gpu-gate-account-'));
      try {
        const kubeconfig = readFileSync(await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate'), 'utf8');
        const { users } = JSON.parse(kubeconfig) as { users: { user: { token: string } }[] };
        writeFileSync(join(account, 'token'), users[0]?.user.token ?? '');
        writeFileSync(join(account, 'ca.crt'), readFileSync(cp.caFile));
        writeFileSync(join(account, 'namespace'), 'gpu-gate');
        // As the kubelet mounts it: readable for the container's user.
        spawnSync('chmod', ['-R', 'a+rX', account]);
        const [webhook, canary, extender, metrics] = await Promise.all([
          freePort(),
          freePort(),
          freePort(),
          freePort(),
        ]);
        const [command = '', ...args] = inImage(image.files, image.config.User, {
          [account]: '/var/run/secrets/kubernetes.io/serviceaccount',
        });
        const { hostname, port } = new URL(cp.server);
        const container = cp.lifetime.start(
          'gpu-gate-image',
          command,
          [
            ...args,
            ...image.config.Entrypoint,
            ...image.config.Cmd,
            '--roles=webhook,extender',
            `--webhook-port=${webhook}`,
            `--canary-port=${canary}`,
            `--extender-port=${extender}`,
            `--metrics-port=${metrics}`,
          ],
          {
            KUBERNETES_SERVICE_HOST: hostname,
            KUBERNETES_SERVICE_PORT: port,
            // Not its PATH: what puts the process into the image is this machine's.
            ...Object.fromEntries(
              image.config.Env.map((line) => line.split('=') as [string, string]).filter(([name]) => name !== 'PATH'),
            ),
          },
        );
        await untilReady(container, async () => (await fetch(`http://127.0.0.1:${metrics}/healthz`)).ok);
        // No certificates are made here: all else is there.
        const ready = async (): Promise<string> => (await fetch(`http://127.0.0.1:${metrics}/readyz`)).text();
        await untilReady(container, async () => !(await ready()).includes('not loaded yet'));
        expect(await ready()).toContain('gpu-gate-webhook-tls');
        const status = readFileSync(`/proc/${container.pid}/status`, 'utf8');
        expect(/^Uid:\s+(\d+)/m.exec(status)?.[1]).toBe('65532');
        expect(/^CapEff:\s+(\w+)/m.exec(status)?.[1]).toBe('0000000000000000');
        await container.stop();
      } finally {
        rmSync(account, { recursive: true, force: true });
      }
    });
  });
});
