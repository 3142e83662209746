// The simulated hardware: what a driver, a device plugin and a kubelet would really do to nodes and
// pods, with a truth of its own that gpu-gate cannot see. Steered by annotations on the simulated
// node; README.md has the table.
import { randomUUID } from 'node:crypto';
import { STRATEGIC_PATCH, isConflict, isNotFound } from '../../platform/kube.ts';
import { jsonLog } from '../../platform/log.ts';
import { reflector } from '../../platform/reflector.ts';
import { devicesOf, republishSlice, withdrawSlice } from './devices.ts';
import type { ControlPlane } from './control-plane.ts';
import { SIMULATED } from './kwok.ts';

const SIM = 'sim.gpu-gate.dev/';
const GPU = 'nvidia.com/gpu';

interface RawNode {
  metadata: { name: string; uid: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  status?: { nodeInfo?: Record<string, string>; conditions?: { type: string; status: string }[] };
}
interface RawPod {
  metadata: {
    name: string;
    namespace: string;
    uid: string;
    labels?: Record<string, string>;
    deletionTimestamp?: string;
  };
  spec: {
    nodeName?: string;
    containers: { name: string; image: string; resources?: { limits?: Record<string, string> } }[];
    initContainers?: { name: string; image: string }[];
    resourceClaims?: object[];
    readinessGates?: { conditionType: string }[];
  };
  status?: {
    phase?: string;
    conditions?: { type: string; status: string }[];
    resourceClaimStatuses?: { name: string; resourceClaimName?: string }[];
    containerStatuses?: { ready: boolean; restartCount: number; state?: { running?: { startedAt: string } } }[];
  };
}

/** What is really so on a node. */
export interface Truth {
  bootID: string;
  driverLoaded: boolean;
  pluginServing: boolean;
  /** The DRA driver publishes and prepares. */
  draServing: boolean;
}

export interface Hardware {
  truth(node: string): Truth | undefined;
  stop(): void;
}

const OPERANDS: Readonly<Record<string, { readonly annotation: string; readonly seconds: number }>> = {
  'container-toolkit': { annotation: 'toolkit-seconds', seconds: 1 },
  driver: { annotation: 'driver-seconds', seconds: 2 },
  'device-plugin': { annotation: 'plugin-seconds', seconds: 1 },
  'dra-driver': { annotation: 'dra-seconds', seconds: 1 },
  'dcgm-exporter': { annotation: 'exporter-seconds', seconds: 0.5 },
  'feature-discovery': { annotation: 'discovery-seconds', seconds: 0.5 },
};
/** What each validation is of. */
const VALIDATIONS: Readonly<Record<string, 'driver' | 'device-plugin' | 'dra'>> = {
  'driver-validation': 'driver',
  'device-plugin-validation': 'device-plugin',
  'dra-validation': 'dra',
};
/** What the wrapper around a validation's program writes into the termination message. */
const verdict = (exit: number, words: string): string =>
  `${JSON.stringify({ gpuGate: 1, verdict: exit === 0 ? 'pass' : 'fail', exit, words })}\n`;
const PASSED = verdict(
  0,
  '[Vector addition of 50000 elements]\nCopy input data from the host memory to the CUDA device\nCUDA kernel launch with 196 blocks of 256 threads\nCopy output data from the CUDA device to the host memory\nTest PASSED\nDone\n',
);
const NO_DRIVER = verdict(
  1,
  '[Vector addition of 50000 elements]\nFailed to allocate device vector A (error code CUDA driver version is insufficient for CUDA runtime version)!\n',
);
const REJECTED = `Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices ${GPU}, which is unexpected`;

const iso = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
const gpusOf = (pod: RawPod): number =>
  pod.spec.containers.reduce((sum, c) => sum + Number(c.resources?.limits?.[GPU] ?? 0), 0);
const hasClaims = (pod: RawPod): boolean => (pod.spec.resourceClaims ?? []).length > 0;
const componentOf = (pod: RawPod): string =>
  pod.metadata.namespace === 'gpu-gate-operands' ? (pod.metadata.labels?.['app.kubernetes.io/component'] ?? '') : '';

/** Starts the simulation over all simulated nodes of the cluster. */
export function startHardware(cp: ControlPlane): Hardware {
  const { admin } = cp;
  const stopper = new AbortController();
  const { signal } = stopper;
  const log = jsonLog('error', (line) => process.stderr.write(`hardware: ${line}\n`));
  const truths = new Map<string, Truth>();
  const seenAnnotations = new Map<string, { reboot: string; restart: string; notReady: string; published: string }>();
  /** Bumped to call off what was under way for a pod. */
  const turns = new Map<string, number>();
  const lastStart = new Map<string, number>();
  const restarts = new Map<string, number>();

  const nodes = reflector<RawNode>({
    kube: admin,
    log,
    path: '/api/v1/nodes',
    query: { labelSelector: `${SIMULATED}=true` },
    trim: (raw: RawNode) => raw,
    onChange: (_, __, after) => (after === undefined ? undefined : attempt(() => nodeChanged(after))),
  });
  const pods = reflector<RawPod>({
    kube: admin,
    log,
    path: '/api/v1/pods',
    trim: (raw: RawPod) => (componentOf(raw) !== '' || gpusOf(raw) > 0 || hasClaims(raw) ? raw : undefined),
    onChange: (_, before, after) => podChanged(before, after),
  });

  /** A step of the simulation; objects that went meanwhile end it quietly. */
  const attempt = (step: () => Promise<void>): void => {
    step().catch((error: unknown) => {
      if (!signal.aborted && !isNotFound(error) && !isConflict(error)) log.error('step failed', { error });
    });
  };
  const wait = (seconds: number): Promise<void> =>
    new Promise((resolve) => setTimeout(resolve, seconds * 1000).unref());
  const steer = (node: string, name: string): string | undefined => nodes.get(node)?.metadata.annotations?.[SIM + name];
  const secondsOf = (node: string, name: string, otherwise: number): number => Number(steer(node, name) ?? otherwise);
  /**
   * Until that many seconds have passed; who changes the annotation meanwhile changes how long it
   * takes.
   */
  const last = async (node: string, name: string, otherwise: number): Promise<void> => {
    const began = performance.now();
    for (;;) {
      const left = secondsOf(node, name, otherwise) - (performance.now() - began) / 1000;
      if (left <= 0) return;
      await wait(Math.min(left, 0.25));
    }
  };
  const patchNode = (name: string, status: object): Promise<unknown> =>
    persistently(() =>
      admin.request('PATCH', `/api/v1/nodes/${name}/status`, { contentType: STRATEGIC_PATCH, body: { status } }),
    );
  const patchPod = (pod: RawPod, status: object): Promise<unknown> =>
    persistently(() =>
      admin.request('PATCH', `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}/status`, {
        contentType: STRATEGIC_PATCH,
        body: { metadata: { uid: pod.metadata.uid }, status },
      }),
    );
  /**
   * Under many writers the API server gives a patch up: a kubelet tells it again, or its pod would
   * hang for ever.
   */
  async function persistently(patch: () => Promise<unknown>): Promise<unknown> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await patch();
      } catch (error) {
        const raced = isConflict(error) && /the object has been modified/.test((error as Error).message);
        if (!raced || tries === 10) throw error;
        await wait(0.05 * tries);
      }
    }
  }
  const readyCondition = (ready: boolean | 'Unknown', reason: string): object => ({
    type: 'Ready',
    status: ready === 'Unknown' ? 'Unknown' : ready ? 'True' : 'False',
    reason,
    message: reason,
    lastHeartbeatTime: iso(Date.now()),
    lastTransitionTime: iso(Date.now()),
  });
  const offer = (node: string, serving: boolean): Promise<unknown> => {
    const gpus = secondsOf(node, 'gpus', 8);
    const usable = serving ? gpus - secondsOf(node, 'lost-gpus', 0) : 0;
    return patchNode(node, { capacity: { [GPU]: String(gpus) }, allocatable: { [GPU]: String(usable) } });
  };

  /** Generations of a pool only rise. */
  const generations = new Map<string, number>();
  const publish = async (node: string, serving: boolean): Promise<void> => {
    if (!serving) return withdrawSlice(admin, node);
    const generation = (generations.get(node) ?? 0) + 1;
    generations.set(node, generation);
    const [device = '', key = ''] = (steer(node, 'device-taint') ?? '').split('=');
    await republishSlice(admin, node, {
      devices: secondsOf(node, 'gpus', 8) - secondsOf(node, 'lost-gpus', 0),
      generation,
      count: 1 + secondsOf(node, 'missing-slices', 0),
      ...(key === '' ? {} : { taints: { [device]: [{ key, effect: 'NoSchedule' }] } }),
    });
  };
  /** What the slices of a node are made of. */
  const published = (name: string): string =>
    JSON.stringify(['gpus', 'lost-gpus', 'missing-slices', 'device-taint'].map((what) => steer(name, what)));

  async function nodeChanged(node: RawNode): Promise<void> {
    const { name, annotations } = node.metadata;
    const bootID = node.status?.nodeInfo?.['bootID'] ?? '';
    const truth = truths.get(name) ?? { bootID, driverLoaded: false, pluginServing: false, draServing: false };
    truths.set(name, truth);
    const wanted = {
      reboot: annotations?.[`${SIM}reboot`] ?? '',
      restart: annotations?.[`${SIM}restart`] ?? '',
      notReady: annotations?.[`${SIM}not-ready`] ?? '',
      published: published(name),
    };
    const before = seenAnnotations.get(name);
    seenAnnotations.set(name, wanted);
    if (before === undefined) return;
    if (wanted.reboot !== before.reboot) await reboot(name, truth);
    else if (wanted.restart !== before.restart) await restart(name, wanted.restart.split(':')[0] ?? '');
    else if (wanted.notReady !== before.notReady) await loseSight(name, wanted.notReady);
    else if (truth.draServing && wanted.published !== before.published) await publish(name, true);
    else if (truth.pluginServing) {
      const lost = secondsOf(name, 'lost-gpus', 0);
      const offered = Number(
        (node.status as { allocatable?: Record<string, string> } | undefined)?.allocatable?.[GPU] ?? 0,
      );
      if (offered !== secondsOf(name, 'gpus', 8) - lost) await offer(name, true);
    }
  }

  /**
   * The kubelet publishes the new boot ID before the node is Ready again; containers restart,
   * and GPU pods find no plugin.
   */
  async function reboot(name: string, truth: Truth): Promise<void> {
    truth.driverLoaded = false;
    truth.pluginServing = false;
    if (truth.draServing) await publish(name, false);
    truth.draServing = false;
    truth.bootID = randomUUID();
    await patchNode(name, {
      nodeInfo: { bootID: truth.bootID },
      conditions: [readyCondition(false, 'KubeletNotReady')],
      allocatable: { [GPU]: '0' },
    });
    await wait(secondsOf(name, 'reboot-seconds', 1));
    await patchNode(name, { conditions: [readyCondition(true, 'KubeletReady')] });
    for (const pod of pods.values()) {
      const ended = pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
      if (pod.spec.nodeName !== name || ended || pod.metadata.deletionTimestamp !== undefined) continue;
      const isOfPlugin = gpusOf(pod) > 0 && !isDra(name);
      if (isOfPlugin) attempt(() => reject(pod));
      else if (componentOf(pod) === '' && (hasClaims(pod) || gpusOf(pod) > 0)) attempt(() => startUser(pod));
      else if (OPERANDS[componentOf(pod)] !== undefined) attempt(() => startOperand(pod, true));
      else attempt(() => fail(pod, 255, 'the node was rebooted'));
    }
  }

  /**
   * `unreachable`: as the node-lifecycle controller does, also the node's pods are said not to be
   * Ready, though nothing happened to them.
   */
  async function loseSight(name: string, how: string): Promise<void> {
    const back = how === '';
    if (how === 'unreachable') await patchNode(name, { conditions: [readyCondition('Unknown', 'NodeStatusUnknown')] });
    else await patchNode(name, { conditions: [readyCondition(back, back ? 'KubeletReady' : 'KubeletNotReady')] });
    if (!back && how !== 'unreachable') return;
    for (const pod of pods.values()) {
      const containersReady = pod.status?.containerStatuses?.every((c) => c.ready) === true;
      if (pod.spec.nodeName !== name || pod.status?.phase !== 'Running' || !containersReady) continue;
      attempt(async () => void (await patchPod(pod, { conditions: conditions(true, back && gatesHold(pod)) })));
    }
  }

  async function restart(name: string, component: string): Promise<void> {
    for (const pod of pods.values())
      if (pod.spec.nodeName === name && componentOf(pod) === component) await startOperand(pod, true);
  }

  function podChanged(before: RawPod | undefined, after: RawPod | undefined): void {
    if (after === undefined) {
      if (before !== undefined) gone(before);
      return;
    }
    const node = after.spec.nodeName;
    if (node === undefined || !nodes.get(node)) return;
    if (after.metadata.deletionTimestamp !== undefined) {
      if (before?.metadata.deletionTimestamp === undefined) attempt(() => terminate(after));
      return;
    }
    if (before?.spec.nodeName === undefined) attempt(() => start(after));
    else if (after.status?.phase === 'Running' && (gpusOf(after) > 0 || hasClaims(after)) && componentOf(after) === '')
      attempt(() => judgeReady(after));
  }

  function gone(pod: RawPod): void {
    turns.delete(pod.metadata.uid);
    const truth = truths.get(pod.spec.nodeName ?? '');
    if (truth === undefined) return;
    if (componentOf(pod) === 'driver') truth.driverLoaded = false;
    if (componentOf(pod) === 'dra-driver' && truth.draServing) {
      truth.draServing = false;
      attempt(() => publish(pod.spec.nodeName ?? '', false));
    }
    if (componentOf(pod) === 'device-plugin' && truth.pluginServing) {
      truth.pluginServing = false;
      attempt(async () => void (await offer(pod.spec.nodeName ?? '', false)));
    }
  }

  async function terminate(pod: RawPod): Promise<void> {
    nextTurn(pod);
    await wait(0.2);
    await admin.request('DELETE', `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}`, {
      body: {
        apiVersion: 'v1',
        kind: 'DeleteOptions',
        gracePeriodSeconds: 0,
        preconditions: { uid: pod.metadata.uid },
      },
    });
  }

  const nextTurn = (pod: RawPod): number => {
    const turn = (turns.get(pod.metadata.uid) ?? 0) + 1;
    turns.set(pod.metadata.uid, turn);
    return turn;
  };
  const isTurn = (pod: RawPod, turn: number): boolean => turns.get(pod.metadata.uid) === turn && !signal.aborted;

  async function start(pod: RawPod): Promise<void> {
    if (pod.status?.phase !== undefined && pod.status.phase !== 'Pending') return;
    if (OPERANDS[componentOf(pod)] !== undefined) return startOperand(pod, false);
    const truth = truths.get(pod.spec.nodeName ?? '');
    if (gpusOf(pod) > 0 && truth?.pluginServing !== true && !isDra(pod.spec.nodeName ?? '')) return reject(pod);
    if (componentOf(pod) === '') return startUser(pod);
    const turn = nextTurn(pod);
    await patchPod(pod, running(pod, false));
    const component = componentOf(pod);
    const kind = VALIDATIONS[component];
    if (kind === undefined) return;
    await last(pod.spec.nodeName ?? '', 'validation-seconds', 1);
    if (!isTurn(pod, turn)) return;
    const serves = { driver: true, 'device-plugin': truth?.pluginServing === true, dra: truth?.draServing === true };
    const holds = truth?.driverLoaded === true && serves[kind];
    const fails = steer(pod.spec.nodeName ?? '', 'validation-fails') === kind;
    if (!holds || fails || (kind === 'dra' && (await hasBroken(pod)))) return fail(pod, 1, NO_DRIVER);
    await end(pod, 'Succeeded', { exitCode: 0, reason: 'Completed', message: PASSED });
  }

  /** Is one of the pod's devices the one that is broken? */
  async function hasBroken(pod: RawPod): Promise<boolean> {
    const broken = steer(pod.spec.nodeName ?? '', 'device-fails');
    const name = pod.status?.resourceClaimStatuses?.[0]?.resourceClaimName;
    return broken !== undefined && name !== undefined
      ? (await devicesOf(admin, name, pod.metadata.namespace)).includes(broken)
      : false;
  }

  /** The kubelet waits for the DRA driver to prepare the claims. */
  async function startUser(pod: RawPod): Promise<void> {
    const node = pod.spec.nodeName ?? '';
    const turn = nextTurn(pod);
    while (isDra(node) && truths.get(node)?.draServing !== true) {
      await patchPod(pod, stuck(pod, 'ContainerCreating', ''));
      await wait(0.25);
      if (!isTurn(pod, turn)) return;
    }
    await patchPod(pod, running(pod, false));
    await wait(secondsOf(node, 'pod-seconds', 0.2));
    if (isTurn(pod, turn)) await patchPod(pod, running(pod, true));
  }
  /** Has the node a DRA driver, working or not? */
  const isDra = (node: string): boolean =>
    [...pods.values()].some((pod) => pod.spec.nodeName === node && componentOf(pod) === 'dra-driver');

  async function startOperand(pod: RawPod, again: boolean): Promise<void> {
    const node = pod.spec.nodeName ?? '';
    const component = componentOf(pod);
    const truth = truths.get(node);
    const operand = OPERANDS[component];
    if (truth === undefined || operand === undefined) return;
    const turn = nextTurn(pod);
    if (again) restarts.set(pod.metadata.uid, (restarts.get(pod.metadata.uid) ?? 0) + 1);
    if (component === 'driver') truth.driverLoaded = false;
    if (component === 'device-plugin' && truth.pluginServing) {
      truth.pluginServing = false;
      await offer(node, false);
    }
    if (component === 'dra-driver' && truth.draServing) {
      truth.draServing = false;
      await publish(node, false);
    }
    for (;;) {
      if (!isTurn(pod, turn)) return;
      if (steer(node, 'image-pull-fails') === component) {
        await patchPod(
          pod,
          stuck(pod, 'ImagePullBackOff', `Back-off pulling image "${pod.spec.containers[0]?.image}": not found`),
        );
        await wait(0.5);
        continue;
      }
      await patchPod(pod, running(pod, false));
      await last(node, operand.annotation, operand.seconds);
      if (!isTurn(pod, turn)) return;
      const version = steer(node, 'driver-fails-version') ?? '';
      const isOfVersion = pod.spec.containers.some(({ image }) => image.includes(version));
      const failure = component === 'driver' && isOfVersion ? steer(node, 'driver-fails') : undefined;
      if (failure === undefined) break;
      restarts.set(pod.metadata.uid, (restarts.get(pod.metadata.uid) ?? 0) + 1);
      await patchPod(pod, stuck(pod, 'CrashLoopBackOff', 'back-off restarting failed container', failure));
      await wait(1);
    }
    if (component === 'driver') truth.driverLoaded = true;
    await patchPod(pod, running(pod, true));
    if (component === 'dra-driver') {
      truth.draServing = true;
      await publish(node, true);
    }
    if (component === 'device-plugin') {
      truth.pluginServing = true;
      await offer(node, true);
    }
  }

  /** Start times have a resolution of seconds: a restart must show. */
  const startedAt = (pod: RawPod, ready: boolean): string => {
    const last = lastStart.get(pod.metadata.uid) ?? 0;
    if (ready && last > 0) return iso(last);
    const at = Math.max(Date.now(), last + 1000);
    lastStart.set(pod.metadata.uid, at);
    return iso(at);
  };
  const conditions = (containersReady: boolean, ready: boolean): object[] =>
    [
      ['Initialized', true],
      ['ContainersReady', containersReady],
      ['Ready', ready],
    ].map(([type, holds]) => ({
      type,
      status: holds === true ? 'True' : 'False',
      lastTransitionTime: iso(Date.now()),
    }));
  const statuses = (pod: RawPod, ready: boolean, state: object, lastState: object = {}): object[] =>
    pod.spec.containers.map(({ name, image }) => ({
      name,
      image,
      imageID: image,
      ready,
      started: ready,
      restartCount: restarts.get(pod.metadata.uid) ?? 0,
      state,
      lastState,
    }));
  const gatesHold = (pod: RawPod): boolean =>
    (pod.spec.readinessGates ?? []).every(
      (gate) => pod.status?.conditions?.some((c) => c.type === gate.conditionType && c.status === 'True') === true,
    );
  const running = (pod: RawPod, ready: boolean): object => ({
    phase: 'Running',
    podIP: '10.0.0.1',
    startTime: iso(Date.now()),
    conditions: conditions(ready, ready && gatesHold(pod)),
    containerStatuses: statuses(pod, ready, { running: { startedAt: startedAt(pod, ready) } }),
  });
  const stuck = (pod: RawPod, reason: string, message: string, failure?: string): object => ({
    phase: 'Pending',
    conditions: conditions(false, false),
    containerStatuses: statuses(
      pod,
      false,
      { waiting: { reason, message } },
      failure === undefined
        ? {}
        : {
            terminated: {
              exitCode: 1,
              reason: 'Error',
              message: failure,
              startedAt: iso(Date.now()),
              finishedAt: iso(Date.now()),
            },
          },
    ),
  });

  /** As a kubelet does: Ready is containers and every readiness gate. */
  async function judgeReady(pod: RawPod): Promise<void> {
    const containersReady = pod.status?.containerStatuses?.every((c) => c.ready) === true;
    const is = pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true;
    const should = containersReady && gatesHold(pod);
    if (is !== should) await patchPod(pod, { conditions: conditions(containersReady, should) });
  }

  async function end(pod: RawPod, phase: 'Succeeded' | 'Failed', terminated: object): Promise<void> {
    nextTurn(pod);
    const at = iso(Date.now());
    await patchPod(pod, {
      phase,
      conditions: conditions(false, false),
      containerStatuses: statuses(pod, false, { terminated: { startedAt: at, finishedAt: at, ...terminated } }),
    });
  }
  const fail = (pod: RawPod, exitCode: number, message: string): Promise<void> =>
    end(pod, 'Failed', { exitCode, reason: 'Error', message });
  async function reject(pod: RawPod): Promise<void> {
    nextTurn(pod);
    await patchPod(pod, {
      phase: 'Failed',
      reason: 'UnexpectedAdmissionError',
      message: REJECTED,
      conditions: conditions(false, false),
    });
  }

  nodes.start(signal);
  void nodes.whenSynced().then(() => pods.start(signal));
  return { truth: (node) => truths.get(node), stop: () => stopper.abort() };
}
