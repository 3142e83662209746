// Random histories of roll-outs on a cluster in memory. What must hold at every write, and where
// every history that becomes quiet must end.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { DEPLOY_PREFIX, MANAGED, PROOF, RETRY, STATE, WALK } from '../../core/keys.ts';
import { open, serving } from '../../gate/node-proof.ts';
import { renderOperand } from '../../reconciler/manifests/render.ts';
import { hasEnded } from '../../reconciler/model.ts';
import { parseWalk, type Walk } from '../../reconciler/walk.ts';
import { OPERANDS } from '../builders/caches.ts';
import { Cluster } from '../builders/cluster.ts';
import { aNode, aPolicy, keptPod } from '../builders/objects.ts';
import { histories } from '../support/histories.ts';

const HISTORIES = histories(60, 100);
/** GPU_GATE_TEST_SEED repeats a run. */
const SEED = Number(process.env['GPU_GATE_TEST_SEED'] ?? Date.now() % 0x7f_ff_ff_ff);
const NAMES = ['n0', 'n1', 'n2', 'n3'];
const VERSIONS = ['1', '2', '3'] as const;
const MODES = ['Wait', 'Evict', 'None'] as const;
type Version = (typeof VERSIONS)[number];

let generation = 1;
interface Edit {
  readonly driver: Version;
  readonly plugin: Version;
  readonly mode: (typeof MODES)[number];
  readonly timeoutSeconds: number;
  readonly paused: boolean;
}
const policyOf = (edit: Edit, maxUnavailable: number): GpuPolicy => ({
  ...aPolicy({
    components: { driver: { version: edit.driver }, devicePlugin: { version: edit.plugin } },
    upgrade: {
      maxUnavailable,
      paused: edit.paused,
      drain: { mode: edit.mode, timeoutSeconds: edit.timeoutSeconds },
    },
    bringUp: { maxConcurrent: '100%' },
    breaker: '100%',
    validation: { timeouts: { driver: '60s' }, backoff: { initial: '5s', max: '20s' } },
  }),
  generation: (generation += 1),
});
const FIRST: Edit = { driver: '1', plugin: '1', mode: 'Wait', timeoutSeconds: 0, paused: false };
const revisionOf = (driver: Version): string =>
  renderOperand('driver', policyOf({ ...FIRST, driver }, 1), { namespace: OPERANDS }).revision;
const REVISIONS = Object.fromEntries(VERSIONS.map((version) => [revisionOf(version), version]));

class RollOutModel {
  readonly cluster: Cluster;
  edit = FIRST;
  users = 0;
  /** `node version` of each driver that does not come up. */
  readonly bad: ReadonlySet<string>;
  readonly most: number;

  constructor(most: number, bad: ReadonlySet<string>) {
    this.most = most;
    this.bad = bad;
    this.cluster = new Cluster(policyOf(FIRST, most));
    this.cluster.operandsWork = (node, component, revision) =>
      component !== 'driver' || !bad.has(`${node} ${REVISIONS[revision]}`);
    this.cluster.passValidations();
    this.cluster.answer = (action) => {
      if (action.kind === 'patch-node') this.guard(action.node, action.labels, action.annotations);
      return undefined;
    };
    for (const name of NAMES) {
      const { metadata, ...rest } = aNode({ name, gpus: '0' });
      const { [STATE]: _, ...labels } = metadata.labels ?? {};
      this.cluster.setNode({ ...rest, metadata: { ...metadata, labels, annotations: {} } });
    }
  }

  walkOn = (name: string): Walk | undefined =>
    parseWalk(this.cluster.node(name).metadata.annotations?.[WALK], `uid-${name}`);
  usersOn = (name: string) =>
    [...this.cluster.pods.all.values()].filter(
      (pod) => pod.namespace === 'team' && pod.nodeName === name && !hasEnded(pod),
    );
  get closed(): readonly string[] {
    return NAMES.filter((name) => {
      const rollOut = this.walkOn(name)?.rollOut;
      return rollOut !== undefined && rollOut.spare !== true;
    });
  }

  /** Nothing is taken from under users, and no more nodes are closed than may be. */
  private guard(
    node: string,
    labels: Readonly<Record<string, string | null>>,
    annotations: Readonly<Record<string, string | null>>,
  ): void {
    const users = this.usersOn(node)
      .map(({ name }) => name)
      .join(', ');
    if (users === '') return;
    if (labels[`${DEPLOY_PREFIX}driver`] === null)
      throw new Error(`the driver of ${node} is taken from under ${users}`);
    const begins = this.walkOn(node)?.rollOut?.phase !== 'replace';
    const replaces = parseWalk(annotations[WALK] ?? undefined, `uid-${node}`)?.rollOut?.phase === 'replace';
    if (annotations[PROOF] === null && begins && replaces && this.isServing(node))
      throw new Error(`the proof of ${node} is withdrawn under ${users}`);
  }
  private isServing = (name: string): boolean => serving(this.cluster.node(name)).yes;
  check(): void {
    if (this.closed.length > this.most) throw new Error(`closed for the roll-out: ${this.closed.join(', ')}`);
  }

  setPolicy(change: Partial<Edit>): void {
    this.edit = { ...this.edit, ...change };
    this.cluster.editPolicy(policyOf(this.edit, this.most));
  }
  /** A pod that the scheduler places now and binds a little later. */
  comes(name: string, bindMs: number, optedOut: boolean): void {
    if (!open(this.cluster.node(name)).yes) return;
    const pod = keptPod({
      namespace: 'team',
      name: `user-${(this.users += 1)}`,
      uid: `user-${this.users}`,
      nodeName: name,
      gpus: { 'nvidia.com/gpu': 1 },
    });
    const wants = { ...pod.wants, read: { ok: true, wishes: { optedOut } } } as typeof pod.wants;
    this.cluster.later(bindMs, () => {
      // The scheduler asked while the node was open: the roll-out waits for what it placed.
      if (this.walkOn(name)?.rollOut?.phase === 'replace')
        throw new Error(`${name} is replaced before a pod that was placed there is bound`);
      this.cluster.setPod({ ...pod, wants });
    });
  }
  end(name: string): void {
    for (const pod of this.usersOn(name)) this.cluster.removePod(`team/${pod.name}`);
  }
  managed(name: string, yes: boolean): void {
    const node = this.cluster.node(name);
    const { [MANAGED]: _, ...labels } = node.metadata.labels ?? {};
    this.cluster.setNode({
      ...node,
      metadata: { ...node.metadata, labels: yes ? { ...labels, [MANAGED]: 'true' } : labels },
    });
  }
  retry(name: string): void {
    const node = this.cluster.node(name);
    const annotations = { ...node.metadata.annotations, [RETRY]: String((this.users += 1)) };
    this.cluster.setNode({ ...node, metadata: { ...node.metadata, annotations } });
  }
  restart(name: string): void {
    const revision = this.cluster.node(name).metadata.labels?.[`${DEPLOY_PREFIX}driver`];
    if (revision !== undefined) this.cluster.startOperand(name, 'driver', revision);
  }
  async wait(seconds: number): Promise<void> {
    for (let i = 0; i < seconds; i += 1) {
      await this.cluster.settle(1000);
      this.check();
    }
  }
}

type Happening = readonly [what: string, happen: (model: RollOutModel) => void | Promise<void>];
const node = fc.constantFrom(...NAMES);
const happening: fc.Arbitrary<Happening> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .constantFrom(...VERSIONS)
      .map((driver): Happening => [`driver ${driver}`, (model) => model.setPolicy({ driver })]),
  },
  fc.constantFrom(...VERSIONS).map((plugin): Happening => [`plugin ${plugin}`, (model) => model.setPolicy({ plugin })]),
  fc.constantFrom(...MODES).map((mode): Happening => [`mode ${mode}`, (model) => model.setPolicy({ mode })]),
  fc
    .constantFrom(0, 20)
    .map((timeoutSeconds): Happening => [`drain ${timeoutSeconds} s`, (model) => model.setPolicy({ timeoutSeconds })]),
  fc.boolean().map((paused): Happening => [`paused ${paused}`, (model) => model.setPolicy({ paused })]),
  {
    weight: 6,
    arbitrary: fc
      .tuple(node, fc.constantFrom(0, 500, 2000), fc.boolean())
      .map(([name, bindMs, optedOut]): Happening => [
        `a pod for ${name} after ${bindMs} ms${optedOut ? ', opted out' : ''}`,
        (model) => model.comes(name, bindMs, optedOut),
      ]),
  },
  { weight: 4, arbitrary: node.map((name): Happening => [`pods of ${name} end`, (model) => model.end(name)]) },
  node.map((name): Happening => [`${name} reboots`, (model) => model.cluster.reboot(name)]),
  node.map((name): Happening => [`driver of ${name} restarts`, (model) => model.restart(name)]),
  node.map((name): Happening => [`${name} is opted out`, (model) => model.managed(name, false)]),
  node.map((name): Happening => [`${name} is opted in`, (model) => model.managed(name, true)]),
  node.map((name): Happening => [`retry ${name}`, (model) => model.retry(name)]),
  fc.constant<Happening>(['another leader', (model) => model.cluster.takeOver()]),
  {
    weight: 8,
    arbitrary: fc.constantFrom(1, 2, 5, 30, 90).map((s): Happening => [`${s} s`, (model) => model.wait(s)]),
  },
);
const history = fc.record({
  most: fc.integer({ min: 1, max: 2 }),
  bad: fc.array(
    fc.tuple(node, fc.constantFrom('2', '3')).map((pair) => pair.join(' ')),
    { maxLength: 2 },
  ),
  happenings: fc.array(happening, { minLength: 4, maxLength: 30 }),
});

it(`${HISTORIES} histories: no more nodes close than may, no driver goes from under a pod, and a quiet end is whole or names the node that stops it`, async () => {
  console.log(`roll-out model: seed ${SEED}`);
  const ends = { whole: 0, stopped: 0 };
  await fc.assert(
    fc.asyncProperty(history, async ({ most, bad, happenings }) => {
      const model = new RollOutModel(most, new Set(bad));
      await model.wait(30);
      for (const [what, happen] of happenings) {
        try {
          await happen(model);
          await model.wait(1);
        } catch (error) {
          throw new Error(`after "${what}"`, { cause: error });
        }
      }
      const { cluster } = model;
      model.setPolicy({ paused: false });
      for (const name of NAMES) {
        model.managed(name, true);
        await model.wait(2);
        model.end(name);
        model.retry(name);
      }
      await cluster.settle(400_000);
      model.check();
      const { driver } = model.edit;
      const isBad = (name: string): boolean => model.bad.has(`${name} ${driver}`);
      const healthy = NAMES.filter((name) => !isBad(name));
      const condition = cluster.policies.get('default')?.status.conditions?.find(({ type }) => type === 'RollingOut');
      const stopper = /^stopped: node (\S+)/.exec(condition?.message ?? '')?.[1];
      const behind = healthy.filter((name) => model.walkOn(name)?.driver !== driver);
      const shut = healthy.filter((name) => !open(cluster.node(name)).yes);
      const state = NAMES.map((name) =>
        JSON.stringify([cluster.node(name).metadata, cluster.node(name).status?.conditions]),
      ).join('\n');
      expect(shut, state).toEqual([]);
      if (stopper === undefined) expect(behind, `${condition?.message}\n${state}`).toEqual([]);
      else expect(isBad(stopper), condition?.message).toBe(true);
      ends[stopper === undefined ? 'whole' : 'stopped'] += 1;
    }),
    { numRuns: HISTORIES, seed: SEED, reporter: report },
  );
  console.log(`roll-out model: ${ends.whole} whole, ${ends.stopped} stopped`);
  expect(Math.min(ends.whole, ends.stopped)).toBeGreaterThan(0);
}, 300_000);

function report(outcome: fc.RunDetails<[{ most: number; bad: string[]; happenings: Happening[] }]>): void {
  if (!outcome.failed) return;
  const [found] = outcome.counterexample ?? [];
  const error = outcome.errorInstance as Error | undefined;
  throw new Error(
    `seed ${outcome.seed}: ${error?.message}: ${(error?.cause as Error | undefined)?.message ?? ''}\nat most ${found?.most}, bad: ${found?.bad.join(', ')}\nhistory: ${found?.happenings.map(([what]) => what).join(', ')}`,
  );
}
