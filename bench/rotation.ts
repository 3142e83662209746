// `npm run bench -- rotation [--calls 50000]`: certificates rotate under load, `failurePolicy:
// Fail`, and no call fails.
import { join } from 'node:path';
import { ADDRESSES, STEP_KINDS, type RotationOptions, type RotationResult } from '../lab/cluster/rotation.ts';
import { inOwnNetwork, noOwnNetwork } from '../test/support/network.ts';
import { numberArg, type BenchContext, type Row } from './rows.ts';

const SCRIPT = join(import.meta.dirname, '..', 'lab', 'cluster', 'rotation.ts');

export const about = 'certificates rotate under load, and no call fails';
export const options = {
  '--calls N': 'creations (50000)',
  '--rate N': 'creations a second (100)',
  '--leaves N': 'rotations of leaves (20)',
  '--cas N': 'rotations of CAs (10)',
};

/**
 * Rows of the whole proof; none, with the reason printed, where no network namespace can be made.
 */
export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const reason = noOwnNetwork();
  if (reason !== undefined) {
    say(`skipped: ${reason}`);
    return [];
  }
  const calls = numberArg(args, 'calls', 50_000);
  const argument: RotationOptions = {
    rate: numberArg(args, 'rate', 100),
    calls,
    leafRotations: numberArg(args, 'leaves', 20),
    caRotations: numberArg(args, 'cas', 10),
    certLife: '30s',
    caLife: '72s',
    window: '2s',
    grace: '2s',
    kill: true,
    control: 10,
    within: 1200,
  };
  const result = await inOwnNetwork<RotationResult>(SCRIPT, { addresses: ADDRESSES, argument, say });
  const { p99, killed, control, lateControl } = result;
  if (result.example !== undefined) say(`a failed call: ${result.example}`);
  if (killed !== undefined) {
    say(`steps before leaders were killed: ${killed.steps.join(', ')}`);
    say(`steps that they died on: ${killed.diedOn.join(', ')}`);
  }
  const least = (name: string, value: number, bar: number): Row => ({
    name,
    value,
    unit: '',
    bar: `at least ${bar}`,
    held: value >= bar,
  });
  const perSwap = (of: { failed: number; swaps: number }): number => of.failed / of.swaps;
  return [
    least('calls', result.calls, calls),
    least('leaf rotations', result.leafRotations, argument.leafRotations),
    least('CA rotations', result.caRotations, argument.caRotations),
    {
      name: 'failed calls',
      value: result.failed,
      unit: '',
      bar: 'none: no caller notices a rotation',
      held: result.failed === 0,
    },
    // Fewer would make no p99 to compare with.
    least('calls while nothing rotated', result.quietCalls, calls / 50),
    {
      name: 'p99 during a rotation',
      value: p99.rotating,
      unit: 'ms',
      reference: { name: 'quiet', value: p99.quiet },
      bar: 'at most twice the quiet one',
      held: p99.rotating <= 2 * p99.quiet,
    },
    {
      name: 'failed calls, leaders killed at each step',
      value: killed?.failed ?? NaN,
      unit: `of ${killed?.calls ?? 0}`,
      bar: 'none: the next leader goes on',
      held: killed?.failed === 0 && killed.steps.filter((step) => step === 'drop-old').length >= 2,
    },
    least('kinds of step that a leader died on', killed?.diedOn.length ?? 0, STEP_KINDS.length),
    { name: 'control: CA and leaf replaced at once', value: perSwap(control), unit: 'failed calls each' },
    {
      name: `control: leaf ${lateControl.lateMs / 1000} s later, as in a mounted file`,
      value: perSwap(lateControl),
      unit: 'failed calls each',
      bar: 'some: or this load could not show a failure',
      held: lateControl.failed > 0,
    },
  ];
}
