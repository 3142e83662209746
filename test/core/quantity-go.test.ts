// Our reader of quantities against Kubernetes' own, on 100,000 random ones.
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readQuantity } from '../../core/quantity.ts';
import { ensureOwnProgram } from '../../lab/cluster/binaries.ts';
import { hasGo } from '../support/go.ts';

const COUNT = 100_000;
/** No amount in Kubernetes is larger. */
const MAX = 2n ** 63n - 1n;

const digits = fc.oneof(
  { weight: 6, arbitrary: fc.stringMatching(/^[0-9]{0,4}$/) },
  { weight: 1, arbitrary: fc.stringMatching(/^[0-9]{0,30}$/) },
  { weight: 1, arbitrary: fc.stringMatching(/^0{0,6}[1-9]?0{0,12}$/) },
);
const suffix = fc.oneof(
  fc.constantFrom('', 'n', 'u', 'm', 'k', 'M', 'G', 'T', 'P', 'E', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'),
  fc
    .tuple(fc.constantFrom('e', 'E'), fc.constantFrom('', '+', '-'), fc.integer({ min: 0, max: 40 }))
    .map(([letter, sign, exponent]) => `${letter}${sign}${exponent}`),
  fc.constantFrom('e', 'E+', 'ki', 'K', 'mi', 'i', 'x', ' ', 'Kik', 'e3k', 'Zi', '%', '.', 'e1.5', '_'),
);
const quantity = fc
  .tuple(fc.constantFrom('', '', '+', '-', '--', ' '), digits, fc.constantFrom('', '', '.', '..'), digits, suffix)
  .map(([sign, whole, dot, fraction, end]) => `${sign}${whole}${dot}${dot === '' ? '' : fraction}${end}`);

const missing = hasGo() ? undefined : 'Go is not installed, so quantities are not compared with Kubernetes’ own reader';
if (missing !== undefined) console.log(missing);

describe.skipIf(missing !== undefined)('a quantity', () => {
  it('means what it means to Kubernetes', async () => {
    const program = await ensureOwnProgram(join(import.meta.dirname, '../support/quantities'), 'quantities', {
      cacheHome: process.env['XDG_CACHE_HOME'],
      path: process.env['PATH'],
      say: console.log,
    });
    const seed = Date.now() & 0x7fffffff;
    const quantities = fc.sample(quantity, { numRuns: COUNT, seed });
    const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin.end(quantities.map((one) => `${JSON.stringify(one)}\n`).join(''));
    const lines = (await text(child.stdout)).trimEnd().split('\n');
    expect(lines).toHaveLength(COUNT);
    const clamped = (amount: bigint): bigint => (amount > MAX ? MAX : amount < -MAX ? -MAX : amount);
    const meaning = (line: string | undefined): string =>
      line === undefined || line === 'error' ? 'error' : String(clamped(BigInt(line)));
    const ours = (one: string): string => String(readQuantity(one) ?? 'error');
    const different = quantities
      .map((one, i) => ({ one, ours: ours(one), theirs: meaning(lines[i]) }))
      // Without a digit Kubernetes reads some as zero and rejects others; both are no amount.
      .filter(({ one, ours }) => /^[ +-]*\.*\d/.test(one) || ours !== 'error')
      .filter((row) => row.ours !== row.theirs);
    expect(different.slice(0, 10), `seed ${seed}`).toEqual([]);
  });
});
