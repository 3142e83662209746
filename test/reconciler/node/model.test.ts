// The model test: random histories of a node whose hardware has a truth of its own. Whatever
// happens, the node is open only while that truth held when the kubelet last reported it. A history
// that ends quiet and healthy ends validated.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { DEPLOY_PREFIX, RETRY, WALK } from '../../../core/keys.ts';
import { HardwareModel, MODEL_POLICIES, type Mistake } from './hardware-model.ts';

const HISTORIES = 2000;
/** GPU_GATE_TEST_SEED repeats a run. */
const SEED = Number(process.env['GPU_GATE_TEST_SEED'] ?? Date.now() % 0x7f_ff_ff_ff);

type Happening = readonly [what: string, happen: (model: HardwareModel) => void];
const happening = (what: string, happen: (model: HardwareModel) => void): fc.Arbitrary<Happening> =>
  fc.constant([what, happen] as const);

/** A pass that is cut off: what it did not write, the next one must. */
const DIES = 'gpu-gate dies after';

const disturbance = fc.oneof(
  ...(['toolkit', 'driver', 'device-plugin', 'dcgm-exporter'] as const).flatMap((name) => [
    happening(`${name} restarts`, (model) => model.restart(name)),
    happening(`${name} breaks`, (model) => model.break(name)),
  ]),
  happening('reboot', (model) => model.reboot()),
  happening('CUDA stops computing', (model) => {
    model.computes = false;
  }),
  happening('repaired', (model) => model.mend()),
  happening('opted out', (model) => model.label('managed', false)),
  happening('opted in', (model) => model.label('managed', true)),
  happening('NFD label gone', (model) => model.label('nfd', false)),
  happening('NFD label back', (model) => model.label('nfd', true)),
  happening('node not Ready', (model) => model.ready(false)),
  happening('node Ready', (model) => model.ready(true)),
  happening('all GPUs in use', (model) => {
    model.busy = true;
  }),
  happening('GPUs free', (model) => {
    model.busy = false;
  }),
  happening('all GPUs vanish', (model) => model.gpusVanish(true)),
  happening('GPUs back', (model) => model.gpusVanish(false)),
  happening('all GPUs vanish for a moment', (model) => {
    model.gpusVanish(true);
    model.kubelet();
    model.pass();
    model.gpusVanish(false);
    model.kubelet();
  }),
  happening('out of sight for long', (model) => model.outOfSightForLong()),
  happening(`${DIES} one write`, (model) => model.pass(1)),
  happening(`${DIES} two writes`, (model) => model.pass(2)),
  happening('another driver version', (model) => model.setPolicy(MODEL_POLICIES.otherDriver)),
  happening('the first driver version', (model) => model.setPolicy(MODEL_POLICIES.first)),
  happening('suspended', (model) => model.setPolicy(MODEL_POLICIES.suspended)),
  happening('node re-created', (model) => model.recreate()),
);
/**
 * What costs no proof by itself: news that is late, marks that others remove, validations that
 * others end, retries, edits.
 */
const harmless = fc.oneof(
  happening('the watch of pods stands still', (model) => model.lag('pods')),
  happening('the watch of nodes stands still', (model) => model.lag('node')),
  happening('watches catch up', (model) => model.catchUp()),
  ...(['toolkit', 'driver', 'device-plugin', 'dcgm-exporter'] as const).map((name) =>
    happening(`the label of ${name} is removed by hand and comes back`, (model) => {
      model.catchUp();
      model.strip(DEPLOY_PREFIX + name);
      model.pass();
    }),
  ),
  happening('the walk is forgotten', (model) => model.strip(WALK)),
  happening('validations are evicted', (model) => model.evict()),
  happening('a retry is asked for', (model) => {
    model.isAsked = true;
    model.annotate(RETRY, 'now');
  }),
  happening('the retry is taken away', (model) => model.strip(RETRY)),
  happening('NFD label gone', (model) => model.label('nfd', false)),
  happening('NFD label back', (model) => model.label('nfd', true)),
  happening('toolkit restarts', (model) => model.restart('toolkit')),
  happening('device-plugin restarts', (model) => model.restart('device-plugin')),
  happening('dcgm-exporter restarts', (model) => model.restart('dcgm-exporter')),
  happening('all GPUs in use', (model) => {
    model.busy = true;
  }),
  happening('GPUs free', (model) => {
    model.busy = false;
  }),
  happening('another driver version', (model) => model.setPolicy(MODEL_POLICIES.otherDriver)),
  happening('the first driver version', (model) => model.setPolicy(MODEL_POLICIES.first)),
  happening('another validation image', (model) => model.setPolicy(MODEL_POLICIES.otherImage)),
);
const walking: Happening = [
  'walks on',
  (model) => {
    for (let i = 0; i < 12; i += 1) {
      model.kubelet();
      model.pass();
    }
  },
];
const history = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: disturbance },
    { weight: 3, arbitrary: harmless },
    { weight: 4, arbitrary: happening('kubelet', (model) => model.kubelet()) },
    { weight: 5, arbitrary: happening('pass', (model) => model.pass()) },
    { weight: 3, arbitrary: fc.constant(walking) },
    {
      weight: 2,
      arbitrary: fc.integer({ min: 1, max: 400 }).map((s): Happening => [`${s} s`, (model) => model.wait(s)]),
    },
  ),
  { minLength: 3, maxLength: 30 },
);

/**
 * Lives a history; throws where the node is open and must not be. Returns in how many moments it
 * was open.
 */
function live(happenings: readonly Happening[], mistake: Mistake = 'none'): { model: HardwareModel; opened: number } {
  const model = new HardwareModel(mistake);
  let opened = 0;
  for (const [what, happen] of happenings) {
    happen(model);
    // A reboot closes without an action of gpu-gate. Of everything else the plan may learn first,
    // which takes one observation.
    if (what !== 'reboot' && !what.startsWith(DIES)) model.pass();
    if (!model.isOpen) continue;
    opened += 1;
    if (model.mustNotBeOpen !== undefined)
      throw new Error(`open after "${what}", though ${model.mustNotBeOpen}: ${model.explanation}`);
  }
  return { model, opened };
}

const described = (happenings: readonly Happening[]): string => happenings.map(([what]) => what).join(', ');

it(`${HISTORIES} histories: open implies that the hardware's truth holds; quiet and healthy at last means validated`, () => {
  console.log(`model test: seed ${SEED}`);
  let opened = 0;
  fc.assert(
    fc.property(history, (happenings) => {
      const lived = live(happenings);
      opened += lived.opened;
      const { model } = lived;
      model.catchUp();
      model.mend();
      model.busy = false;
      model.ready(true);
      model.label('managed', true);
      model.label('nfd', true);
      model.setPolicy(MODEL_POLICIES.first);
      for (let i = 0; i < 80 && !(i > 5 && model.isOpen); i += 1) {
        model.wait(i > 20 ? 20 : 1);
        model.kubelet();
        model.pass();
      }
      if (!model.isOpen) throw new Error(`not open at the end: ${model.explanation}`);
      for (let i = 0; i < 4; i += 1) model.pass();
      if (model.writes > 0) throw new Error(`writes on and on: ${model.explanation}`);
    }),
    { numRuns: HISTORIES, seed: SEED, reporter: report },
  );
  console.log(`model test: open at ${opened} moments of ${HISTORIES} histories`);
  // A node that never opens would hold the invariant too.
  expect(opened).toBeGreaterThan(HISTORIES);
});

it('a proof goes for a listed cause alone: whatever else happens, pods that run stay Ready', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: harmless },
    { weight: 4, arbitrary: happening('kubelet', (model) => model.kubelet()) },
    { weight: 4, arbitrary: happening('pass', (model) => model.pass()) },
    { weight: 2, arbitrary: fc.constant(walking) },
    {
      weight: 2,
      arbitrary: fc.integer({ min: 1, max: 40 }).map((s): Happening => [`${s} s`, (model) => model.wait(s)]),
    },
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 3, maxLength: 25 }), (happenings) => {
      const model = new HardwareModel();
      for (let i = 0; i < 40 && !model.isOpen; i += 1) {
        model.kubelet();
        model.pass();
      }
      expect(model.isOpen).toBe(true);
      for (const [what, happen] of happenings) {
        happen(model);
        // At the operator's word a driver that hangs is started afresh.
        if (!model.isServing && !model.isAsked) throw new Error(`not serving after "${what}": ${model.explanation}`);
      }
    }),
    { numRuns: 500, seed: SEED, reporter: report },
  );
});

it.each(['never-looks-again', 'believes-old-starts'] as const)(
  'catches a reconciler that %s',
  (mistake) => {
    const outcome = fc.check(
      fc.property(history, (happenings) => void live(happenings, mistake)),
      { numRuns: HISTORIES, seed: SEED, endOnFailure: true },
    );
    expect(outcome.failed).toBe(true);
  },
  120_000,
);

function report(outcome: fc.RunDetails<[Happening[]]>): void {
  if (!outcome.failed) return;
  const [happenings] = outcome.counterexample ?? [[]];
  throw new Error(
    `seed ${outcome.seed}, path ${outcome.counterexamplePath}: ${String((outcome.errorInstance as Error | undefined)?.message)}\nhistory: ${described(happenings)}`,
  );
}
