// `npm run bench -- page`: the status page in a real Chromium with many nodes: how soon it is
// drawn, and whether it stays responsive while nodes change. The reference is the same page with
// ten nodes.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { chromium, type Browser, type Page } from 'playwright-core';
import type { Fleet, NodeReport } from '../kubectl/fleet.ts';
import { serveUi } from '../kubectl/routes.ts';
import { numberArg, quantile, textArg, type BenchContext, type Row } from './rows.ts';

export const about = 'the status page with many nodes in Chromium, beside one with ten';
export const options = {
  '--nodes N': 'nodes (5000)',
  '--changes N': 'nodes that change each second (100)',
  '--seconds N': 'how long they change (20)',
  '--picture FILE': 'nothing is measured: a PNG of the page with --nodes nodes',
};

const ROOT = join(import.meta.dirname, '..');

/** Of 40 nodes one has failed, three are on their way, one is closed. */
function standing(index: number): Pick<NodeReport, 'state' | 'open' | 'reason' | 'message'> {
  const place = index % 40;
  const closed = (state: NodeReport['state'], reason: string, message: string) => ({
    state,
    open: false,
    reason,
    message,
  });
  if (place === 7)
    return closed('failed', 'GPU stack failed: driver', 'driver: container driver keeps crashing (exit code 1)');
  if (place === 11 || place === 29)
    return closed('driver', 'GPU stack not validated: driver', 'driver: waiting for its pod to be Ready');
  if (place === 17)
    return closed(
      'driver-validation',
      'GPU stack not validated: driver-validation',
      'driver-validation: vectorAdd has not ended yet',
    );
  if (place === 31) return closed('draining', 'GPU node closed: roll-out', 'no new GPU pods, roll-out of driver');
  return { state: 'validated', open: true, reason: '', message: 'driver and device plugin validated' };
}

function aNode(index: number, turn: number): NodeReport {
  const stands = standing(index + turn);
  const isWalking = stands.state === 'driver' || stands.state === 'driver-validation' || stands.state === 'failed';
  const began = new Date(Date.now() - (60 + (index % 200)) * 1000).toISOString();
  return {
    name: `gpu-${index}`,
    policy: 'default',
    ...stands,
    since: isWalking ? began : '',
    ...(stands.state === 'driver' || stands.state === 'driver-validation'
      ? { stage: stands.state, usualMs: stands.state === 'driver' ? 184_000 : 21_000 }
      : {}),
    tookMs: { driver: 180_000 + index },
    ...(isWalking
      ? {}
      : { proof: { level: 'full', at: new Date(Date.now() - 9e6).toISOString(), driver: '580.95.05', cuda: '13.0' } }),
    gpus: isWalking ? [] : [{ resource: 'nvidia.com/gpu', offered: 8, used: (index + turn) % 9 }],
    next: '',
  };
}

const WAITING = ['train-llm-0', 'train-llm-1', 'infer-7c'].map((name, i) => ({
  namespace: 'team',
  name,
  since: new Date(Date.now() - (i + 2) * 90_000).toISOString(),
  reason:
    '0/40 nodes are available: 1 GPU stack failed: driver, 3 GPU stack not validated, 36 Insufficient nvidia.com/gpu.',
  next: `kubectl gpu-gate explain ${name} -n team`,
}));

/** A policy in the middle of a roll-out. */
const policyOf = (nodes: readonly NodeReport[]): Fleet['policies'][number] => {
  const validated = nodes.filter(({ state }) => state === 'validated').length;
  const upToDate = Math.floor(validated / 3);
  return {
    name: 'default',
    enforcing: true,
    reason: 'Enforcing',
    message: '',
    nodes: nodes.length,
    validated,
    failed: nodes.filter(({ state }) => state === 'failed').length,
    upToDate,
    rollOut: `Progressing: ${upToDate} of ${validated} validated nodes run what the policy says`,
    warnings: [],
  };
};

/** Of every second `changes` nodes differ from the report before. */
function fleets(count: number, changes: number): () => Fleet {
  const nodes = Array.from({ length: count }, (_, i) => aNode(i, 0));
  let last = performance.now();
  let at = 0;
  let turn = 0;
  return () => {
    const due = Math.round(((performance.now() - last) / 1000) * changes);
    last = performance.now();
    turn += 1;
    for (let i = 0; i < Math.min(due, count); i += 1, at = (at + 1) % count) nodes[at] = aNode(at, turn);
    const byState: Record<string, number> = {};
    for (const { state } of nodes) byState[state] = (byState[state] ?? 0) + 1;
    const failed = byState['failed'] ?? 0;
    return {
      policies: [policyOf(nodes)],
      nodes: [...nodes],
      byState,
      usual: {},
      waiting: WAITING,
      deployments: [],
      unread: [],
      problems: failed === 0 ? [] : [`${failed} nodes failed: kubectl gpu-gate node gpu-7 says why`],
    };
  };
}

interface Seen {
  /** ms from opening the address to the first row. */
  readonly first: number;
  /** ms between frames while nodes change. */
  readonly frames: readonly number[];
  /** ms from a typed letter to the rows that it leaves. */
  readonly search: number;
}

/** Frames are counted by the page itself; a string, because it runs there. */
const FRAMES = `new Promise((resolve) => {
  const gaps = []; let before = performance.now(); const end = before + SECONDS * 1000;
  const next = (now) => { gaps.push(now - before); before = now; now < end ? requestAnimationFrame(next) : resolve(gaps); };
  requestAnimationFrame(next);
})`;

/** Opens the page with so many nodes, of which some change each second. */
async function withPage<T>(
  browser: Browser,
  count: number,
  changes: number,
  use: (page: Page, address: string) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const next = fleets(count, changes);
  const printed = Promise.withResolvers<string>();
  const served = serveUi(
    {
      fleet: () => Promise.resolve(next()),
      node: () => Promise.reject(new Error('not asked for')),
      sentence: String,
    },
    {
      port: 0,
      folder: join(ROOT, 'kubectl/dist/page'),
      now: Date.now,
      signal: stop.signal,
      say: printed.resolve,
    },
  );
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
  try {
    return await use(page, await Promise.race([printed.promise, served.then(() => '')]));
  } finally {
    await page.close();
    stop.abort();
    await served;
  }
}

const watch = (browser: Browser, count: number, changes: number, seconds: number): Promise<Seen> =>
  withPage(browser, count, changes, async (page, address) => {
    const began = performance.now();
    await page.goto(address);
    await page.locator('tr[data-row]').first().waitFor();
    const first = performance.now() - began;
    const frames = await page.evaluate<number[]>(FRAMES.replace('SECONDS', String(seconds)));
    const typed = performance.now();
    await page.getByRole('searchbox').fill(`gpu-${count - 1}`);
    await page.getByText('1 node shown').waitFor();
    return { first, frames, search: performance.now() - typed };
  });

export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const count = numberArg(args, 'nodes', 5000);
  const changes = numberArg(args, 'changes', 100);
  const seconds = numberArg(args, 'seconds', 20);
  const executablePath = spawnSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).stdout.trim();
  if (executablePath === '') throw new Error('chromium is missing here: npm test -- --install brings it');
  const built = spawnSync(process.execPath, [join(ROOT, 'scripts/plugin.ts')], { encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`the page was not built: ${built.stderr}`);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  try {
    const picture = textArg(args, 'picture', '');
    if (picture !== '') {
      await withPage(browser, count, 0, async (page, address) => {
        await page.setViewportSize({ width: 1400, height: 700 });
        await page.goto(address);
        await page.locator('tr[data-row]').first().waitFor();
        await page.screenshot({ path: picture });
      });
      return [];
    }
    // The first page of a browser starts its programs.
    await watch(browser, 10, 1, 1);
    say(`10 nodes, then ${count} of which ${changes} change each second`);
    const few = await watch(browser, 10, 1, seconds);
    const many = await watch(browser, count, changes, seconds);
    return [
      {
        name: `first row of ${count} nodes`,
        value: many.first,
        unit: 'ms',
        reference: { name: '10 nodes', value: few.first },
        bar: 'under 2 s after the data is there',
        held: many.first < 2000,
      },
      {
        name: 'search among them, until its row is left',
        value: many.search,
        unit: 'ms',
        reference: { name: '10 nodes', value: few.search },
      },
      {
        name: 'time between frames while they change, p99',
        value: quantile(many.frames, 0.99),
        unit: 'ms',
        reference: { name: '10 nodes', value: quantile(few.frames, 0.99) },
        bar: 'under 200 ms: what is typed or clicked is answered at once',
        held: quantile(many.frames, 0.99) < 200,
      },
      { name: 'longest time between frames', value: Math.max(...many.frames), unit: 'ms' },
    ];
  } finally {
    await browser.close();
  }
}
