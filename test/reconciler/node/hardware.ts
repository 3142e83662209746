// The world with hardware of its own: what runs since when, what computes. The kubelet reports it
// to the API server with a delay, leaders see only what their watches brought, and this file never
// asks the plan what is true.
import { DEPLOY_PREFIX, GPU_VALIDATED, HOLD, MANAGED, PROOF, WALK } from '../../../core/keys.ts';
import { open, serving } from '../../../gate/node-proof.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { BRING_UP, places } from '../../../reconciler/limits/places.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import type { NodePlan } from '../../../reconciler/node/node-plan.ts';
import { isPublished, type Pool } from '../../../reconciler/slices.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { afterWrite, aPolicy, keptPod, NOW } from '../../builders/objects.ts';
import { aPool, endedWith, freshNode, NFD, operandPod, RUN, World } from './world.ts';

export type Run = (typeof RUN)[number];

interface Process {
  readonly uid: string;
  readonly revision: string;
  readonly started: number;
  readonly readyAt: number;
  /** It was asked to end, and is gone then. */
  readonly endsAt?: number;
}
type Validation = 'driver-validation' | 'device-plugin-validation' | 'dra-validation';

/** What the hardware does, at one moment. */
interface Truth {
  readonly boot: number;
  readonly bootedAt: number;
  readonly processes: Readonly<Partial<Record<Run, Process>>>;
  readonly broken: ReadonlySet<Run>;
  /** The last run of each validation that ended well: when it began. */
  readonly passed: Readonly<Partial<Record<Validation, number>>>;
}

/** Objects as one leader's watches have brought them. */
interface View {
  readonly node: NodeObject;
  readonly pods: ReadonlyMap<string, PodObject>;
  readonly pools: readonly Pool[] | undefined;
}
interface Sent {
  readonly view: View;
  readonly actions: readonly Action[];
}
interface Leader {
  /** Its clock is ahead by so much, ms. */
  readonly ahead: number;
  /** By its own clock. */
  readonly since: number;
}

/**
 * Deliberate faults of what stands around the plan, to show that the test catches each kind; and by
 * which of its properties.
 */
export const FAULTS = {
  'never looks again once it is open': 'history',
  'believes old starts of pods': 'history',
  'takes pods on their way out for gone': 'history',
  'gives up after a write that failed': 'history',
  'knows no MIG devices': 'history',
  'takes capacity for what the kubelet offers': 'history',
  'begins without a place': 'history',
  'does not see the pods of other installers restart': 'history',
  'does not withdraw a proof': 'history',
  'lets proofs go though the breaker holds': 'quiet',
  'does not ask the breaker of nodes that leave': 'quiet',
  'keeps proofs though the breaker does not hold': 'history',
  'sends what a former leader had planned, whatever has changed since': 'history',
  'forces its writes over conflicts': 'history',
  'takes some GPUs that are lost for all of them': 'quiet',
  'forgets since when this leader looks': 'quiet',
  'takes an eviction for a verdict': 'quiet',
  'sees no GPU pods': 'history',
  'does not write its memory': 'rest',
  'believes on its return that nothing happened': 'away',
  'does not see that ResourceSlices go': 'history',
  'takes the silence of many nodes for the end of each': 'quiet',
  'does not hear of pods that the kubelet rejects': 'history',
  'takes a blank boot ID for a reboot': 'quiet',
  'loses the proof with the memory of the walk': 'quiet',
  'does not look again at a node that was restored': 'history',
  'takes an operator’s hold away': 'history',
  'leaves the command out of what waits for a person': 'history',
} as const;
export type Fault = keyof typeof FAULTS;

/** Whose driver the node has, or whose stack, and whether its GPUs reach pods by claims. */
export type Kind = 'managed' | 'external' | 'all external' | 'dra';
/** What other installers bring. */
const THEIRS: Readonly<Record<Kind, readonly Run[]>> = {
  managed: [],
  dra: [],
  external: ['driver'],
  'all external': ['toolkit', 'driver', 'device-plugin'],
};
const selectorOf = (name: Run) => ({ namespace: 'theirs', matchLabels: { app: name } });
const left = (name: Run, more: object = {}) => ({
  mode: 'external',
  podSelector: { ...selectorOf(name), ...more },
});
const ALL = { toolkit: left('toolkit'), driver: left('driver'), devicePlugin: left('device-plugin') };
/** What other installers would bring: no such pod ever comes. */
const LEFT = left('driver', { matchLabels: { app: 'not-installed' } });

const SHORT = {
  validation: { timeouts: { driver: '60s' }, backoff: { initial: '5s', max: '20s' } },
  resources: ['nvidia.com/gpu', 'nvidia.com/mig-*'],
};
const policiesOf = (components: object, more: object = {}) => {
  const short = { ...SHORT, ...more };
  return {
    first: aPolicy({ ...short, components }),
    otherImage: aPolicy({ ...short, components, validation: { ...short.validation, image: 'example/other:1' } }),
    otherResources: aPolicy({ ...short, components, resources: [...short.resources, 'nvidia.com/gpu.shared'] }),
    leftToOthers: aPolicy({ ...short, components: { ...components, driver: LEFT } }),
    suspended: aPolicy({ ...short, components, suspend: true }),
    another: aPolicy({ ...short, components }, { metadata: { name: 'another', uid: 'another', generation: 1 } }),
    deleted: aPolicy(
      { ...short, components },
      { metadata: { name: 'default', uid: 'policy-uid', generation: 1, deletionTimestamp: '2026-11-24T10:00:00Z' } },
    ),
  };
};
const POLICIES = {
  managed: {
    ...policiesOf({}),
    otherDriver: aPolicy({ ...SHORT, components: { driver: { version: '580.1.1' } } }),
  },
  dra: {
    ...policiesOf({}, { allocation: 'DRA' }),
    otherDriver: aPolicy({ ...SHORT, allocation: 'DRA', components: { driver: { version: '580.1.1' } } }),
  },
  // A stack that others install changes with no edit of ours; only its pods are named otherwise.
  external: {
    ...policiesOf({ driver: left('driver') }),
    leftToOthers: policiesOf({ driver: left('driver') }).first,
    otherDriver: policiesOf({ driver: left('driver', { ownerKind: 'DaemonSet' }) }).first,
  },
  'all external': {
    ...policiesOf(ALL),
    leftToOthers: policiesOf(ALL).first,
    otherDriver: policiesOf({
      toolkit: left('toolkit', { ownerKind: 'DaemonSet' }),
      driver: left('driver', { ownerKind: 'DaemonSet' }),
      devicePlugin: left('device-plugin', { ownerKind: 'DaemonSet' }),
    }).first,
  },
} as const;
export type PolicyName = keyof (typeof POLICIES)['managed'];

/** A user's pod that holds every GPU. */
const USER = keptPod({ namespace: 'default', name: 'user', uid: 'user', gpus: { 'nvidia.com/gpu': 8 } });

export class Hardware extends World {
  readonly kind: Kind;
  readonly #fault: Fault | undefined;
  computes = true;
  /** GPU pods of users hold all GPUs. */
  busy = false;
  mig = false;
  /** GPUs of eight that have fallen off the bus. */
  fallen = 0;
  /** New validations do not start, or start and never end. */
  stuck: 'start' | 'end' | undefined;
  /** The breaker holds: proofs that are about to go are kept. */
  tripped = false;
  conflicts: readonly string[] = [];
  /** So many nodes are silent that the silence of this one says nothing about it. */
  silentAmongMany = false;
  /** An operator has asked for a retry, which may restart what pods depend on. */
  isAsked = false;
  /** Writes of the last pass. */
  writes = 0;

  #truth: Truth = { boot: 1, bootedAt: NOW, processes: {}, broken: new Set(), passed: {} };
  /** The truth as the kubelet last reported it. */
  #told: Truth = this.#truth;
  #toldAt = NOW;
  #unrun = new Map<string, Validation>();
  /** The plan has not looked since something happened. */
  #unseen = false;
  #outOfSight = false;
  #isSelected = true;
  /** What a watch that stands still has brought. */
  #late: Partial<View> = {};
  /**
   * UIDs of the pods that some plan was shown. One that a late watch has not shown yet may still
   * run when the label of the next revision comes: nobody could know it.
   */
  readonly #knows = new Set<string>();
  #hasWritten = false;
  #hasGivenUp = false;
  /** A leader that has come back and does not look at what stands there. */
  #trusts = false;
  #leader: Leader = { ahead: 0, since: NOW };
  /** The previous leader with what it saw last: one of its writes may still be on its way. */
  #former: Sent | undefined;
  /** The last writes of the leader: sent again where their answer is lost. */
  #sent: Sent | undefined;
  /** What the leader knows of pods that the kubelet has rejected. */
  #rejection: NodeInput['rejection'];
  /**
   * The Node at some of the last reports of the kubelet, the oldest first: what etcd's backups are
   * of.
   */
  #backups: readonly NodeObject[] = [];
  #isHeld = false;
  #ignores = 0;
  readonly #places = places(BRING_UP);

  constructor(kind: Kind = 'managed', fault?: Fault) {
    super(POLICIES[kind].first);
    this.kind = kind;
    this.#fault = fault;
    this.node = freshNode('node-1', 'boot-1');
    for (const name of THEIRS[kind]) this.#start(name, 'theirs');
  }

  /** One of two ResourceSlices is not published yet. */
  get #half(): boolean {
    return this.kind === 'dra' && this.mig;
  }
  /** By what GPUs reach pods, and what proves it. */
  get #allocator(): 'device-plugin' | 'dra-driver' {
    return this.kind === 'dra' ? 'dra-driver' : 'device-plugin';
  }
  get #proves(): 'device-plugin-validation' | 'dra-validation' {
    return `${this.#allocator === 'dra-driver' ? 'dra' : this.#allocator}-validation`;
  }
  /** Without these no GPU pod runs. */
  get #needed(): readonly Run[] {
    return ['toolkit', 'driver', this.#allocator];
  }
  #offers({ node, pools }: View): boolean {
    return this.kind === 'dra'
      ? isPublished(pools, ['gpu.nvidia.com'])
      : Object.keys(node.status?.allocatable ?? {}).length > 0;
  }
  get isOpen(): boolean {
    return open(this.node).yes;
  }
  get isServing(): boolean {
    return serving(this.node).yes;
  }
  get explanation(): string {
    const { labels, annotations } = this.node.metadata;
    return JSON.stringify({ labels, annotations, conditions: this.node.status?.conditions });
  }

  /**
   * Why GPU pods that run there are not fine, by the truth that the kubelet reported; `undefined`
   * if they are. Nothing is claimed while the policy is suspended, nor until the plan has looked
   * once after something happened.
   */
  get mustNotServe(): string | undefined {
    if (this.#isBlind) return undefined;
    const { processes, passed, boot } = this.#told;
    if (this.node.status?.nodeInfo?.bootID !== `boot-${boot}`) return 'it was rebooted';
    if (processes.driver === undefined) return 'driver does not run';
    // The breaker keeps proofs that would go, which is what it is for.
    if (this.tripped) return undefined;
    return (passed['driver-validation'] ?? -1) < processes.driver.started
      ? 'no vectorAdd has passed since the driver started'
      : undefined;
  }
  /** Why the node must not be open, in the same way. */
  get mustNotBeOpen(): string | undefined {
    if (this.#isBlind) return undefined;
    const { processes, broken, passed, bootedAt, boot } = this.#told;
    if (this.node.status?.nodeInfo?.bootID !== `boot-${boot}`) return 'it was rebooted';
    if (this.#isHeld) return 'an operator holds it';
    for (const name of this.#needed) {
      const process_ = processes[name];
      if (process_ === undefined) return `${name} does not run`;
      if (broken.has(name) || process_.readyAt > this.#toldAt) return `${name} is not ready`;
      if (process_.started < bootedAt) return `${name} is from before the reboot`;
    }
    const since = (...names: Run[]): number => Math.max(...names.map((name) => processes[name]?.started ?? Infinity));
    if ((passed['driver-validation'] ?? -1) < since('toolkit', 'driver'))
      return 'no vectorAdd has passed since driver and toolkit started';
    if (this.kind === 'dra' && !this.#offers(this)) return 'the devices are not published, or not all of them';
    if ((passed[this.#proves] ?? -1) < since(this.#allocator))
      return 'no vectorAdd in a pod that asks for a GPU as users do has passed since what serves them started';
    return undefined;
  }
  get #isBlind(): boolean {
    return this.policy.spec.suspend || this.#unseen || Object.keys(this.#late).length > 0;
  }

  // What may happen.

  wait(seconds: number): void {
    this.now += seconds * 1000;
  }
  /**
   * The kernel restarts. Everything ends at once, and the kubelet publishes the new boot ID before
   * any pod's status.
   */
  restartKernel(): void {
    this.now += 1000;
    const boot = this.#truth.boot + 1;
    // The pods stay the same, and their containers start again.
    const processes = Object.fromEntries(
      Object.entries(this.#truth.processes).map(([name, process_]) => [
        name,
        { ...process_, started: this.now + 500, readyAt: this.now + 4000 },
      ]),
    );
    this.#truth = { ...this.#truth, boot, bootedAt: this.now, processes };
    this.reboot(`boot-${boot}`);
    this.#told = { ...this.#told, boot, bootedAt: this.now };
  }
  /** Of the component that serves GPUs, by the name that it has where there is a device plugin. */
  named(name: Run): Run {
    return name === 'device-plugin' ? this.#allocator : name;
  }
  restart(named: Run): void {
    const name = this.named(named);
    this.now += 1000;
    const process_ = this.#truth.processes[name];
    if (process_ !== undefined) this.#set(name, { ...process_, started: this.now, readyAt: this.now + 3000 });
  }
  break(named: Run): void {
    const name = this.named(named);
    this.#truth = { ...this.#truth, broken: new Set([...this.#truth.broken, name]) };
  }
  /**
   * For a moment all GPUs are gone, or are in other sizes: the plan and the kubelet look meanwhile.
   */
  forAMoment(happens: () => void, ends: () => void): void {
    happens();
    this.kubelet();
    this.pass();
    ends();
    this.kubelet();
  }
  /** It is not known what became of it meanwhile: what passed before proves nothing any more. */
  outOfSightForLong(): void {
    this.catchUp();
    this.see(false);
    this.pass();
    this.wait(70);
    this.pass();
    if (this.#judges) this.#forget('driver-validation', this.#proves);
    this.see(true);
    this.kubelet();
  }
  /** The same, while so many are silent that it says nothing about this node. */
  silentForLong(): void {
    this.catchUp();
    this.silentAmongMany = true;
    this.see(false);
    this.pass();
    this.wait(70);
    this.pass();
    this.see(true);
    this.kubelet();
    this.pass();
    this.silentAmongMany = false;
  }
  /** Of an open node, again and again: GPUs must be used once before other pods come. */
  rejectsPods(): void {
    this.catchUp();
    if (!this.isOpen) return;
    this.wait(1);
    this.#rejection = { count: 5, words: 'GPU is lost', at: this.now + this.#leader.ahead };
    this.pass();
    if (this.#judges) this.#forget(this.#proves);
  }
  /** For one report the kubelet publishes no boot ID. */
  blankBoot(): void {
    const { nodeInfo = {} } = this.node.status ?? {};
    const { proof, isAsked } = this;
    this.node = { ...this.node, status: { ...this.node.status, nodeInfo: {} } };
    this.pass();
    if (proof !== undefined && this.proof === undefined && !isAsked)
      throw new Error('a proof goes with a blank boot ID');
    this.node = { ...this.node, status: { ...this.node.status, nodeInfo } };
    this.pass();
  }
  /** Another version has written the memory of the walk. */
  rewriteWalk(more: object): void {
    const text = this.node.metadata.annotations?.[WALK];
    if (text !== undefined) this.annotate(WALK, JSON.stringify({ ...(JSON.parse(text) as object), ...more }));
  }
  /**
   * etcd is restored: the Node says what it said some reports ago, and the kubelet goes on. What
   * was lost since, apart from pods, nobody can know any more. DaemonSets follow the labels, which
   * is not for the plan to answer for.
   */
  restored(): void {
    this.catchUp();
    const [backup] = this.#backups;
    if (backup === undefined) return;
    const labelsOf = ({ metadata }: NodeObject): string =>
      JSON.stringify(RUN.map((name) => metadata.labels?.[DEPLOY_PREFIX + name]));
    if (labelsOf(backup) !== labelsOf(this.node)) return;
    const { metadata, spec = {} } = backup;
    const isOurs = ({ type }: { readonly type: string }): boolean => type === GPU_VALIDATED;
    const conditions = [
      ...(this.node.status?.conditions ?? []).filter((one) => !isOurs(one)),
      ...(backup.status?.conditions ?? []).filter(isOurs),
    ];
    this.node = { metadata, spec, status: { ...this.node.status, conditions } };
    this.#isHeld = metadata.annotations?.[HOLD] !== undefined;
    this.#hasWritten = false;
    this.#unseen = true;
    this.#ignores = this.#fault === 'does not look again at a node that was restored' ? 3 : 0;
  }
  /** Two that believe to lead look at the same, by clocks that are apart, and both write. */
  bothLead(aheadSeconds: number): void {
    this.catchUp();
    const ahead = aheadSeconds * 1000;
    const other = { ahead, since: this.now + ahead };
    for (let i = 0; i < 3; i += 1) {
      const view = this.#view();
      const { actions } = this.#planned(view, other);
      this.pass();
      this.#write(view.node, actions);
      this.kubelet();
    }
  }
  mend(): void {
    this.computes = true;
    this.fallen = 0;
    if (this.kind === 'dra') this.mig = false;
    this.stuck = undefined;
    this.#truth = { ...this.#truth, broken: new Set() };
  }
  mark(key: 'managed' | 'nfd', on: boolean): void {
    const name = key === 'managed' ? MANAGED : NFD;
    this.relabel((labels) => {
      if (on) labels[name] = 'true';
      else delete labels[name];
    });
  }
  hold(on: boolean): void {
    this.#isHeld = on;
    if (on) this.annotate(HOLD, '');
    else this.strip(HOLD);
  }
  cordon(on: boolean): void {
    this.node = { ...this.node, spec: { ...this.node.spec, unschedulable: on } };
  }
  /**
   * A node out of sight: the node-lifecycle controller marks its pods not Ready; nothing happened
   * to them.
   */
  see(yes: boolean): void {
    this.#outOfSight = !yes;
    if (!yes) this.podsReady(false);
    this.ready(yes ? 'True' : 'Unknown');
  }
  setPolicy(name: PolicyName): void {
    // The truth of a suspended time is claimed again once the plan has looked.
    if (this.policy.spec.suspend) this.#unseen = true;
    this.policy = POLICIES[this.kind][name];
    this.#isSelected = true;
  }
  /** No policy selects the node, or one does again. */
  select(yes: boolean): void {
    if (yes && !this.#isSelected) this.#unseen = true;
    this.#isSelected = yes;
  }
  /** A watch stands still: what the plan sees of it is as it is now. */
  lag(what: 'node' | 'pods'): void {
    this.#hasWritten = false;
    this.#late =
      what === 'node'
        ? { ...this.#late, node: this.node, pools: this.pools }
        : { ...this.#late, pods: new Map(this.pods) };
  }
  /** Watches go on; without a name both. */
  catchUp(what?: 'node' | 'pods'): void {
    if (Object.keys(this.#late).length > 0) this.#unseen = true;
    const { pods, ...node } = this.#late;
    if (what === 'pods') this.#late = node;
    else this.#late = what === undefined || pods === undefined ? {} : { pods };
  }
  /** Another replica leads, whose clock is ahead by so much. */
  takesOver(aheadSeconds: number): void {
    const view = this.#view();
    const { actions } = this.#planned(view, this.#leader);
    this.#former = actions.length > 0 ? { view, actions } : this.#sent;
    this.#sent = undefined;
    this.#late = {};
    this.#rejection = undefined;
    this.#unseen = true;
    this.#hasWritten = false;
    this.#trusts = this.#fault === 'believes on its return that nothing happened';
    const ahead = aheadSeconds * 1000;
    this.#leader = { ahead, since: this.now + ahead };
  }
  /** What the former leader had sent arrives only now. */
  formerWrites(): void {
    const isForced = this.#fault === 'sends what a former leader had planned, whatever has changed since';
    if (this.#former !== undefined) this.#write(isForced ? this.node : this.#former.view.node, this.#former.actions);
    this.#former = undefined;
  }
  /** The API server has the first write, and its answer is lost: the leader does not know. */
  losesAnAnswer(): void {
    const { node } = this;
    this.pass(1);
    this.#hasWritten = false;
    this.#late = { ...this.#late, node };
  }
  /** An operator removes a label or an annotation by hand. */
  strip(key: string): void {
    const without = (map: Readonly<Record<string, string>> | undefined): Record<string, string> =>
      Object.fromEntries(Object.entries(map ?? {}).filter(([name]) => name !== key));
    const { labels, annotations } = this.node.metadata;
    this.node = {
      ...this.node,
      metadata: { ...this.node.metadata, labels: without(labels), annotations: without(annotations) },
    };
  }
  /** Validation pods that wait to run are thrown out by the kubelet. */
  evictValidations(): void {
    for (const name of this.#unrun.keys()) {
      const pod = this.pods.get(name);
      if (pod !== undefined) this.pods.set(name, { ...pod, nodeName: 'n', phase: 'Failed', reason: 'Evicted' });
    }
    this.#unrun.clear();
  }
  /** Deleted and made again under the same name. */
  recreate(): void {
    this.uid += 1;
    this.node = freshNode(`node-${this.uid}`, `boot-${this.#truth.boot}`);
    this.#isHeld = false;
    this.#backups = [];
    this.#places.release('n');
  }
  /** Another node takes the place for first walks, or gives it back. */
  another(takes: boolean): void {
    if (takes && this.#places.free('other', this.policy.name, 1)) this.#places.hold('other', this.policy.name);
    if (takes) return;
    this.#places.release('other');
    this.#invite();
  }

  /**
   * The kubelet and the DaemonSet controllers: processes follow the labels, validation pods run,
   * and the kubelet reports to the API server.
   */
  kubelet(): void {
    this.now += 1000;
    if (this.#outOfSight) return;
    for (const name of RUN) this.#follow(name);
    const offers = this.#isReady(this.#allocator) && this.#isReady('driver') && this.fallen < 8;
    for (const [name, kind] of this.#unrun) this.#run(name, kind, offers);
    const resource = this.mig ? 'nvidia.com/mig-1g.10gb' : 'nvidia.com/gpu';
    this.node = {
      ...this.node,
      status: {
        ...this.node.status,
        capacity: this.kind === 'dra' ? {} : { [resource]: '8' },
        allocatable: offers && this.kind !== 'dra' ? { [resource]: String(8 - this.fallen) } : {},
      },
    };
    // A driver that is gone leaves its slices: they are taken back later.
    if (this.kind === 'dra' && this.#isReady(this.#allocator))
      this.pools = [aPool({ count: this.#half ? 2 : 1, devices: offers ? aPool().devices : [] })];
    for (const name of RUN) this.#publish(name);
    this.#told = this.#truth;
    this.#toldAt = this.now;
    this.#backups = [...this.#backups, this.node].slice(-4);
  }
  #follow(name: Run): void {
    if (THEIRS[this.kind].includes(name)) return;
    const revision = this.node.metadata.labels?.[DEPLOY_PREFIX + name];
    const running = this.#truth.processes[name];
    if (running === undefined) {
      if (revision !== undefined) this.#start(name, revision);
      return;
    }
    if (running.endsAt !== undefined && this.now >= running.endsAt) this.#set(name, undefined);
    else if (running.revision !== revision && revision !== undefined && this.#knows.has(running.uid))
      throw new Error(`two pods of ${name} at once: the previous one has not gone`);
    else if (running.revision !== revision) this.#end(name);
  }
  #start(name: Run, revision: string): void {
    this.#set(name, { uid: `pod-${(this.uid += 1)}`, revision, started: this.now, readyAt: this.now + 2000 });
  }
  /** Asked to end, a pod takes its time. */
  #end(name: Run): void {
    const process_ = this.#truth.processes[name];
    if (process_ !== undefined && process_.endsAt === undefined)
      this.#set(name, { ...process_, endsAt: this.now + 1500 });
  }
  #run(name: string, kind: Validation, offers: boolean): void {
    const pod = this.pods.get(name);
    if (pod === undefined) {
      this.#unrun.delete(name);
      return;
    }
    if (kind === this.#proves && (!offers || this.busy || (kind === 'dra-validation' && this.#half))) {
      const waits = {
        type: 'PodScheduled',
        status: 'False',
        reason: 'Unschedulable',
        message: kind === 'dra-validation' ? 'cannot allocate all claims' : 'Insufficient nvidia.com/gpu.',
      };
      this.pods.set(name, { ...pod, phase: 'Pending', nodeName: undefined, conditions: [waits] });
      return;
    }
    if (this.stuck !== undefined) {
      const phase = this.stuck === 'start' ? 'Pending' : 'Running';
      this.pods.set(name, { ...pod, phase, nodeName: 'n', conditions: [{ type: 'PodScheduled', status: 'True' }] });
      return;
    }
    const passes =
      this.computes &&
      this.#isReady('toolkit') &&
      this.#isReady('driver') &&
      (kind === 'driver-validation' || this.#isReady(this.#allocator));
    this.pods.set(name, endedWith(pod, passes));
    this.#unrun.delete(name);
    if (passes) this.#truth = { ...this.#truth, passed: { ...this.#truth.passed, [kind]: this.now } };
  }
  /** What passed before proves nothing any more. */
  #forget(...kinds: readonly Validation[]): void {
    const passed = Object.fromEntries(
      Object.entries(this.#truth.passed).filter(([kind]) => !kinds.some((one) => one === kind)),
    );
    this.#truth = { ...this.#truth, passed };
    this.#told = { ...this.#told, passed };
    this.#backups = [];
  }
  #isReady(name: Run): boolean {
    const process_ = this.#truth.processes[name];
    return process_ !== undefined && !this.#truth.broken.has(name) && this.now >= process_.readyAt;
  }
  #set(name: Run, process_: Process | undefined): void {
    const { [name]: _, ...others } = this.#truth.processes;
    this.#truth = { ...this.#truth, processes: process_ === undefined ? others : { ...others, [name]: process_ } };
  }
  #publish(name: Run): void {
    const process_ = this.#truth.processes[name];
    const isTheirs = process_?.revision === 'theirs';
    const key = isTheirs ? `their-${name}` : `${name}-pod`;
    if (process_ === undefined) {
      this.pods.delete(key);
      return;
    }
    const before = this.pods.get(key);
    const isOld =
      before?.uid === process_.uid &&
      (this.#fault === 'believes old starts of pods' ||
        (isTheirs && this.#fault === 'does not see the pods of other installers restart'));
    const pod = operandPod(name, { ...process_, ready: this.#isReady(name) });
    this.pods.set(key, {
      ...pod,
      deleting: process_.endsAt !== undefined,
      containers: isOld ? before.containers : pod.containers,
      ...(isTheirs
        ? {
            namespace: selectorOf(name).namespace,
            name: key,
            labels: selectorOf(name).matchLabels,
            controller: { kind: 'DaemonSet', uid: 'theirs' },
          }
        : {}),
    });
  }

  /**
   * One pass of the leader over what its watches brought. Carries out its actions, or only the
   * first `most` of them as if it died then.
   */
  pass(most = Infinity): void {
    if ((this.#fault === 'never looks again once it is open' && this.isOpen) || this.#hasGivenUp) return;
    this.now += 100;
    if (this.#ignores > 0) {
      this.#ignores -= 1;
      this.#unseen = false;
      return;
    }
    if (this.#trusts) {
      this.#trusts = false;
      this.#unseen = false;
      return;
    }
    const view = this.#view();
    // The shell waits until its own write has come back.
    if (view.node !== this.node && this.#hasWritten) return;
    const plan = this.#planned(view, this.#leader);
    this.#guardPlace(plan);
    this.writes = plan.actions.length;
    if (plan.actions.length > 0) {
      this.#hasWritten = true;
      this.#sent = { view, actions: plan.actions };
    }
    const isWhole = this.#write(view.node, plan.actions.slice(0, most));
    // GPUs that the plan sees gone must be used again. It cannot know what came back between two
    // looks, nor what happened while no policy had the node.
    if (isWhole && most > 0 && this.#judges && !this.#offers(view)) this.#forget(this.#proves);
    // The first write is the one that takes trust away.
    if (most > 0) this.#unseen = false;
  }
  /** Passes with the clock standing still, as long as something is written: at most so many. */
  comesToRest(passes = 8): boolean {
    const { now } = this;
    for (let i = 0; i < passes; i += 1) {
      this.now = now - 100;
      this.pass();
      if (this.writes === 0) return true;
    }
    return false;
  }
  get #judges(): boolean {
    return this.#isSelected && !this.policy.spec.suspend;
  }
  #view(): View {
    return {
      node: this.#late.node ?? this.node,
      pods: this.#late.pods ?? this.pods,
      pools: 'pools' in this.#late ? this.#late.pools : this.pools,
    };
  }
  #planned({ node, pods, pools }: View, { ahead, since }: Leader): NodePlan {
    for (const { uid } of pods.values()) this.#knows.add(uid);
    const users = this.busy && this.#fault !== 'sees no GPU pods' ? [USER] : [];
    const seen = new Map([...pods, ...users.map((pod): [string, PodObject] => [pod.name, pod])]);
    const published = this.#fault === 'does not see that ResourceSlices go' ? [aPool()] : pools;
    const input = this.#shown({
      ...this.input(this.#misread(node), this.#filtered(seen), published),
      conflicts: this.conflicts,
      slotFree: this.#places.free('n', this.policy.name, 1) || this.#fault === 'begins without a place',
      now: this.now + ahead,
      watchedSince: this.#fault === 'forgets since when this leader looks' ? 0 : since,
      isOverloaded: this.silentAmongMany && this.#fault !== 'takes the silence of many nodes for the end of each',
      rejection: this.#fault === 'does not hear of pods that the kubelet rejects' ? undefined : this.#rejection,
    });
    const plan = planNode(input);
    const isAsked =
      this.#fault === 'does not ask the breaker of nodes that leave'
        ? this.#isSelected && this.node.metadata.labels?.[MANAGED] === 'true'
        : this.#fault !== 'lets proofs go though the breaker holds';
    const holds = this.tripped || this.#fault === 'keeps proofs though the breaker does not hold';
    const isKept = holds && isAsked && plan.withdraws;
    return isKept ? { ...plan, actions: plan.unless?.('circuit breaker') ?? [] } : plan;
  }
  #shown(input: NodeInput): NodeInput {
    if (this.#isSelected) return input;
    return { ...input, policy: undefined };
  }
  #misread(node: NodeObject): NodeObject {
    const { allocatable = {}, capacity = {} } = node.status ?? {};
    if (this.#fault === 'takes a blank boot ID for a reboot' && node.status?.nodeInfo?.bootID === undefined)
      return { ...node, status: { ...node.status, nodeInfo: { bootID: 'blank' } } };
    const { [PROOF]: _, ...others } = node.metadata.annotations ?? {};
    if (this.#fault === 'loses the proof with the memory of the walk' && others[WALK] === undefined)
      return { ...node, metadata: { ...node.metadata, annotations: others } };
    if (this.#fault === 'takes some GPUs that are lost for all of them' && this.fallen > 0)
      return { ...node, status: { ...node.status, allocatable: {} } };
    if (this.#fault === 'takes capacity for what the kubelet offers')
      return { ...node, status: { ...node.status, allocatable: capacity } };
    if (this.#fault !== 'knows no MIG devices') return node;
    const known = Object.entries(allocatable).filter(([name]) => !name.includes('/mig-'));
    return { ...node, status: { ...node.status, allocatable: Object.fromEntries(known) } };
  }
  #filtered(pods: ReadonlyMap<string, PodObject>): ReadonlyMap<string, PodObject> {
    if (this.#fault === 'takes pods on their way out for gone')
      return new Map([...pods].filter(([, { deleting }]) => !deleting));
    if (this.#fault !== 'takes an eviction for a verdict') return pods;
    return new Map(
      [...pods].map(([name, pod]) => [name, pod.reason === 'Evicted' ? { ...endedWith(pod, false), reason: '' } : pod]),
    );
  }
  /** A walk that begins has a place. */
  #guardPlace({ holdsSlot, actions, walked }: NodePlan): void {
    const begins = walked?.before.stage === 'preflight' && walked.before.proven === undefined;
    if (begins && holdsSlot && actions.length > 0 && !this.#places.free('n', this.policy.name, 1))
      throw new Error('a first walk begins without a place');
    if (holdsSlot) this.#places.hold('n', this.policy.name);
    else {
      this.#places.release('n');
      if (!this.#places.free('n', this.policy.name, 1)) this.#places.wait('n', this.policy.name);
      this.#invite();
    }
  }
  #invite(): void {
    this.#places.invite(this.policy.name, 1);
  }

  /**
   * Writes in order, as the API server takes them: a write to a Node that changed since it was seen
   * is refused, and ends the writes. Returns whether all came through.
   */
  #write(seen: NodeObject, actions: readonly Action[]): boolean {
    let expected = seen;
    for (const action of actions) {
      const written = afterWrite(this.node, this.#spoilt(action));
      if (written === undefined) {
        if (action.kind === 'delete-pod' && this.pods.get(action.name)?.uid !== action.uid) continue;
        if (action.kind === 'create-pod' && this.pods.has(action.manifest.metadata.name)) continue;
        this.#guard(action);
        this.carryOut([action]);
        continue;
      }
      if (expected !== this.node && this.#fault !== 'forces its writes over conflicts') {
        this.#hasGivenUp = this.#fault === 'gives up after a write that failed';
        return false;
      }
      this.#guard(action);
      this.node = written;
      expected = written;
    }
    return true;
  }
  #spoilt(action: Action): Action {
    if (action.kind === 'set-node-condition' && action.condition !== undefined) {
      const message = action.condition.message.replace(/kubectl.*/, '');
      return this.#fault === 'leaves the command out of what waits for a person'
        ? { ...action, condition: { ...action.condition, message } }
        : action;
    }
    if (action.kind !== 'patch-node') return action;
    const { annotations } = action;
    const without = (key: string): Action => {
      const { [key]: _, ...rest } = annotations;
      return { ...action, annotations: rest };
    };
    if (this.#fault === 'does not write its memory') return without(WALK);
    if (this.#fault === 'takes an operator’s hold away')
      return { ...action, annotations: { ...annotations, [HOLD]: null } };
    if (this.#fault === 'does not withdraw a proof' && annotations[PROOF] === null) return without(PROOF);
    return action;
  }
  /** Nothing is ever taken from under pods that hold GPUs, but at an operator's word. */
  #guard(action: Action): void {
    if (!this.busy || this.isAsked) return;
    const taken =
      action.kind === 'patch-node'
        ? this.#needed.filter(
            (name) => action.labels[DEPLOY_PREFIX + name] === null && this.#truth.processes[name] !== undefined,
          )
        : action.kind === 'delete-pod'
          ? RUN.filter((name) => `${name}-pod` === action.name)
          : [];
    if (taken.length > 0) throw new Error(`${taken.join(', ')} taken from under GPU pods`);
  }
  protected override validate(pod: PodObject): void {
    this.pods.set(pod.name, pod);
    this.#unrun.set(pod.name, pod.name.startsWith('driver-') ? 'driver-validation' : this.#proves);
  }
  /** The user's pod goes by the Eviction API. */
  protected override evict(): void {
    this.busy = false;
  }
  protected override remove(name: string): void {
    const run = RUN.find((one) => `${one}-pod` === name);
    if (run === undefined) this.pods.delete(name);
    else {
      this.#end(run);
      this.#publish(run);
    }
  }
}
