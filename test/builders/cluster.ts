// All controllers on a cluster in memory, with a clock of the test's own: what they write comes
// back as watch events would bring it.
import { Registry } from 'prom-client';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { COMPONENTS, POD_COMPONENT, type Component } from '../../core/components.ts';
import { COMPONENT, PART_OF, PRODUCT, RENDERED, REVISION } from '../../core/keys.ts';
import { NO_DEVICES, type ClassFacts } from '../../gate/devices.ts';
import { jsonLog } from '../../platform/log.ts';
import { ruleIndex } from '../../reconciler/devices/rule-index.ts';
import type { Pool } from '../../reconciler/slices.ts';
import { isRuleOfOurs, trimRule, type RuleView } from '../../reconciler/devices/rules.ts';
import { requestOf } from '../../reconciler/requests.ts';
import type { Action, CreateDeviceTaint, Manifest } from '../../reconciler/actions.ts';
import type { Outcome } from '../../reconciler/apply.ts';
import type { Cache, Caches } from '../../reconciler/caches.ts';
import { evidence } from '../../reconciler/evidence.ts';
import { fleet } from '../../reconciler/fleet.ts';
import { idOf, type Key } from '../../reconciler/key.ts';
import { reconcilerMetrics } from '../../reconciler/metrics.ts';
import { deployedOn, keyOf, type DaemonSetView, type NodeObject, type PodObject } from '../../reconciler/model.ts';
import { podIndex } from '../../reconciler/pod-index.ts';
import { controllers } from '../../reconciler/reconciler.ts';
import { OPERANDS } from './caches.ts';
import { afterWrite, aPolicy, keptPod, NOW, ownedBy, verdict } from './objects.ts';

const A_CLASS: ClassFacts = { resource: '', drivers: [] };
/** How long a list of all pods takes, ms. */
const LIST_MS = 700;
/** How long the pod of an operand takes to come or to go, ms. */
const OPERAND_MS = 300;
/** Rounds of handlers at one moment; more of them never end. */
const MOST_TURNS = 1000;

/** A map that counts what is looked at. */
class Counted<T> implements Cache<T> {
  readonly all = new Map<string, T>();
  looks = 0;
  get(key: string): T | undefined {
    this.looks += 1;
    return this.all.get(key);
  }
  *values(): Iterable<T> {
    for (const value of this.all.values()) {
      this.looks += 1;
      yield value;
    }
  }
}

export class Cluster {
  readonly nodes = new Counted<NodeObject>();
  readonly pods = new Counted<PodObject>();
  readonly policies = new Map<string, GpuPolicy>();
  readonly writes: Action[] = [];
  /** What the API server says to a write before it is carried out; `undefined` if it takes it. */
  answer: (action: Action) => Outcome | undefined = () => undefined;
  now = NOW;
  #version = 1;
  readonly #index = podIndex(OPERANDS);
  readonly #fleet = fleet();
  readonly #evidence = evidence({
    policies: () => this.policies.values(),
    remembered: () => this.#fleet.remembered(),
  });
  /** Pods of other installers as the API server has them. The caches hold only the evidence. */
  readonly #theirs = new Map<string, PodObject>();
  /** How often all pods were listed again, and when the list that is under way comes in. */
  relists = 0;
  #listedAt = Infinity;
  readonly #daemonSets = new Map<string, DaemonSetView>();
  /**
   * Are operands simulated, and does a pod of that component and revision become Ready on the node?
   */
  operandsWork: ((node: string, component: string, revision: string) => boolean) | undefined = undefined;
  readonly #due = new Map<string, { key: Key; at: number }>();
  #all: ReturnType<typeof controllers>;

  /** What DRA drivers offer, by node. */
  readonly pools = new Map<string, readonly Pool[]>();
  setPools(name: string, pools: readonly Pool[]): void {
    this.pools.set(name, pools);
    this.#all.listener.slices(name);
  }

  /** DeviceClasses, by name. */
  readonly classes = new Map<string, ClassFacts>();
  setClasses(names: readonly string[]): void {
    for (const name of this.classes.keys())
      if (!names.includes(name)) {
        this.classes.delete(name);
        this.#all.listener.deviceClasses(this.classes.size === 0);
      }
    for (const name of names)
      if (!this.classes.has(name)) {
        this.classes.set(name, A_CLASS);
        this.#all.listener.deviceClasses(this.classes.size === 1);
      }
  }

  /** DeviceTaintRules, by name. */
  readonly rules = new Map<string, RuleView>();
  rulesServed = false;
  readonly #ruleOf = ruleIndex();

  constructor(policy: GpuPolicy) {
    this.#all = this.#controllers();
    this.setPolicy(policy);
    this.#listedAt = Infinity;
    this.relists = 0;
    this.#evidence.listed();
  }

  /** A process of the reconciler on this cluster. */
  #controllers(): ReturnType<typeof controllers> {
    const rulesServed = (): boolean => this.rulesServed;
    const add = (key: Key, ms = 0): void => {
      const at = this.now + ms;
      if ((this.#due.get(idOf(key))?.at ?? Infinity) > at) this.#due.set(idOf(key), { key, at });
    };
    const caches: Caches = {
      ...this.#index,
      nodes: this.nodes,
      pods: this.pods,
      policies: this.policies,
      namespaces: new Map([['team', { optedOut: false }]]),
      daemonSets: this.#daemonSets,
      devices: { ...NO_DEVICES, classes: this.classes },
      rules: {
        ...this.#ruleOf,
        get served() {
          return rulesServed();
        },
      },
      poolsOn: (name) => (this.rulesServed ? this.pools.get(name) : undefined),
      isAllocated: () => false,
      otherRules: [],
      fleet: this.#fleet,
      troubleOf: () => undefined,
      nodeNameOf: (uid) => uid.replace(/^uid-/, ''),
      isWatched: (selector) => this.#evidence.isWatched(selector),
      isProven: () => false,
      synced: true,
    };
    return controllers({
      caches,
      turns: { add, addAfter: add },
      apply: {
        apply: async (action) => {
          this.writes.push(action);
          const answer = this.answer(action);
          if (answer !== undefined) return answer;
          return { kind: 'done', ...this.#carryOut(action) };
        },
      },
      log: jsonLog('error', () => undefined),
      metrics: reconcilerMetrics(new Registry()),
      operandNamespace: OPERANDS,
      runtimeClass: { name: '', handler: '' },
      excludedNamespaces: new Set(),
      webhookResources: ['nvidia.com/gpu', 'nvidia.com/gpu.shared'],
      notReadyGrace: 60_000,
      now: () => this.now,
      wakeAfter: [1000],
    });
  }

  /** The leader dies with what it had to do, and another process takes over. */
  newLeader(): void {
    this.#due.clear();
    this.#all = this.#controllers();
    this.#all.takeOver();
  }

  /** A DeviceTaintRule as the API server has it now; `undefined` if it is gone. */
  setRule(name: string, rule: RuleView | undefined): void {
    const before = this.rules.get(name);
    if (rule === undefined) this.rules.delete(name);
    else this.rules.set(name, rule);
    this.#ruleOf.update(before, rule);
    for (const one of [before, rule]) if (one !== undefined) this.#all.listener.rule(one.node);
  }

  /** The API server begins, or ceases, to serve DeviceTaintRules. */
  serveRules(served: boolean): void {
    this.rulesServed = served;
    if (!served) for (const name of this.rules.keys()) this.setRule(name, undefined);
    this.#all.listener.rules();
  }

  #createRule(action: CreateDeviceTaint): void {
    if (this.rules.has(action.name)) return;
    const { metadata, ...rest } = requestOf(action, { now: NOW, instance: 'test' }).body as Manifest;
    this.#version += 1;
    const rule = trimRule({ ...rest, metadata: { ...metadata, uid: `rule-${this.#version}` } });
    if (isRuleOfOurs(rule)) this.setRule(action.name, rule);
  }

  removeNode(name: string): void {
    const before = this.nodes.all.get(name);
    if (before === undefined) return;
    this.nodes.all.delete(name);
    this.#all.listener.node(name, before, undefined, this.#fleet.update(name, undefined));
  }

  removePolicy(name: string): void {
    const before = this.policies.get(name);
    this.policies.delete(name);
    this.#fleet.select([...this.policies.values()], this.nodes.all.values());
    this.#all.listener.policy(before, undefined);
  }

  #refresh(): void {
    if (!this.#evidence.refresh()) return;
    this.relists += 1;
    this.#listedAt = this.now + LIST_MS;
  }

  #list(): void {
    this.#listedAt = Infinity;
    for (const pod of this.#theirs.values()) this.setTheirs(pod);
    this.#evidence.listed();
  }

  /** A pod of another installer, kept where it is evidence. */
  setTheirs(pod: PodObject): void {
    this.#theirs.set(keyOf(pod), pod);
    if (this.#evidence.selects(pod.namespace, pod.labels)) this.setPod(pod);
    else this.#forget(pod);
  }
  removeTheirs(pod: PodObject): void {
    this.#theirs.delete(keyOf(pod));
    this.#forget(pod);
  }
  #forget(pod: PodObject): void {
    const before = this.pods.all.get(keyOf(pod));
    if (before === undefined) return;
    this.pods.all.delete(keyOf(pod));
    this.#index.update(before, undefined);
    this.#all.listener.pod(before, undefined);
  }

  /** An edit leaves the status as it is. */
  editPolicy(policy: GpuPolicy): void {
    const { status } = this.policies.get(policy.name) ?? policy;
    this.setPolicy({ ...policy, status });
  }

  setPolicy(policy: GpuPolicy): void {
    const before = this.policies.get(policy.name);
    this.policies.set(policy.name, policy);
    if (before?.generation !== policy.generation) this.#fleet.select([policy], this.nodes.all.values());
    this.#refresh();
    this.#all.listener.policy(before, policy);
  }

  /** An older etcd was restored: versions of what is written from now on are below earlier ones. */
  restored(): void {
    this.#version = 1;
  }

  /** How long the watch takes to bring what a leader wrote on a node, ms. */
  watchMs = 0;

  setNode(node: NodeObject): string {
    this.#version += 1;
    return this.#bring(node, String(this.#version));
  }

  #bring(node: NodeObject, resourceVersion: string): string {
    const { name } = node.metadata;
    const after = { ...node, metadata: { ...node.metadata, resourceVersion } };
    const before = this.nodes.all.get(name);
    this.nodes.all.set(name, after);
    const changed = this.#fleet.update(name, after);
    if (changed.has('remembers')) this.#refresh();
    this.#all.listener.node(name, before, after, changed);
    return after.metadata.resourceVersion;
  }

  node(name: string): NodeObject {
    const node = this.nodes.all.get(name);
    if (node === undefined) throw new Error(`no node ${name}`);
    return node;
  }

  setPod(pod: PodObject): void {
    const before = this.pods.all.get(keyOf(pod));
    this.pods.all.set(keyOf(pod), pod);
    this.#index.update(before, pod);
    this.#all.listener.pod(before, pod);
  }

  /**
   * Do validation pods that are made from now on pass, or wait? Without this they are not
   * simulated.
   */
  validationsPass: boolean | undefined = undefined;
  passValidations(): void {
    this.validationsPass = true;
  }

  #carryOut(action: Action): { resourceVersion?: string; generation?: number } {
    if (action.kind === 'delete-daemonset') this.#daemonSets.delete(`${OPERANDS}/${action.name}`);
    if (action.kind === 'apply-daemonset') return this.#setDaemonSet(action.manifest);
    if (action.kind === 'delete-pod' || action.kind === 'evict-pod') this.removePod(keyOf(action));
    if (action.kind === 'create-pod' && this.validationsPass !== undefined)
      this.setPod(validationOf(action.manifest, this.validationsPass));
    if (action.kind === 'policy-status') {
      const policy = this.policies.get(action.name);
      if (policy !== undefined) this.setPolicy({ ...policy, status: action.status });
    }
    if (action.kind === 'create-device-taint') this.#createRule(action);
    if (action.kind === 'delete-device-taint' && this.rules.get(action.name)?.uid === action.uid)
      this.setRule(action.name, undefined);
    if (action.kind !== 'patch-node' && action.kind !== 'set-taints' && action.kind !== 'set-node-condition') return {};
    const node = this.nodes.all.get(action.node);
    const written = node === undefined ? undefined : afterWrite(node, action);
    if (written === undefined) return {};
    this.#version += 1;
    const resourceVersion = String(this.#version);
    if (this.watchMs === 0) this.#bring(written, resourceVersion);
    else this.later(this.watchMs, () => this.#bring(written, resourceVersion));
    if (action.kind === 'patch-node' && this.operandsWork !== undefined)
      this.later(OPERAND_MS, () => this.#bringOperands(action.node));
    return { resourceVersion };
  }

  #setDaemonSet({ metadata }: Manifest): { generation: number } {
    const annotations = metadata['annotations'] as Record<string, string> | undefined;
    const controller = ownedBy(metadata.name);
    const view: DaemonSetView = {
      name: metadata.name,
      uid: controller?.uid ?? '',
      generation: 1,
      rendered: annotations?.[RENDERED] ?? '',
      ours: true,
      foreign: false,
    };
    const before = this.#daemonSets.get(`${OPERANDS}/${metadata.name}`);
    this.#daemonSets.set(`${OPERANDS}/${metadata.name}`, view);
    if (before === undefined) this.#all.listener.daemonSet(undefined, view);
    return { generation: 1 };
  }

  /** What the kubelet and the DaemonSet controller do after a while. */
  #reality: { at: number; what: () => void }[] = [];
  later(ms: number, what: () => void): void {
    this.#reality.push({ at: this.now + ms, what });
  }

  removePod(key: string): void {
    const before = this.pods.all.get(key);
    if (before === undefined) return;
    this.pods.all.delete(key);
    this.#index.update(before, undefined);
    this.#all.listener.pod(before, undefined);
    if (before.controller?.kind === 'DaemonSet' && this.operandsWork !== undefined)
      this.later(OPERAND_MS, () => this.#bringOperands(before.nodeName ?? ''));
  }

  /** Operands' pods follow the labels of their node; a plugin that is Ready offers GPUs. */
  #bringOperands(name: string): void {
    const node = this.nodes.all.get(name);
    if (node === undefined) return;
    const deployed = deployedOn(node);
    for (const component of COMPONENTS) {
      const key = `${OPERANDS}/${component}-${name}`;
      const revision = deployed[component];
      const present = this.pods.all.get(key);
      if (present !== undefined && present.labels[REVISION] !== revision) this.removePod(key);
      if (revision !== undefined && !this.pods.all.has(key)) this.startOperand(name, component, revision);
    }
    const plugin = this.pods.all.get(`${OPERANDS}/device-plugin-${name}`);
    const offers = plugin?.conditions.some((one) => one.type === 'Ready' && one.status === 'True') === true;
    const allocatable: Record<string, string> = offers ? { 'nvidia.com/gpu': '8' } : {};
    const now = this.node(name);
    if (Object.keys(now.status?.allocatable ?? {}).length !== Object.keys(allocatable).length)
      this.setNode({ ...now, status: { ...now.status, allocatable } });
  }

  startOperand(node: string, component: Component, revision: string): void {
    const works = this.operandsWork?.(node, component, revision) === true;
    const waiting = { reason: 'CrashLoopBackOff', message: 'back-off' };
    this.setPod(
      keptPod({
        name: `${component}-${node}`,
        uid: `${component}-${node}-${(this.#started += 1)}`,
        nodeName: node,
        controller: ownedBy(`${POD_COMPONENT[component]}-${revision}`),
        labels: { [PART_OF]: PRODUCT, [COMPONENT]: POD_COMPONENT[component], [REVISION]: revision },
        conditions: [{ type: 'Ready', status: works ? 'True' : 'False' }],
        containers: [
          {
            name: 'c',
            ready: works,
            restartCount: 0,
            state: works ? { running: { startedAt: new Date(this.now).toISOString() } } : { waiting },
          },
        ],
      }),
    );
  }
  #started = 0;

  /** The kernel restarts: pods that hold GPUs end, operands start again. */
  reboot(name: string): void {
    const node = this.node(name);
    const boot = `boot-${name}-${(this.#started += 1)}`;
    this.setNode({ ...node, status: { ...node.status, nodeInfo: { bootID: boot }, allocatable: {} } });
    for (const pod of Array.from(this.#index.podsOn(name)))
      if (pod.namespace !== OPERANDS) this.setPod({ ...pod, phase: 'Failed', reason: 'UnexpectedAdmissionError' });
      else if (pod.validates !== undefined) this.setPod({ ...pod, phase: 'Failed', reason: 'Terminated' });
    this.later(OPERAND_MS, () => {
      for (const [component, revision] of Object.entries(deployedOn(this.node(name))))
        this.startOperand(name, component as Component, revision);
      this.#bringOperands(name);
    });
  }

  /** Another replica leads from now on. */
  takeOver(): void {
    this.#all.takeOver();
  }

  /** Handles every key that is due within the time, delayed ones too. */
  async settle(ms = 5000): Promise<void> {
    const end = this.now + ms;
    let [at, turns] = [this.now, 0];
    for (;;) {
      const next = Math.min(
        ...this.#reality.map(({ at }) => at),
        this.#listedAt,
        ...[...this.#due.values()].map(({ at }) => at),
      );
      if (next > end) break;
      this.now = Math.max(this.now, next);
      [at, turns] = this.now === at ? [at, turns + 1] : [this.now, 0];
      if (turns > MOST_TURNS) throw new Error(`a hot loop: ${[...this.#due.keys()].join(', ')}`);
      if (this.now >= this.#listedAt) this.#list();
      const happens = this.#reality.filter(({ at }) => at <= this.now);
      this.#reality = this.#reality.filter(({ at }) => at > this.now);
      for (const { what } of happens) what();
      for (const [id, { key, at }] of this.#due) {
        if (at > this.now) continue;
        this.#due.delete(id);
        await this.#all.handlers[key.kind](key.name);
      }
    }
    this.now = end;
  }

  /** What is looked at for one event, until nothing is left to do. */
  async looksFor(event: () => void): Promise<number> {
    this.nodes.looks = 0;
    this.pods.looks = 0;
    event();
    await this.settle();
    return this.nodes.looks + this.pods.looks;
  }
}

/** The pod of a validation, as its kubelet leaves it. */
function validationOf({ metadata }: Manifest, passes: boolean): PodObject {
  const [owner] = metadata['ownerReferences'] as readonly { readonly uid: string; readonly name: string }[];
  const message = verdict(true);
  return keptPod({
    name: metadata.name,
    uid: metadata.name,
    labels: metadata['labels'] as Record<string, string>,
    validates: owner?.uid,
    nodeName: owner?.name,
    phase: passes ? 'Succeeded' : 'Pending',
    containers: passes
      ? [{ name: 'c', ready: false, restartCount: 0, state: { terminated: { exitCode: 0, message } } }]
      : [],
  });
}

const external = { mode: 'external' };
/** All that a node needs is there: its walk is the two validations. */
export const VALIDATIONS_ONLY = aPolicy({
  components: { toolkit: external, driver: external, devicePlugin: external, dcgmExporter: { enabled: false } },
});
