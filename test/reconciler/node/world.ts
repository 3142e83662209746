// One node in memory, for tests of the plan: what is observed → what is written. A small loop
// applies actions to the node as the API server would. In this world all that is asked for happens
// at once; hardware.ts gives it hardware that takes time, breaks, and has a truth of its own.
import { expect } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import {
  CLOSED,
  COMPONENT,
  DEPLOY_PREFIX,
  GPU_VALIDATED,
  MANAGED,
  PART_OF,
  PROOF,
  REVISION,
  STARTUP_TAINT,
  STATE,
} from '../../../core/keys.ts';
import { open, serving } from '../../../gate/node-proof.ts';
import { POD_COMPONENT, type Component } from '../../../core/components.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import { renderOperand } from '../../../reconciler/manifests/render.ts';
import { isDeployed } from '../../../core/components.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import type { Pool } from '../../../reconciler/slices.ts';
import type { NodePlan } from '../../../reconciler/node/node-plan.ts';
import { NO_PLACE, type Others } from '../../../reconciler/node/roll-out.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { afterWrite, aPolicy, keptPod, NOW, ownedBy, verdict } from '../../builders/objects.ts';

const NAMESPACE = 'gpu-gate-operands';
export const NFD = 'feature.node.kubernetes.io/pci-10de.present';
const iso = (ms: number): string => new Date(ms).toISOString();

/** An opted-in node that NFD has labelled, and nothing else. */
export const freshNode = (uid: string, boot: string, labels: Record<string, string> = {}): NodeObject => ({
  metadata: {
    name: 'n',
    uid,
    resourceVersion: '1',
    labels: { [MANAGED]: 'true', [NFD]: 'true', ...labels },
    annotations: {},
  },
  spec: { taints: [] },
  status: { nodeInfo: { bootID: boot }, allocatable: {}, conditions: [{ type: 'Ready', status: 'True' }] },
});

/** What a DRA driver offers of the node. */
export const aPool = (parts: Partial<Pool> = {}): Pool => ({
  driver: 'gpu.nvidia.com',
  name: 'n',
  generation: 1,
  slices: 1,
  count: 1,
  devices: [0, 1].map((i) => ({ name: `gpu-${i}`, taints: [] })),
  ...parts,
});

/** A DaemonSet's pod as its kubelet publishes it. */
export const operandPod = (
  component: Component,
  of: { readonly uid: string; readonly revision: string; readonly started: number; readonly ready: boolean },
): PodObject =>
  keptPod({
    name: `${component}-pod`,
    uid: of.uid,
    controller: ownedBy(`${POD_COMPONENT[component]}-${of.revision}`),
    labels: { [PART_OF]: 'gpu-gate', [COMPONENT]: POD_COMPONENT[component], [REVISION]: of.revision },
    conditions: [{ type: 'Ready', status: of.ready ? 'True' : 'False' }],
    containers: [{ name: 'c', ready: of.ready, restartCount: 0, state: { running: { startedAt: iso(of.started) } } }],
  });

/** A validation's pod whose program has said so. */
export function endedWith(pod: PodObject, passed: boolean): PodObject {
  const message = verdict(passed, passed ? 'Test PASSED\nDone' : 'no device');
  const terminated = { exitCode: passed ? 0 : 1, message };
  return {
    ...pod,
    nodeName: 'n',
    phase: passed ? 'Succeeded' : 'Failed',
    conditions: [],
    containers: [{ name: 'c', ready: false, restartCount: 0, state: { terminated } }],
  };
}

/** What the world runs. */
export const RUN = ['toolkit', 'driver', 'device-plugin', 'dra-driver', 'dcgm-exporter'] as const;

const RENDERED = new WeakMap<GpuPolicy, Readonly<Partial<Record<Component, string>>>>();
/** Rendering is slow, and says the same of a policy each time. */
function revisionsOf(policy: GpuPolicy): Readonly<Partial<Record<Component, string>>> {
  const known = RENDERED.get(policy);
  if (known !== undefined) return known;
  const revisions = Object.fromEntries(
    RUN.filter((component) => isDeployed(component, policy)).map((component) => [
      component,
      renderOperand(component, policy, { namespace: NAMESPACE }).revision,
    ]),
  );
  RENDERED.set(policy, revisions);
  return revisions;
}

/** One node with its pods, hardware that does what the test sets, and a clock. */
export class World {
  now = NOW;
  node: NodeObject;
  policy: GpuPolicy;
  pods = new Map<string, PodObject>();
  events: string[] = [];
  evicted: string[] = [];
  /** A place in a roll-out. */
  rollOut: Others = NO_PLACE;
  /** Components whose pods do not become Ready, and how. */
  broken: Partial<Record<string, Partial<PodObject>>> = {};
  validationsFail = false;
  slotFree = true;
  /** What a DRA driver that is Ready publishes; `undefined` where slices are not served. */
  publishes: readonly Pool[] | undefined = [aPool()];
  /** What is published by others, whatever runs. */
  published: readonly Pool[] = [];
  /** Allocatable resources that others' device plugins offer. */
  offered: Readonly<Record<string, string>> = {};
  /** As the watch of ResourceSlices has brought them. */
  pools: readonly Pool[] | undefined = [];
  claimTemplate: string | undefined = 'template';
  allocated: readonly string[] = [];
  uid = 0;
  /**
   * UIDs of our DaemonSets: as the reconciler does, one is made for every revision that the policy
   * has had.
   */
  daemonSets = new Map<string, string>();
  watchedSince = NOW;

  constructor(
    policy: GpuPolicy = aPolicy({ validation: { timeouts: { driver: '60s' } } }),
    labels: Record<string, string> = {},
  ) {
    this.policy = policy;
    this.node = freshNode('node-uid', 'boot-1', labels);
  }

  get state(): string | undefined {
    return this.node.metadata.labels?.[STATE];
  }
  get condition() {
    return this.node.status?.conditions?.find((c) => c.type === GPU_VALIDATED);
  }
  get proof(): string | undefined {
    return this.node.metadata.annotations?.[PROOF];
  }
  get closed(): string | undefined {
    return this.node.metadata.annotations?.[CLOSED];
  }
  /** Are pods there fine, may new ones come? */
  get trust(): readonly [serving: boolean, open: boolean] {
    return [serving(this.node).yes, open(this.node).yes];
  }
  get tainted(): boolean {
    return this.node.spec?.taints?.some((taint) => taint.key === STARTUP_TAINT) === true;
  }

  /** What the plan is given of these objects. */
  input(node: NodeObject = this.node, pods: ReadonlyMap<string, PodObject> = this.pods, pools = this.pools): NodeInput {
    const revisions = revisionsOf(this.policy);
    for (const [component, revision] of Object.entries(revisions)) {
      const name = `${POD_COMPONENT[component as Component]}-${revision}`;
      this.daemonSets.set(name, ownedBy(name)?.uid ?? '');
    }
    const all = [...pods.values()];
    return {
      node,
      pods: all.filter((pod) => pod.nodeName === 'n'),
      validationPods: new Map(all.filter((pod) => pod.validates !== undefined).map((pod) => [pod.name, pod])),
      policy: this.policy,
      conflicts: [],
      revisions,
      daemonSets: this.daemonSets,
      slotFree: this.slotFree,
      operandNamespace: NAMESPACE,
      notReadyGrace: 60_000,
      now: this.now,
      watchedSince: this.watchedSince,
      rollOut: this.rollOut,
      pools,
      isAllocated: (...device) => this.allocated.includes(device.join('/')),
      claimTemplate: this.claimTemplate,
    };
  }

  plan(): NodePlan {
    return planNode(this.input());
  }

  /** One pass: plan, apply, and let pods follow the labels. Returns the actions. */
  step(): readonly Action[] {
    this.now += 1000;
    const { actions } = this.plan();
    this.carryOut(actions);
    this.reality();
    return actions;
  }
  /** So many seconds, whether something is left to do or not: sentences settle meanwhile. */
  lasts(seconds = 20): void {
    for (let i = 0; i < seconds; i += 1) this.step();
  }
  /** Passes until nothing is left to do. */
  settle(limit = 60): void {
    for (let i = 0; i < limit; i += 1) if (this.step().length === 0) return;
  }

  carryOut(actions: readonly Action[]): void {
    for (const action of actions) this.apply(action);
  }
  private apply(action: Action): void {
    const written = afterWrite(this.node, action);
    if (written !== undefined) {
      this.node = written;
      return;
    }
    switch (action.kind) {
      case 'create-pod':
        this.validate(
          keptPod({
            name: action.manifest.metadata.name,
            uid: `pod-${(this.uid += 1)}`,
            labels: action.manifest.metadata['labels'] as Record<string, string>,
            validates: this.node.metadata.uid,
            phase: 'Pending',
            nodeName: undefined,
          }),
        );
        return;
      case 'evict-pod':
        this.evict(action.name);
        return;
      case 'delete-pod':
        this.remove(action.name);
        return;
      case 'event':
        this.events.push(action.reason);
        return;
      case 'patch-node':
      case 'set-taints':
      case 'set-node-condition':
      case 'apply-daemonset':
      case 'create-runtime-class':
      case 'create-claim-template':
      case 'delete-claim-template':
      case 'create-device-taint':
      case 'delete-device-taint':
      case 'delete-daemonset':
      case 'policy-finalizers':
      case 'policy-status':
      case 'set-pod-condition':
        throw new Error(`not an action on a node: ${action.kind}`);
    }
  }
  /** A validation's pod was made: here it ends at once. */
  protected validate(pod: PodObject): void {
    this.pods.set(pod.name, endedWith(pod, !this.validationsFail));
  }
  protected remove(name: string): void {
    this.pods.delete(name);
  }
  protected evict(name: string): void {
    this.evicted.push(name);
    this.pods.delete(name);
  }

  /** DaemonSet pods follow the deploy labels; the plugin's pod makes GPUs allocatable. */
  reality(): void {
    for (const component of RUN) {
      const revision = this.node.metadata.labels?.[DEPLOY_PREFIX + component];
      const name = `${component}-pod`;
      const present = this.pods.get(name);
      if (present !== undefined && present.labels[REVISION] !== revision) this.pods.delete(name);
      if (revision !== undefined && this.pods.get(name) === undefined) this.start(component, revision);
      const broken = this.broken[component];
      const current = this.pods.get(name);
      if (current !== undefined && broken !== undefined) this.pods.set(name, { ...current, conditions: [], ...broken });
    }
    const isReady = (name: string): boolean =>
      this.pods.get(name)?.conditions.some((c) => c.type === 'Ready' && c.status === 'True') === true;
    const offers = isReady('device-plugin-pod') ? { 'nvidia.com/gpu': '8' } : {};
    this.node = {
      ...this.node,
      status: { ...this.node.status, allocatable: { ...this.offered, ...offers } },
    };
    const serves = this.publishes !== undefined && isReady('dra-driver-pod');
    this.pools = this.publishes === undefined ? undefined : [...this.published, ...(serves ? this.publishes : [])];
  }
  start(component: Component, revision = this.node.metadata.labels?.[DEPLOY_PREFIX + component] ?? ''): void {
    this.pods.set(
      `${component}-pod`,
      operandPod(component, { uid: `pod-${(this.uid += 1)}`, revision, started: this.now, ready: true }),
    );
  }
  /** Another leader takes over, whose clock is this much ahead. */
  takeOver(ahead: number): void {
    this.now += ahead;
    this.watchedSince = this.now;
  }
  reboot(boot: string): void {
    this.node = { ...this.node, status: { ...this.node.status, nodeInfo: { bootID: boot }, allocatable: {} } };
  }
  /** What the kubelet, or for it the node-lifecycle controller, says of the node. */
  ready(status: 'True' | 'False' | 'Unknown'): void {
    const others = (this.node.status?.conditions ?? []).filter(({ type }) => type !== 'Ready');
    this.node = { ...this.node, status: { ...this.node.status, conditions: [...others, { type: 'Ready', status }] } };
  }
  /**
   * As the node-lifecycle controller does for a node out of sight: its pods are not Ready, though
   * nothing happened to them.
   */
  podsReady(yes: boolean): void {
    for (const [name, pod] of this.pods)
      if (pod.nodeName === 'n' && pod.validates === undefined)
        this.pods.set(name, { ...pod, conditions: [{ type: 'Ready', status: yes ? 'True' : 'False' }] });
  }
  relabel(change: (labels: Record<string, string>) => void): void {
    const labels = { ...this.node.metadata.labels };
    change(labels);
    this.node = { ...this.node, metadata: { ...this.node.metadata, labels } };
  }
  annotate(key: string, value: string): void {
    this.node = {
      ...this.node,
      metadata: { ...this.node.metadata, annotations: { ...this.node.metadata.annotations, [key]: value } },
    };
  }
  validated(): this {
    this.settle();
    expect(this.state).toBe('validated');
    return this;
  }
}
