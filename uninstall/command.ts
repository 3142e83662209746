// `release`: takes gpu-gate out of a cluster, one step after the other. Each step is a sweep that
// is repeated until a listing shows nothing that is left to do, so the whole can be repeated too.
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { COMPONENTS, POD_COMPONENT } from '../core/components.ts';
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { COMPONENT, PART_OF, POLICIES_PATH, PRODUCT, RELEASE, WEBHOOK_CONFIGURATION_PATH } from '../core/keys.ts';
import {
  CANARY_SECRET,
  CA_SECRET,
  EXTENDER_CA_CONFIG_MAP,
  EXTENDER_SECRET,
  LEASE,
  SCHEDULER_SECRET,
  SECOND_SCHEDULER,
  WEBHOOK_SECRET,
} from '../core/own-objects.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { printable } from '../core/printable.ts';
import { itemsOf, pagesOf } from '../platform/items.ts';
import { isConflict, isNotFound, MERGE_PATCH, openKube, STRATEGIC_PATCH, type Kube } from '../platform/kube.ts';
import { takeOver, type Leadership } from '../platform/lease.ts';
import { explainError, type Log } from '../platform/log.ts';
import type { ReleaseArgs } from './args.ts';
import {
  conditionOf,
  counted,
  deployLabelsOf,
  finalizerOf,
  gateOf,
  isForced,
  isMadeByHelm,
  isOptedIn,
  marksOf,
  nameOf,
  needsOperands,
  runsOperands,
  some,
  waitsForOurScheduler,
  type MarkedNode,
  type SeenPod,
  type Write,
} from './marks.ts';

export interface ReleaseEdge {
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
  readonly now: () => number;
  readonly signal: AbortSignal;
}

/** What a person has to change before it can go on. */
class Refused extends Error {}

const AT_ONCE = 8;
const LEASE_MS = 15_000;
const PODS = '/api/v1/pods';
const NODES = '/api/v1/nodes';
const RULES = '/apis/resource.k8s.io/v1/devicetaintrules';
const OURS = { labelSelector: `${PART_OF}=${PRODUCT}` };
const SILENT: Log = { debug: () => undefined, info: () => undefined, error: () => undefined, with: () => SILENT };

interface DaemonSet {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
}
interface Rule {
  readonly metadata: { readonly name: string };
}
interface OperandPod extends SeenPod {
  readonly metadata: SeenPod['metadata'] & { readonly deletionTimestamp?: string };
}

/** Runs the steps; returns the exit code. */
export async function release(args: ReleaseArgs, edge: ReleaseEdge): Promise<number> {
  const timeout = AbortSignal.timeout(args.timeoutMs);
  const stop = new AbortController();
  const signal = AbortSignal.any([edge.signal, timeout, stop.signal]);
  const kube = await openKube({ kubeconfig: args.kubeconfig, userAgent: 'gpu-gate-release' });
  const removal = new Removal(kube, args, edge, signal);
  const steps = removal.steps();
  let at = 0;
  try {
    for (const [what, run] of steps) {
      edge.print(`${at + 1}/${steps.length} ${what}: `);
      edge.print(`${printable(await run(), 20_000)}\n`);
      at += 1;
    }
  } catch (error) {
    const because = timeout.aborted
      ? `not finished within ${Math.round(args.timeoutMs / 1000)} s${removal.awaited === '' ? '' : `, still waiting for ${removal.awaited}`}`
      : edge.signal.aborted
        ? 'stopped'
        : explainError(error);
    edge.print('not done\n');
    for (const line of because.split('\n')) edge.complain(`${printable(line, 20_000)}\n`);
    if (!(error instanceof Refused))
      edge.complain(
        `left: ${steps
          .slice(at)
          .map(([what]) => what)
          .join('; ')}\nnext: the same command again; what is done stays done\n`,
      );
    return 1;
  } finally {
    stop.abort();
  }
  edge.print(removal.farewell());
  return 0;
}

class Removal {
  /** What the step under way waits for; empty if for nothing. */
  awaited = '';
  readonly #kube: Kube;
  readonly #args: ReleaseArgs;
  readonly #edge: ReleaseEdge;
  readonly #signal: AbortSignal;
  #lease: Leadership | undefined;
  #waiting: readonly string[] = [];
  #forced: boolean;

  constructor(kube: Kube, args: ReleaseArgs, edge: ReleaseEdge, signal: AbortSignal) {
    this.#kube = kube;
    this.#args = args;
    this.#forced = args.force;
    this.#edge = edge;
    this.#signal = signal;
  }

  steps(): readonly (readonly [what: string, run: () => Promise<string>])[] {
    return [
      ['pods that need an operand', () => this.#users()],
      [`Lease ${LEASE}`, () => this.#take()],
      ['webhook configuration', () => this.#webhook()],
      [`Deployment ${this.#args.deployment}`, () => this.#scale()],
      ["pods' readiness gates", () => this.#gates()],
      ['marks on nodes', () => this.#nodes()],
      ['finalizers of GPUPolicies', () => this.#finalizers()],
      ['operands', () => this.#operands()],
      ['certificates and Lease', () => this.#own()],
    ];
  }

  /** Running pods from under which the operands would be taken. */
  async #usersNow(): Promise<readonly string[]> {
    const nodes = new Map(
      (await this.#all<MarkedNode>(NODES)).filter(runsOperands).map((node) => [node.metadata.name, node]),
    );
    const policies = new Map((await this.#policies()).map((policy) => [policy.name, policy]));
    const users: string[] = [];
    const waiting: string[] = [];
    for await (const page of pagesOf<SeenPod>(this.#kube, PODS, {}, this.#signal))
      for (const pod of page) {
        if (waitsForOurScheduler(pod)) waiting.push(nameOf(pod));
        if (needsOperands(pod, nodes, policies, this.#args.operandNamespace)) users.push(nameOf(pod));
      }
    this.#waiting = waiting;
    return users;
  }

  async #users(): Promise<string> {
    const { job, namespace } = this.#args;
    if (job !== '') {
      const path = `/apis/batch/v1/namespaces/${namespace}/jobs/${job}`;
      if (!isMadeByHelm(await this.#request('GET', path)))
        throw new Refused(
          `refused, and nothing was changed: Job ${job} was not made by helm uninstall but applied with other objects\nnext: delete the Job, and render the chart with uninstall.hook: false or helm template --no-hooks`,
        );
    }
    const users = await this.#usersNow();
    if (users.length === 0) return 'none runs';
    this.#forced ||= (await this.#all<unknown>(POLICIES_PATH)).some(isForced);
    if (this.#forced) return `these GPU pods lose what they need: ${some(users)}`;
    throw new Refused(
      `refused, and nothing was changed: ${counted(users.length, 'GPU pod')} would lose driver or device plugin: ${some(users)}\n` +
        `next: end these pods and repeat, or, so that they lose it: kubectl annotate gpupolicies --all ${RELEASE}=force`,
    );
  }

  /** From here on no reconciler writes, whether its process lives or not. */
  async #take(): Promise<string> {
    this.awaited = 'the former holder to lose the Lease';
    this.#lease = await takeOver(
      {
        kube: this.#kube,
        namespace: this.#args.namespace,
        name: LEASE,
        identity: `gpu-gate-release_${hostname()}_${process.pid}_${Math.random().toString(36).slice(2, 8)}`,
        durationMs: LEASE_MS,
        log: SILENT,
        now: this.#edge.now,
      },
      this.#signal,
    );
    this.awaited = '';
    return 'held, so that no reconciler writes';
  }

  async #webhook(): Promise<string> {
    return (await this.#delete(WEBHOOK_CONFIGURATION_PATH))
      ? 'deleted, new pods are created as their authors wrote them'
      : 'was gone';
  }

  async #scale(): Promise<string> {
    const { namespace, deployment } = this.#args;
    const path = `/apis/apps/v1/namespaces/${namespace}/deployments/${deployment}/scale`;
    try {
      await this.#patch({ path, body: { spec: { replicas: 0 } } }, MERGE_PATCH);
      this.awaited = 'its pods to stop';
      const running = async (): Promise<boolean> =>
        ((await this.#request<{ status?: { replicas?: number } }>('GET', path)).status?.replicas ?? 0) > 0;
      while (await running()) await this.#pause();
    } catch (error) {
      if (!isNotFound(error)) throw error;
      return 'is not there';
    }
    this.awaited = '';
    return 'has no replica';
  }

  async #gates(): Promise<string> {
    const opened = await this.#sweep<SeenPod>(PODS, (pod) => gateOf(pod, this.#edge.now()), STRATEGIC_PATCH);
    return `${opened} opened`;
  }

  async #nodes(): Promise<string> {
    const optedIn = (await this.#all<MarkedNode>(NODES)).filter(isOptedIn).map(({ metadata }) => metadata.name);
    await this.#sweep<MarkedNode>(NODES, conditionOf, STRATEGIC_PATCH);
    const cleared = await this.#sweep<MarkedNode>(NODES, marksOf, MERGE_PATCH);
    // Left behind, they would keep every pod with a claim off the node's devices.
    for (const { metadata } of await this.#all<Rule>(RULES, OURS)) await this.#delete(`${RULES}/${metadata.name}`);
    return `${counted(cleared, 'node')} cleared${optedIn.length === 0 ? '' : `; these were opted in: ${some(optedIn, 100)}`}`;
  }

  async #finalizers(): Promise<string> {
    const removed = await this.#sweep<unknown>(POLICIES_PATH, finalizerOf, MERGE_PATCH);
    return `${removed} removed`;
  }

  async #operands(): Promise<string> {
    // A pod that came since the first step is not surprised either.
    const users = this.#forced ? [] : await this.#usersNow();
    if (users.length > 0)
      throw new Error(
        `${counted(users.length, 'GPU pod')} came meanwhile and would lose driver or device plugin: ${some(users)}; end these pods, or: kubectl annotate gpupolicies --all ${RELEASE}=force`,
      );
    const namespace = `/api/v1/namespaces/${this.#args.operandNamespace}`;
    const sets = `/apis/apps/v1/namespaces/${this.#args.operandNamespace}/daemonsets`;
    const templates = `/apis/resource.k8s.io/v1/namespaces/${this.#args.operandNamespace}/resourceclaimtemplates`;
    let deleted = 0;
    const drop = async (path: string, uid: string): Promise<void> => {
      if (await this.#delete(path, { propagationPolicy: 'Background', preconditions: { uid } })) deleted += 1;
    };
    const names = new Set<string>(COMPONENTS.map((component) => POD_COMPONENT[component]));
    /**
     * Validation pods first, then the components as an opt-out takes them down, then what no
     * version here knows.
     */
    const turns = [
      (component: string) => component.endsWith('-validation'),
      ...COMPONENTS.toReversed().map((one) => (component: string) => component === POD_COMPONENT[one]),
      (component: string) => !names.has(component),
    ];
    for (const { metadata } of await this.#all<Rule>(templates, OURS))
      await this.#delete(`${templates}/${metadata.name}`);
    const unreachable = new Set<string>();
    for (const isTurn of turns) {
      const is = ({
        metadata,
      }: {
        readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
      }): boolean => isTurn(metadata.labels?.[COMPONENT] ?? '');
      for (const set of (await this.#all<DaemonSet>(sets, OURS)).filter(is))
        await drop(`${sets}/${set.metadata.name}`, set.metadata.uid);
      for (;;) {
        const pods = (await this.#all<OperandPod>(`${namespace}/pods`, OURS)).filter(is);
        for (const { metadata } of pods)
          if (metadata.deletionTimestamp === undefined && !names.has(metadata.labels?.[COMPONENT] ?? ''))
            await drop(`${namespace}/pods/${metadata.name}`, metadata.uid);
        const lost = pods.length === 0 ? new Set<string>() : await this.#lostNodes();
        const left = pods.filter(({ metadata, spec }) => {
          const isLost = metadata.deletionTimestamp !== undefined && lost.has(spec?.nodeName ?? '');
          if (isLost) unreachable.add(spec?.nodeName ?? '');
          return !isLost;
        });
        if (left.length === 0) break;
        this.awaited = `${counted(left.length, 'pod')} to end: ${some(left.map(nameOf))}`;
        await this.#pause();
      }
    }
    this.awaited = '';
    await this.#sweep<MarkedNode>(NODES, deployLabelsOf, MERGE_PATCH);
    return `${counted(deleted, 'object')} deleted${
      unreachable.size === 0
        ? ''
        : `; on nodes that do not answer pods end when they are back: ${some([...unreachable])}`
    }`;
  }

  /** Nodes whose kubelet does not answer: it ends no pod. */
  async #lostNodes(): Promise<ReadonlySet<string>> {
    return new Set(
      (await this.#all<MarkedNode>(NODES))
        .filter(({ status }) => status?.conditions?.find(({ type }) => type === 'Ready')?.status !== 'True')
        .map(({ metadata }) => metadata.name),
    );
  }

  async #own(): Promise<string> {
    // Pods that were under admission when the webhook's configuration went.
    await this.#gates();
    const core = `/api/v1/namespaces/${this.#args.namespace}`;
    for (const secret of [CA_SECRET, WEBHOOK_SECRET, CANARY_SECRET, EXTENDER_SECRET, SCHEDULER_SECRET])
      await this.#delete(`${core}/secrets/${secret}`);
    await this.#delete(`${core}/configmaps/${EXTENDER_CA_CONFIG_MAP}`);
    await this.#delete(`/apis/coordination.k8s.io/v1/namespaces/${this.#args.namespace}/leases/${LEASE}`);
    return 'deleted';
  }

  /** What stays, why, and the next command. */
  farewell(): string {
    const waiting = this.#waiting;
    return [
      'gpu-gate is out of the cluster, but for what helm and these commands remove:',
      `  helm uninstall RELEASE --namespace ${this.#args.namespace}    (if it is not what runs this)`,
      `  kubectl delete namespace ${this.#args.operandNamespace} ${this.#args.namespace}`,
      '  kubectl delete crd gpupolicies.gpu-gate.dev         deletes the GPUPolicies with it',
      'RuntimeClass nvidia stays while pods name it.',
      ...(waiting.length === 0
        ? []
        : [
            `These pods wait for ${SECOND_SCHEDULER}, which ends with the chart, and then stay Pending: ${printable(some(waiting))}.`,
            'A pod cannot change its scheduler. Delete them: their owners create them again for the default scheduler, a pod without an owner is created again by hand.',
          ]),
      '',
    ].join('\n');
  }

  // --- calls

  #request<T>(method: 'GET' | 'PATCH' | 'DELETE', path: string, more: { body?: object; contentType?: string } = {}) {
    return this.#kube.request<T>(method, path, {
      ...more,
      signal: this.#signal,
      timeoutMs: 30_000,
      beforeAttempt: () => {
        if (method !== 'GET' && this.#lease?.held !== true)
          throw new Error(`another process has taken the Lease ${LEASE}: stop it, then repeat`);
      },
    });
  }
  #patch({ path, body }: Write, contentType: string): Promise<unknown> {
    return this.#request('PATCH', path, { body, contentType });
  }
  /** Was there something to delete? */
  async #delete(path: string, options: object = {}): Promise<boolean> {
    try {
      await this.#request('DELETE', path, { body: { kind: 'DeleteOptions', apiVersion: 'v1', ...options } });
      return true;
    } catch (error) {
      if (isNotFound(error) || isConflict(error)) return false;
      throw error;
    }
  }
  /** A resource or a namespace that is not there has no items. */
  async #all<T>(path: string, query: { labelSelector?: string } = {}): Promise<readonly T[]> {
    try {
      return await itemsOf<T>(this.#kube, path, query, this.#signal);
    } catch (error) {
      if (isNotFound(error)) return [];
      throw error;
    }
  }
  async #policies(): Promise<readonly GpuPolicy[]> {
    return (await this.#all<unknown>(POLICIES_PATH)).map(parsePolicy);
  }
  #pause(): Promise<unknown> {
    return sleep(500, undefined, { signal: this.#signal });
  }

  /**
   * Writes what each object needs, until a listing shows none that needs a write; returns how many
   * were written.
   */
  async #sweep<T>(path: string, writeOf: (object: T) => Write | undefined, contentType: string): Promise<number> {
    let written = 0;
    for (;;) {
      const due: Write[] = [];
      try {
        for await (const page of pagesOf<T>(this.#kube, path, {}, this.#signal))
          for (const object of page) {
            const write = writeOf(object);
            if (write !== undefined) due.push(write);
          }
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
      if (due.length === 0) return written;
      const work = due.values();
      const failures: unknown[] = [];
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          for (const write of work)
            try {
              await this.#patch(write, contentType);
              written += 1;
            } catch (error) {
              // Another writer was first, or it is gone: the next listing shows it.
              if (!isConflict(error) && !isNotFound(error)) failures.push(error);
            }
        }),
      );
      if (failures.length > 0)
        throw new Error(`${failures.length} of ${due.length} writes failed, the first: ${explainError(failures[0])}`);
    }
  }
}
