// The status page in a real Chromium: the story of a node watched through it, and who may not see
// it.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { PATIENCE_MS } from '../../../lab/cluster/lifetime.ts';
import { viewOf } from '../../builders/view.ts';
import { installPlugin } from '../../support/plugin.ts';

const CHROMIUM = spawnSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).stdout.trim();
if (CHROMIUM === '')
  console.log('the status page: skipped, chromium is missing here (npm test -- --install brings it)');
/** A folder for pictures; none are taken without it. */
const PICTURES = process.env['GPU_GATE_TEST_PICTURES'];

describe.skipIf(CHROMIUM === '')('the status page', () => {
  let cluster: Cluster;
  let home: string;
  let server: ChildProcess;
  let address: string;
  let browser: Browser;
  const { kubectl, annotate, validated, gpuPod, gone } = viewOf(() => cluster);

  beforeAll(async () => {
    home = mkdtempSync(join(tmpdir(), 'gpu-gate-page-'));
    const program = await installPlugin(home);
    cluster = await startCluster({
      nodes: 3,
      say: console.log,
      auditRules: [{ level: 'Metadata', verbs: ['list'], resources: [{ group: '', resources: ['nodes'] }] }],
    });
    await startGate(cluster, {
      values: { policy: { spec: { validation: { backoff: { initial: '5m', max: '10m' } } } } },
    });
    server = spawn(process.execPath, [program, 'ui'], {
      env: { PATH: process.env['PATH'] ?? '', HOME: home, KUBECONFIG: cluster.kubeconfig },
    });
    address = await new Promise((resolve, reject) => {
      let output = '';
      server.stdout?.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        const [line] = /^http:\S+$/m.exec(output) ?? [];
        if (line !== undefined) resolve(line);
      });
      server.on('close', (code) => reject(new Error(`it ended with ${code}: ${output}`)));
    });
    // As root Chromium has no sandbox of its own.
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  });
  afterAll(async () => {
    await browser?.close();
    server?.kill('SIGINT');
    await cluster?.stop();
    rmSync(home, { recursive: true, force: true });
  });

  let page: Page;
  /** What the browser complained of, and addresses of others that it asked for. */
  const complaints: string[] = [];
  beforeEach(async () => {
    complaints.length = 0;
    page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
    page.setDefaultTimeout(PATIENCE_MS);
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('request', (asked) => /^(data:|http:\/\/127\.0\.0\.1:)/.test(asked.url()) || complaints.push(asked.url()));
    await page.goto(address);
    await page.getByRole('grid', { name: 'Nodes' }).waitFor();
  });
  afterEach(async () => {
    await page.close();
    expect(complaints).toEqual([]);
  });
  const picture = async (name: string): Promise<void> => {
    if (PICTURES === undefined) return;
    mkdirSync(PICTURES, { recursive: true });
    await page.screenshot({ path: join(PICTURES, `${name}.png`) });
  };
  const row = (node: string) => page.getByRole('row').filter({ has: page.getByText(node, { exact: true }) });

  it('shows a node on its way, and open at the end', async () => {
    await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
    try {
      await validated('gpu-0');
      await row('gpu-0').getByText('validated', { exact: true }).waitFor();
      await row('gpu-0').click();
      const story = page.getByRole('region', { name: 'Node gpu-0' });
      await story.getByText('open: new GPU pods may come').waitFor();
      await story.getByText('GPUValidated', { exact: true }).waitFor();
      await story.getByText(/^full, \d+[smh] old/).waitFor();
      const walk = story.getByRole('table', { name: 'Walk' }).getByRole('row');
      expect(await walk.count()).toBe(7);
      await walk.filter({ hasText: 'device-plugin-validation' }).getByText('passed').waitFor();
      await page.getByText(/[12] of \d GPU nodes? open/).waitFor();
      await picture('validated');
    } finally {
      await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed-');
    }
  });

  it('shows a failed node, why, what to do next, and the pod that waits', async () => {
    await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails=boom');
    await kubectl('label', 'node', 'gpu-1', 'gpu-gate.dev/managed=true');
    try {
      await gpuPod('page-waits', 'gpu-1');
      await row('gpu-1').getByText('failed', { exact: true }).waitFor();
      await page.getByRole('region', { name: 'Problems' }).getByText('1 node failed').waitFor();
      await row('gpu-1').click();
      await page.getByText('kubectl gpu-gate retry gpu-1', { exact: true }).waitFor();
      const waiting = page.getByRole('region', { name: 'GPU pods that wait' });
      await waiting.getByText('default/page-waits').waitFor();
      await waiting.getByText('kubectl gpu-gate explain page-waits -n default').waitFor();
      await picture('failed');
    } finally {
      await gone('page-waits');
      await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails-');
      await kubectl('label', 'node', 'gpu-1', 'gpu-gate.dev/managed-');
    }
  });

  it('is searched, filtered and read with the keyboard alone', async () => {
    const nodes = ['gpu-0', 'gpu-1', 'gpu-2'];
    await kubectl('label', 'nodes', ...nodes, 'gpu-gate.dev/managed=true');
    const focused = (of: string): Promise<string> => page.evaluate(`document.activeElement.${of}`);
    try {
      await page.getByText('3 nodes shown').waitFor();
      await page.keyboard.press('/');
      await page.keyboard.type('GPU-2');
      await page.getByText('1 node shown').waitFor();
      await page.keyboard.press('Control+A');
      await page.keyboard.press('Delete');
      await page.getByText('3 nodes shown').waitFor();
      await page.getByRole('row').nth(1).focus();
      await page.keyboard.press('End');
      await expect.poll(() => focused('getAttribute("aria-rowindex")')).toBe('4');
      await page.keyboard.press('ArrowUp');
      await expect.poll(() => focused('getAttribute("aria-rowindex")')).toBe('3');
      const name = await focused('firstChild.textContent');
      await page.keyboard.press('Enter');
      await page.getByRole('region', { name: `Node ${name}` }).waitFor();
      await page.getByRole('button', { name: /\d$/ }).first().press('Enter');
      await page.getByRole('button', { pressed: true }).waitFor();
    } finally {
      await kubectl('label', 'nodes', ...nodes, 'gpu-gate.dev/managed-');
    }
  });

  it('reads the cluster only while a browser looks', async () => {
    const reads = (): number =>
      readFileSync(cluster.auditLog, 'utf8')
        .split('\n')
        .filter((line) => line.includes('kubectl-gpu_gate') && line.includes('/api/v1/nodes')).length;
    const grows = async (): Promise<void> => {
      const before = reads();
      await expect.poll(reads).toBeGreaterThan(before);
    };
    await grows();
    // Another page takes the place of this one, whose stream ends.
    await page.goto('about:blank');
    let still = 0;
    let last = -1;
    // A read that had begun may end.
    await until('three pauses without a read', async () => {
      const now = reads();
      still = now === last ? still + 1 : 0;
      last = now;
      await sleep(2000);
      return still === 3;
    });
    await page.goto(address);
    await page.getByRole('grid', { name: 'Nodes' }).waitFor();
    await grows();
  });

  it('is drawn in the dark where the system is dark', async () => {
    const ground = (): Promise<string> => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const light: string = await ground();
    await page.emulateMedia({ colorScheme: 'dark' });
    expect(await ground()).not.toBe(light);
    await picture('dark');
  });

  describe('another user or page', () => {
    const get = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
      new Promise<{ status: number; headers: Record<string, unknown>; text: string }>((resolve, reject) => {
        const { port } = new URL(address);
        const call = request({ host: '127.0.0.1', port, path, method, headers }, (answer) => {
          let text = '';
          answer.on('data', (chunk: Buffer) => (text += chunk.toString()));
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }));
        });
        call.on('error', reject);
        call.end();
      });
    const own = (): string => new URL(address).pathname;

    it.each([
      ['without the token', '/', {}, 'GET', 404],
      ['with another token', '/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/updates', {}, 'GET', 404],
      ['by a name that points here', undefined, { host: 'evil.example:80' }, 'GET', 421],
      ['to write', undefined, {}, 'POST', 404],
    ] as const)('gets nothing %s', async (_, path, headers, method, status) => {
      const answer = await get(path ?? own(), headers, method);
      expect(answer.status).toBe(status);
      expect(answer.text).toBe('open the address that was printed');
    });

    it('may not put the page into a frame, and the page loads nothing of others', async () => {
      const { status, headers } = await get(own());
      expect(status).toBe(200);
      expect(headers['content-security-policy']).toMatch(/default-src 'none'.*frame-ancestors 'none'/);
      expect(headers).toMatchObject({ 'referrer-policy': 'no-referrer', 'x-content-type-options': 'nosniff' });
    });
  });
});
