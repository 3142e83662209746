// `npm run bench -- page`: the status page in a real Chromium with many nodes: how soon it is
// drawn, and whether it stays responsive while nodes change. The reference is the same page with
// ten nodes.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { chromium, type Browser } from 'playwright-core';
import type { Fleet, NodeReport } from '../kubectl/fleet.ts';
import { serveUi } from '../kubectl/routes.ts';
import { numberArg, quantile, type BenchContext, type Row } from './rows.ts';

export const about = 'the status page with many nodes in Chromium, beside one with ten';
export const options = {
  '--nodes N': 'nodes (5000)',
  '--changes N': 'nodes that change each second (100)',
  '--seconds N': 'how long they change (20)',
};

const ROOT = join(import.meta.dirname, '..');

function aNode(index: number, turn: number): NodeReport {
  const open = (index + turn) % 7 !== 0;
  return {
    name: `gpu-${index}`,
    policy: 'default',
    state: open ? 'validated' : index % 2 === 0 ? 'driver' : 'failed',
    open,
    reason: open ? '' : 'GPU stack not validated: driver',
    message: open ? 'validated' : `driver: waiting for driver-${turn} to be Ready`,
    since: '2026-01-01T00:00:00Z',
    tookMs: { driver: 180_000 + index },
    proof: { level: 'full', at: '2026-01-01T00:00:00Z', driver: '580.95.05', cuda: '13.0' },
    gpus: [{ resource: 'nvidia.com/gpu', offered: 8, used: (index + turn) % 9 }],
    next: '',
  };
}

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
    return {
      policies: [],
      nodes: [...nodes],
      byState,
      usual: {},
      waiting: [],
      deployments: [],
      unread: [],
      problems: [],
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

async function watch(browser: Browser, count: number, changes: number, seconds: number): Promise<Seen> {
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
    const address = await Promise.race([printed.promise, served.then(() => '')]);
    const began = performance.now();
    await page.goto(address);
    await page.locator('tr[data-row]').first().waitFor();
    const first = performance.now() - began;
    const frames = await page.evaluate<number[]>(FRAMES.replace('SECONDS', String(seconds)));
    const typed = performance.now();
    await page.getByRole('searchbox').fill(`gpu-${count - 1}`);
    await page.getByText('1 node shown').waitFor();
    return { first, frames, search: performance.now() - typed };
  } finally {
    await page.close();
    stop.abort();
    await served;
  }
}

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
