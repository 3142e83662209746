// A node whose hardware has a truth of its own: what runs since when, what computes. The kubelet
// reports it to the API server with a delay, the plan sees only what was reported, and this file
// never asks the plan what is true.
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { COMPONENT, DEPLOY_PREFIX, MANAGED, PART_OF, REVISION } from '../../../core/keys.ts';
import { open, serving } from '../../../gate/node-proof.ts';
import { POD_COMPONENT, type Component } from '../../../core/components.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import { renderOperand } from '../../../reconciler/manifests/render.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { afterWrite, aPolicy, keptPod, NOW, ownedBy, verdict } from '../../builders/objects.ts';

const NAMESPACE = 'gpu-gate-operands';
const NFD = 'feature.node.kubernetes.io/pci-10de.present';
const RUN = ['toolkit', 'driver', 'device-plugin', 'dcgm-exporter'] as const;
type Run = (typeof RUN)[number];
const iso = (ms: number): string => new Date(ms).toISOString();

interface Process {
  readonly uid: string;
  readonly revision: string;
  readonly started: number;
  readonly readyAt: number;
}
type Validation = 'driver-validation' | 'device-plugin-validation';

/** What the hardware does, at one moment. */
interface Truth {
  readonly boot: number;
  readonly bootedAt: number;
  readonly processes: Readonly<Partial<Record<Run, Process>>>;
  readonly broken: ReadonlySet<Run>;
  /** The last run of each validation that ended well: when it began. */
  readonly passed: Readonly<Partial<Record<Validation, number>>>;
}

/** Deliberate mistakes of the plan's shell, to show that the invariant catches them. */
export type Mistake = 'none' | 'never-looks-again' | 'believes-old-starts';

export class HardwareModel {
  now = NOW;
  policy: GpuPolicy = MODEL_POLICIES.first;
  computes = true;
  busy = false;
  private truth: Truth = { boot: 1, bootedAt: NOW, processes: {}, broken: new Set(), passed: {} };
  /** The truth as the kubelet last reported it. */
  private told: Truth = this.truth;
  private node: NodeObject;
  private pods = new Map<string, PodObject>();
  private unrun = new Map<string, Validation>();
  private count = 0;
  private uid = 1;
  private unseen = false;
  private outOfSight = false;
  /** What each watch has brought, where it is late. */
  private late: { readonly node?: NodeObject; readonly pods?: ReadonlyMap<string, PodObject> } = {};
  private hasWritten = false;
  /** An operator has asked for a retry, which may restart what pods depend on. */
  isAsked = false;
  /** Writes of the last pass. */
  writes = 0;
  /** The plugin serves, but the kubelet has lost every GPU. */
  private noGPUs = false;

  private readonly mistake: Mistake;

  constructor(mistake: Mistake = 'none') {
    this.mistake = mistake;
    this.node = this.fresh();
  }

  private fresh(): NodeObject {
    return {
      metadata: {
        name: 'n',
        uid: `node-${this.uid}`,
        resourceVersion: '1',
        labels: { [MANAGED]: 'true', [NFD]: 'true' },
        annotations: {},
      },
      spec: { taints: [] },
      status: {
        nodeInfo: { bootID: `boot-${this.truth.boot}` },
        allocatable: {},
        conditions: [{ type: 'Ready', status: 'True' }],
      },
    };
  }

  get isOpen(): boolean {
    return open(this.node).yes;
  }
  get explanation(): string {
    const { labels, annotations } = this.node.metadata;
    return JSON.stringify({ labels, annotations, conditions: this.node.status?.conditions });
  }

  /**
   * Why the node must not be open, by the truth that the kubelet reported; `undefined` if it may.
   * Nothing is claimed while the policy is suspended, nor until the plan has looked once after a
   * disturbance.
   */
  get mustNotBeOpen(): string | undefined {
    if (this.policy.spec.suspend || this.unseen || Object.keys(this.late).length > 0) return undefined;
    const { processes, broken, passed, bootedAt, boot } = this.told;
    if (this.node.status?.nodeInfo?.bootID !== `boot-${boot}`) return 'it was rebooted';
    for (const name of ['toolkit', 'driver', 'device-plugin'] as const) {
      const process_ = processes[name];
      if (process_ === undefined) return `${name} does not run`;
      if (broken.has(name) || process_.readyAt > this.toldAt) return `${name} is not ready`;
      if (process_.started < bootedAt) return `${name} is from before the reboot`;
    }
    const since = (...names: Run[]): number => Math.max(...names.map((name) => processes[name]?.started ?? Infinity));
    if ((passed['driver-validation'] ?? -1) < since('toolkit', 'driver'))
      return 'no vectorAdd has passed since driver and toolkit started';
    if ((passed['device-plugin-validation'] ?? -1) < since('device-plugin'))
      return 'no vectorAdd through the device plugin has passed since it started';
    return undefined;
  }
  private toldAt = NOW;

  // What may happen.

  wait(seconds: number): void {
    this.now += seconds * 1000;
  }
  /**
   * The kernel restarts. Everything ends at once, and the kubelet publishes the new boot ID
   * before any pod's status.
   */
  reboot(): void {
    this.now += 1000;
    const boot = this.truth.boot + 1;
    // The pods stay the same, and their containers start again.
    const processes = Object.fromEntries(
      Object.entries(this.truth.processes).map(([name, process_]) => [
        name,
        { ...process_, started: this.now + 500, readyAt: this.now + 4000 },
      ]),
    );
    this.truth = { ...this.truth, boot, bootedAt: this.now, processes };
    this.node = {
      ...this.node,
      status: { ...this.node.status, nodeInfo: { bootID: `boot-${boot}` }, allocatable: {} },
    };
    this.told = { ...this.told, boot, bootedAt: this.now };
  }
  restart(name: Run): void {
    this.now += 1000;
    const process_ = this.truth.processes[name];
    if (process_ === undefined) return;
    this.setProcess(name, { ...process_, started: this.now, readyAt: this.now + 3000 });
  }
  break(name: Run): void {
    this.truth = { ...this.truth, broken: new Set([...this.truth.broken, name]) };
  }
  /** GPUs fall off the bus, or come back. */
  gpusVanish(gone: boolean): void {
    this.noGPUs = gone;
  }
  /** Nobody knows what became of it meanwhile: what passed before proves nothing any more. */
  outOfSightForLong(): void {
    this.catchUp();
    this.ready(false);
    this.pass();
    this.wait(70);
    this.pass();
    if (!this.policy.spec.suspend) this.forget('driver-validation', 'device-plugin-validation');
    this.ready(true);
    this.kubelet();
  }
  mend(): void {
    this.computes = true;
    this.noGPUs = false;
    this.truth = { ...this.truth, broken: new Set() };
  }
  label(key: 'managed' | 'nfd', on: boolean): void {
    const name = key === 'managed' ? MANAGED : NFD;
    const { [name]: _, ...labels } = this.node.metadata.labels ?? {};
    this.node = {
      ...this.node,
      metadata: { ...this.node.metadata, labels: on ? { ...labels, [name]: 'true' } : labels },
    };
  }
  /**
   * A node out of sight: the node-lifecycle controller marks its pods not Ready; nothing happened
   * to them.
   */
  ready(yes: boolean): void {
    this.outOfSight = !yes;
    if (!yes)
      for (const [name, pod] of this.pods)
        if (pod.validates === undefined)
          this.pods.set(name, { ...pod, conditions: [{ type: 'Ready', status: 'False' }] });
    const others = (this.node.status?.conditions ?? []).filter(({ type }) => type !== 'Ready');
    this.node = {
      ...this.node,
      status: { ...this.node.status, conditions: [...others, { type: 'Ready', status: yes ? 'True' : 'Unknown' }] },
    };
  }
  setPolicy(policy: GpuPolicy): void {
    // The truth of a suspended time is claimed again once the plan has looked.
    if (this.policy.spec.suspend) this.unseen = true;
    this.policy = policy;
  }
  /** A watch stands still: what the plan sees of it is as it is now. */
  lag(what: 'node' | 'pods'): void {
    this.hasWritten = false;
    this.late = what === 'node' ? { ...this.late, node: this.node } : { ...this.late, pods: new Map(this.pods) };
  }
  catchUp(): void {
    if (Object.keys(this.late).length > 0) this.unseen = true;
    this.late = {};
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
  annotate(key: string, value: string): void {
    this.node = {
      ...this.node,
      metadata: { ...this.node.metadata, annotations: { ...this.node.metadata.annotations, [key]: value } },
    };
  }
  /** Validation pods that wait to run are thrown out by the kubelet. */
  evict(): void {
    for (const name of this.unrun.keys()) {
      const pod = this.pods.get(name);
      if (pod !== undefined) this.pods.set(name, { ...pod, nodeName: 'n', phase: 'Failed', reason: 'Evicted' });
    }
    this.unrun.clear();
  }
  get isServing(): boolean {
    return serving(this.node).yes;
  }
  /** Deleted and made again under the same name. */
  recreate(): void {
    this.uid += 1;
    this.node = this.fresh();
  }

  /**
   * The kubelet and the DaemonSet controller: processes follow the labels, validation pods run, and
   * the kubelet reports to the API server.
   */
  kubelet(): void {
    this.now += 1000;
    if (this.outOfSight) return;
    for (const name of RUN) {
      const revision = this.node.metadata.labels?.[DEPLOY_PREFIX + name];
      const process_ = this.truth.processes[name];
      if (process_ !== undefined && process_.revision !== revision) this.setProcess(name, undefined);
      if (revision !== undefined && this.truth.processes[name] === undefined) {
        this.setProcess(name, {
          uid: `pod-${(this.count += 1)}`,
          revision,
          started: this.now,
          readyAt: this.now + 2000,
        });
      }
    }
    const gpus = this.isReady('device-plugin') && this.isReady('driver') && !this.noGPUs ? 8 : 0;
    for (const [name, kind] of this.unrun) this.run(name, kind, gpus);
    this.node = {
      ...this.node,
      status: { ...this.node.status, allocatable: gpus > 0 ? { 'nvidia.com/gpu': '8' } : {} },
    };
    for (const name of RUN) this.publish(name);
    this.told = this.truth;
    this.toldAt = this.now;
  }
  private run(name: string, kind: Validation, gpus: number): void {
    const pod = this.pods.get(name);
    if (pod === undefined) {
      this.unrun.delete(name);
      return;
    }
    if (kind === 'device-plugin-validation' && (gpus === 0 || this.busy)) {
      const waits = {
        type: 'PodScheduled',
        status: 'False',
        reason: 'Unschedulable',
        message: 'Insufficient nvidia.com/gpu.',
      };
      this.pods.set(name, { ...pod, phase: 'Pending', nodeName: undefined, conditions: [waits] });
      return;
    }
    const passes =
      this.computes &&
      this.isReady('toolkit') &&
      this.isReady('driver') &&
      (kind === 'driver-validation' || this.isReady('device-plugin'));
    const terminated = {
      exitCode: passes ? 0 : 1,
      message: verdict(passes, passes ? 'Test PASSED' : 'no CUDA-capable device'),
    };
    this.pods.set(name, {
      ...pod,
      nodeName: 'n',
      phase: passes ? 'Succeeded' : 'Failed',
      conditions: [],
      containers: [{ name: 'c', ready: false, restartCount: 0, state: { terminated } }],
    });
    this.unrun.delete(name);
    if (passes) this.truth = { ...this.truth, passed: { ...this.truth.passed, [kind]: this.now } };
  }
  /** What passed before proves nothing any more. */
  private forget(...kinds: readonly Validation[]): void {
    const passed = Object.fromEntries(
      Object.entries(this.truth.passed).filter(([kind]) => !kinds.some((one) => one === kind)),
    );
    this.truth = { ...this.truth, passed };
    this.told = { ...this.told, passed };
  }
  private isReady(name: Run): boolean {
    const process_ = this.truth.processes[name];
    return process_ !== undefined && !this.truth.broken.has(name) && this.now >= process_.readyAt;
  }
  private setProcess(name: Run, process_: Process | undefined): void {
    const { [name]: _, ...others } = this.truth.processes;
    this.truth = { ...this.truth, processes: process_ === undefined ? others : { ...others, [name]: process_ } };
  }
  private publish(name: Run): void {
    const process_ = this.truth.processes[name];
    const key = `${name}-pod`;
    if (process_ === undefined) {
      this.pods.delete(key);
      return;
    }
    const before = this.pods.get(key);
    const started =
      this.mistake === 'believes-old-starts' && before?.uid === process_.uid
        ? before.containers[0]?.state?.running?.startedAt
        : iso(process_.started);
    this.pods.set(
      key,
      keptPod({
        name: key,
        uid: process_.uid,
        controller: ownedBy(`${POD_COMPONENT[name]}-${process_.revision}`),
        labels: { [PART_OF]: 'gpu-gate', [COMPONENT]: POD_COMPONENT[name], [REVISION]: process_.revision },
        conditions: [{ type: 'Ready', status: this.isReady(name) ? 'True' : 'False' }],
        containers: [
          {
            name: 'c',
            ready: this.isReady(name),
            restartCount: 0,
            state: { running: { startedAt: started ?? '' } },
          },
        ],
      }),
    );
  }

  /**
   * One pass of the plan over what the kubelet reported. Carries out its actions, or only the first
   * `most` of them as if the reconciler died then.
   */
  pass(most = Infinity): void {
    if (this.mistake === 'never-looks-again' && this.isOpen) return;
    this.now += 100;
    // GPUs that the plan sees gone must be used again. It cannot know what came back between two
    // looks, nor what happened while the policy was suspended.
    if (!this.policy.spec.suspend && Object.keys(this.node.status?.allocatable ?? {}).length === 0)
      this.forget('device-plugin-validation');
    const revisions = REVISIONS.get(this.policy) ?? renderAll(this.policy);
    const node = this.late.node ?? this.node;
    // The shell waits until its own write has come back.
    if (this.late.node !== undefined && this.late.node !== this.node && this.hasWritten) return;
    const all = [...(this.late.pods ?? this.pods).values(), ...(this.busy ? [USER] : [])];
    const { actions } = planNode({
      node,
      pods: all.filter(({ nodeName }) => nodeName === 'n'),
      validationPods: new Map(all.filter(({ validates }) => validates !== undefined).map((pod) => [pod.name, pod])),
      policy: this.policy,
      conflicts: [],
      revisions,
      daemonSets: DAEMON_SETS,
      slotFree: true,
      operandNamespace: NAMESPACE,
      notReadyGrace: 60_000,
      now: this.now,
      watchedSince: NOW,
    });
    this.writes = actions.length;
    if (actions.length > 0) this.hasWritten = true;
    for (const action of actions.slice(0, most)) this.carryOut(action);
    // The first write is the one that takes trust away.
    if (most > 0) this.unseen = false;
  }
  /** Nothing is ever taken from under pods that hold GPUs. */
  private guard(action: Action): void {
    if (!this.busy) return;
    const taken =
      action.kind === 'patch-node'
        ? RUN.filter(
            (name) =>
              name !== 'dcgm-exporter' &&
              action.labels[DEPLOY_PREFIX + name] === null &&
              this.truth.processes[name] !== undefined,
          )
        : action.kind === 'delete-pod'
          ? RUN.filter((name) => `${name}-pod` === action.name)
          : [];
    if (taken.length > 0 && !this.isAsked) throw new Error(`${taken.join(', ')} taken from under GPU pods`);
  }
  private carryOut(action: Action): void {
    this.guard(action);
    const { node } = this;
    const written = afterWrite(node, action);
    if (written !== undefined) {
      this.node = written;
      return;
    }
    switch (action.kind) {
      case 'create-pod': {
        const { name } = action.manifest.metadata;
        const labels = action.manifest.metadata['labels'] as Record<string, string>;
        this.pods.set(
          name,
          keptPod({
            name,
            uid: `pod-${(this.count += 1)}`,
            labels,
            validates: node.metadata.uid,
            phase: 'Pending',
            nodeName: undefined,
          }),
        );
        this.unrun.set(name, name.startsWith('driver-') ? 'driver-validation' : 'device-plugin-validation');
        return;
      }
      case 'delete-pod': {
        this.pods.delete(action.name);
        const name = RUN.find((run) => `${run}-pod` === action.name);
        if (name !== undefined) this.setProcess(name, undefined);
        return;
      }
      case 'evict-pod':
        this.busy = false;
        return;
      case 'event':
        return;
      case 'patch-node':
      case 'set-taints':
      case 'set-node-condition':
      case 'apply-daemonset':
      case 'create-runtime-class':
      case 'create-device-taint':
      case 'delete-device-taint':
      case 'delete-daemonset':
      case 'policy-finalizers':
      case 'policy-status':
      case 'set-pod-condition':
        throw new Error(`not an action on a node: ${action.kind}`);
    }
  }
}

/** A user's pod that holds every GPU. */
const USER = keptPod({ namespace: 'default', name: 'user', uid: 'user', gpus: { 'nvidia.com/gpu': 8 } });

const short = { validation: { timeouts: { driver: '60s' }, backoff: { initial: '5s', max: '20s' } } };
export const MODEL_POLICIES = {
  first: aPolicy(short),
  otherDriver: aPolicy({ ...short, components: { driver: { version: '580.1.1' } } }),
  otherImage: aPolicy({ validation: { ...short.validation, image: 'example/other:1' } }),
  suspended: aPolicy({ ...short, suspend: true }),
} as const;

const DAEMON_SETS = new Map<string, string>();
const REVISIONS = new Map<GpuPolicy, Partial<Record<Component, string>>>();
function renderAll(policy: GpuPolicy): Partial<Record<Component, string>> {
  const revisions: Partial<Record<Component, string>> = {};
  for (const component of RUN) {
    const { revision, daemonSet } = renderOperand(component, policy, { namespace: NAMESPACE });
    revisions[component] = revision;
    const { name } = daemonSet.metadata;
    DAEMON_SETS.set(name, ownedBy(name)?.uid ?? '');
  }
  REVISIONS.set(policy, revisions);
  return revisions;
}
