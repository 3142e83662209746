// `npm run demo`: the whole idea on a real control plane, step by step; every step is checked.
// `-- --once` ends after it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import type { ControlPlane } from '../lab/cluster/control-plane.ts';
import { startGate, until, type Gate } from '../lab/cluster/gate.ts';
import { jsonLog } from '../platform/log.ts';
import { reflector } from '../platform/reflector.ts';
import { whyNoMachine } from '../lab/real-node/machine.ts';
import { runOnRealNode } from '../lab/real-node/world.ts';
import { readArguments } from './arguments.ts';
import { untilStopped } from './stop.ts';
import { storyTeller, type Story } from './story.ts';

const DRIVER_VOLUMES = [{ name: 'gpu-gate-driver', hostPath: '/run/nvidia/driver', mountPath: '/run/nvidia/driver' }];
/**
 * The demo's policy: volumes on, to be seen; short times, because simulated drivers compile fast.
 * The startup taint is off at first: it would keep pods away before the extender is asked, and the
 * extender is to be seen at work.
 */
const VALUES = {
  policy: {
    spec: {
      startupTaint: 'Off',
      injection: { driverVolumes: DRIVER_VOLUMES },
      validation: { backoff: { initial: '2s', max: '10s' }, timeouts: { driver: '10m' } },
    },
  },
};

const gpuDeployment = (name: string, node?: string): string =>
  JSON.stringify({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: {
          terminationGracePeriodSeconds: 0,
          ...(node === undefined ? {} : { nodeSelector: { 'kubernetes.io/hostname': node } }),
          containers: [{ name: 'train', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        },
      },
    },
  });

const plainPod = (name: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { containers: [{ name: 'web', image: 'example/web:1' }] },
  });

interface Pod {
  metadata: { name: string; uid: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    nodeName?: string;
    runtimeClassName?: string;
    schedulerName?: string;
    volumes?: { name: string }[];
    readinessGates?: { conditionType: string }[];
    containers: { volumeMounts?: { name: string; mountPath: string }[] }[];
  };
  status: {
    phase: string;
    reason?: string;
    conditions?: { type: string; status: string; reason?: string; message?: string; lastTransitionTime: string }[];
  };
}

/** Reading the cluster as a user would, by kubectl. */
function reader(cluster: Pick<ControlPlane, 'kubectl'>) {
  const kubectl = async (...args: string[]): Promise<string> => {
    const result = await cluster.kubectl(args);
    if (result.code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${result.stderr.trim()}`);
    return result.stdout;
  };
  return {
    kubectl,
    create: async (manifest: string): Promise<void> => {
      const result = await cluster.kubectl(['create', '-f', '-'], manifest);
      if (result.code !== 0) throw new Error(`kubectl create: ${result.stderr.trim()}`);
    },
    pods: async (app: string): Promise<Pod[]> =>
      (JSON.parse(await kubectl('get', 'pods', '-l', `app=${app}`, '-o', 'json')) as { items: Pod[] }).items,
    state: async (node: string): Promise<string> =>
      (await kubectl('get', 'node', node, '-o', 'jsonpath={.metadata.labels.gpu-gate\\.dev/state}')).trim(),
    annotate: (node: string, ...annotations: string[]): Promise<string> =>
      kubectl('annotate', 'node', node, '--overwrite', ...annotations),
    events: async (reason: string): Promise<string> =>
      kubectl(
        'get',
        'events',
        '-A',
        '--field-selector',
        `reason=${reason}`,
        '-o',
        'custom-columns=ON:.involvedObject.name,REASON:.reason,MESSAGE:.message',
        '--no-headers',
      ),
  };
}

const isReady = (pod: Pod): boolean =>
  pod.status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true;
const gateOf = (pod: Pod) => pod.status.conditions?.find((c) => c.type === 'gpu-gate.dev/node-validated');

/** One figure of the metrics text; undefined where it is not there. */
const metric = (text: string, name: string, labels = ''): number | undefined => {
  const line = text
    .split('\n')
    .find((l) => l.startsWith(name) && labels.split(',').every((label) => l.includes(label)));
  return line === undefined ? undefined : Number(line.split(' ').at(-1));
};

/** The states that each node goes through, from a watch: polling would miss the short ones. */
function watchStates(cluster: Cluster): Map<string, string[]> {
  const seen = new Map<string, string[]>();
  const stop = new AbortController();
  cluster.lifetime.onStop(async () => stop.abort());
  const note = (name: string, state: string | undefined): void => {
    const states = seen.get(name) ?? [];
    seen.set(name, states);
    if (state !== undefined && states.at(-1) !== state) states.push(state);
  };
  reflector<string>({
    kube: cluster.admin,
    log: jsonLog('error', console.error),
    path: '/api/v1/nodes',
    trim: (raw: { metadata: { labels?: Record<string, string> } }) => raw.metadata.labels?.['gpu-gate.dev/state'] ?? '',
    onChange: (name, _, state) => note(name, state === '' ? undefined : state),
  }).start(stop.signal);
  return seen;
}

const WALK = 'toolkit -> driver -> driver-validation -> device-plugin -> device-plugin-validation -> validated';

/**
 * What gpu-gate is there for. It takes the control plane alone, so that it can run while helm
 * and kwok are still built: the node is written by hand.
 */
async function problem(cp: ControlPlane, t: Story): Promise<void> {
  const read = reader(cp);
  t.chapter('Without gpu-gate: a node counts as ready for GPUs once a plugin has registered them');
  t.shows((await read.kubectl('version')).trimEnd());
  const resources = { cpu: '64', memory: '512Gi', pods: '110', 'nvidia.com/gpu': '8' };
  const ready = { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'its driver does not work' };
  await read.create(JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'broken' } }));
  await read.kubectl(
    'patch',
    'node',
    'broken',
    '--subresource=status',
    '--type=merge',
    '-p',
    JSON.stringify({ status: { capacity: resources, allocatable: resources, conditions: [ready] } }),
  );
  await read.create(gpuDeployment('unlucky'));
  await t.holds(
    'Kubernetes binds a GPU pod to a node whose driver does not work: nothing has ever tried it',
    async () => {
      const [pod] = await read.pods('unlucky');
      return pod?.spec.nodeName === 'broken' ? `${pod.metadata.name} is bound to ${pod.spec.nodeName}` : undefined;
    },
  );
  await read.kubectl('delete', 'deployment/unlucky', 'node/broken');
}

async function story(cluster: Cluster, gate: Gate, t: Story): Promise<void> {
  const read = reader(cluster);
  const states = watchStates(cluster);
  // A preflight that finds nothing wrong is over before a label could say it.
  const seen = (node: string): string => (states.get(node) ?? []).filter((state) => state !== 'preflight').join(' -> ');

  t.chapter('gpu-gate is installed by helm; its processes run under the chart’s own ServiceAccounts');
  await t.holds('CRD, policy, webhook configuration and RuntimeClass are there', async () =>
    read.kubectl(
      'get',
      'crd/gpupolicies.gpu-gate.dev',
      'gpupolicy/default',
      'mutatingwebhookconfiguration/zz-gpu-gate',
      'runtimeclass/nvidia',
      '-o',
      'name',
    ),
  );
  await t.holds('both processes answer to their own identity, not admin', async () => {
    const can = await cluster.kubectl([
      'auth',
      'can-i',
      'patch',
      'nodes',
      '--as',
      'system:serviceaccount:gpu-gate:gpu-gate',
    ]);
    return can.stdout.trim() === 'no' ? 'may the request path patch nodes? no' : undefined;
  });

  t.chapter('Nothing is opted in: the policy does not enforce, GPU pods are as they were before');
  await t.holds('the policy says so', async () => {
    const text = await read.kubectl('get', 'gpupolicy');
    return text.includes('NoNodeOptedIn') ? text : undefined;
  });
  await read.create(gpuDeployment('before'));
  await t.holds('a GPU pod is not injected, and waits for the scheduler’s own reason', async () => {
    const [pod] = await read.pods('before');
    const why = pod?.status.conditions?.find((c) => c.type === 'PodScheduled')?.message ?? '';
    if (pod === undefined || !why.includes('Insufficient nvidia.com/gpu')) return undefined;
    if (
      pod.spec.runtimeClassName !== undefined ||
      pod.spec.readinessGates !== undefined ||
      pod.spec.schedulerName !== 'default-scheduler'
    )
      throw new Error('the pod was changed');
    return why;
  });
  await read.kubectl('delete', 'deployment', 'before');

  t.chapter('kubectl label node gpu-0 gpu-gate.dev/managed=true: the walk, live');
  await read.annotate(
    'gpu-0',
    // Each stands until its part of the story has been seen, however slow this machine is.
    'sim.gpu-gate.dev/driver-seconds=600',
    'sim.gpu-gate.dev/validation-seconds=600',
    'sim.gpu-gate.dev/plugin-seconds=600',
  );
  await read.kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await t.holds('gpu-0 is in driver', async () =>
    seen('gpu-0') === 'toolkit -> driver'
      ? `${seen('gpu-0')}\n${await read.kubectl('get', 'nodes', '-L', 'gpu-gate.dev/state')}`
      : undefined,
  );

  t.chapter('A GPU pod made meanwhile waits, and kubectl describe says why in plain words');
  const callsBefore = metric(await gate.metrics(), 'gpu_gate_admission_body_bytes_count') ?? 0;
  await read.create(plainPod('no-gpu'));
  await t.holds('a pod without GPUs is untouched and the webhook never saw it', async () => {
    const pod = JSON.parse(await read.kubectl('get', 'pod', 'no-gpu', '-o', 'json')) as Pod;
    const calls = metric(await gate.metrics(), 'gpu_gate_admission_body_bytes_count') ?? 0;
    if (pod.spec.readinessGates !== undefined || pod.spec.runtimeClassName !== undefined || calls !== callsBefore)
      throw new Error('the pod was changed or sent to the webhook');
    return `webhook calls before and after: ${callsBefore}, ${calls}`;
  });
  await read.create(gpuDeployment('train'));
  await t.holds('the GPU pod shows runtime class, driver volume and mount, readiness gate', async () => {
    const [pod] = await read.pods('train');
    if (pod === undefined) return undefined;
    const mount = pod.spec.containers[0]?.volumeMounts?.find((m) => m.name === 'gpu-gate-driver');
    const whole =
      pod.spec.runtimeClassName === 'nvidia' &&
      pod.spec.volumes?.some((v) => v.name === 'gpu-gate-driver') === true &&
      mount !== undefined &&
      pod.spec.readinessGates?.[0]?.conditionType === 'gpu-gate.dev/node-validated';
    if (!whole) throw new Error(`not injected: ${JSON.stringify(pod.spec)}`);
    return `runtimeClassName nvidia, mount ${mount.mountPath}, scheduler ${pod.spec.schedulerName}, readiness gate ${pod.spec.readinessGates?.[0]?.conditionType}`;
  });
  await t.holds(
    'while the plugin is not there the scheduler says "Insufficient nvidia.com/gpu", and our Event names the node on its way',
    async () => {
      const [pod] = await read.pods('train');
      const described = await read.kubectl('describe', 'pod', pod?.metadata.name ?? '');
      const event = described
        .split('\n')
        .find((line) => line.includes('WaitingForGPUNode') && line.includes('gpu-0 is in driver'));
      return event !== undefined && described.includes('Insufficient nvidia.com/gpu') ? event.trim() : undefined;
    },
  );
  const stands = (state: string) => async (): Promise<string | undefined> =>
    (await read.state('gpu-0')) === state ? '' : undefined;
  await read.annotate('gpu-0', 'sim.gpu-gate.dev/driver-seconds=2');
  await t.holds('the driver is there: gpu-0 is in driver-validation', stands('driver-validation'));
  await read.annotate('gpu-0', 'sim.gpu-gate.dev/validation-seconds=1');
  await t.holds('it passed: gpu-0 is in device-plugin', stands('device-plugin'));
  await read.annotate('gpu-0', 'sim.gpu-gate.dev/validation-seconds=600', 'sim.gpu-gate.dev/plugin-seconds=1');
  await t.holds('in device-plugin-validation it is the extender that refuses, with its reason', async () => {
    const [pod] = await read.pods('train');
    const described = await read.kubectl('describe', 'pod', pod?.metadata.name ?? '');
    return described
      .split('\n')
      .find((line) => line.includes('GPU stack not validated: device-plugin-validation'))
      ?.trim();
  });
  await read.annotate('gpu-0', 'sim.gpu-gate.dev/validation-seconds=1');

  t.chapter('The node is validated: the pod is bound within seconds, runs, and is Ready once its gate is set');
  await t.holds('the walk was seen in its order', async () => {
    return seen('gpu-0') === WALK ? WALK : undefined;
  });
  await t.holds('operands run, both validation pods are Completed', async () => {
    const text = await read.kubectl('get', 'pods', '-n', 'gpu-gate-operands');
    return (text.match(/-validation-\S+\s+0\/1\s+Completed/g) ?? []).length === 2 &&
      /dcgm-exporter\S+\s+1\/1\s+Running/.test(text)
      ? text
      : undefined;
  });
  await t.holds('with Test PASSED', async () => {
    const messages = await read.kubectl(
      'get',
      'pods',
      '-n',
      'gpu-gate-operands',
      '--field-selector',
      'status.phase=Succeeded',
      '-o',
      'jsonpath={.items[*].status.containerStatuses[0].state.terminated.message}',
    );
    return (messages.match(/Test PASSED/g) ?? []).length === 2 ? 'Test PASSED, twice' : undefined;
  });
  await t.holds('the GPU pod runs and is Ready through its readiness gate', async () => {
    const [pod] = await read.pods('train');
    return pod !== undefined && isReady(pod) && gateOf(pod)?.status === 'True'
      ? `${pod.metadata.name} on ${pod.spec.nodeName}: gate True, ${gateOf(pod)?.message}`
      : undefined;
  });
  t.shows(
    `proof: ${(await read.kubectl('get', 'node', 'gpu-0', '-o', 'jsonpath={.metadata.annotations.gpu-gate\\.dev/proof}')).slice(0, 400)}`,
  );
  t.shows((await read.kubectl('get', 'nodes', '-L', 'gpu-gate.dev/state')).trimEnd());

  t.chapter('gpu-0 reboots: the gate closes at once, the Deployment’s new pod waits, the walk runs again');
  const [oldPod] = await read.pods('train');
  await read.kubectl('patch', 'gpupolicy', 'default', '--type', 'merge', '-p', '{"spec":{"startupTaint":"BringUp"}}');
  states.set('gpu-0', []);
  await read.annotate('gpu-0', 'sim.gpu-gate.dev/reboot=1');
  await t.holds('the proof is void and gone, the startup taint is on', async () => {
    const node = JSON.parse(await read.kubectl('get', 'node', 'gpu-0', '-o', 'json')) as {
      metadata: { annotations: Record<string, string> };
      spec: { taints?: { key: string }[] };
    };
    const tainted = node.spec.taints?.some((taint) => taint.key.endsWith('/gpu-gate')) === true;
    return node.metadata.annotations['gpu-gate.dev/proof'] === undefined && tainted
      ? `state ${await read.state('gpu-0')}`
      : undefined;
  });
  await t.holds('the kubelet rejected the old pod (UnexpectedAdmissionError), and its replacement waits', async () => {
    const pods = await read.pods('train');
    const rejected = pods.find((pod) => pod.metadata.uid === oldPod?.metadata.uid);
    const fresh = pods.find((pod) => pod.metadata.uid !== oldPod?.metadata.uid);
    return rejected?.status.reason === 'UnexpectedAdmissionError' &&
      fresh !== undefined &&
      fresh.spec.nodeName === undefined
      ? `${rejected.metadata.name} rejected, ${fresh.metadata.name} waits`
      : undefined;
  });
  await t.holds('the rejected pod is counted and reported', async () => {
    const event = await read.events('GPUPodRejected');
    const count = metric(await gate.metrics(), 'gpu_gate_rejected_pods_total', 'UnexpectedAdmissionError');
    return event !== '' && count === 1 ? `gpu_gate_rejected_pods_total ${count}\n${event}` : undefined;
  });
  await t.holds('the walk runs again and the new pod is Ready', async () => {
    const fresh = (await read.pods('train')).find((pod) => pod.metadata.uid !== oldPod?.metadata.uid);
    return fresh !== undefined && isReady(fresh) && seen('gpu-0').endsWith('device-plugin-validation -> validated')
      ? `${seen('gpu-0')}; ${fresh.metadata.name} is Ready`
      : undefined;
  });

  t.chapter('gpu-1’s driver fails: the walk stops there; it recovers without a restart');
  await read.annotate(
    'gpu-1',
    'sim.gpu-gate.dev/driver-fails=ERROR: Unable to load the kernel module nvidia.ko',
    'sim.gpu-gate.dev/driver-seconds=1',
  );
  await read.kubectl('label', 'node', 'gpu-1', 'gpu-gate.dev/managed=true');
  await read.create(gpuDeployment('wants-gpu-1', 'gpu-1'));
  await t.holds('gpu-1 is failed, its condition says which stage and why', async () => {
    const condition = await read.kubectl(
      'get',
      'node',
      'gpu-1',
      '-o',
      'jsonpath={.status.conditions[?(@.type=="GPUValidated")].reason}: {.status.conditions[?(@.type=="GPUValidated")].message}',
    );
    return (await read.state('gpu-1')) === 'failed' && condition.startsWith('DriverFailedCrashLoop')
      ? condition
      : undefined;
  });
  await t.holds('an Event on the node reports it', async () => {
    const event = await read.events('DriverFailedCrashLoop');
    return event.includes('gpu-1') ? event : undefined;
  });
  await t.holds('nothing later runs there, and no pod lands on it', async () => {
    const operands = await read.kubectl(
      'get',
      'pods',
      '-n',
      'gpu-gate-operands',
      '--field-selector',
      'spec.nodeName=gpu-1',
      '-o',
      'name',
    );
    if (/validation|device-plugin/.test(operands)) throw new Error(`something later runs: ${operands}`);
    const [pod] = await read.pods('wants-gpu-1');
    return pod !== undefined && pod.spec.nodeName === undefined
      ? `on gpu-1: ${operands.trim().split('\n').join(', ')}; ${pod.metadata.name} waits`
      : undefined;
  });
  await read.annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails-');
  await t.holds('it recovers, walks on to validated, and its pod runs', async () => {
    const [pod] = await read.pods('wants-gpu-1');
    return pod !== undefined && isReady(pod) && (await read.state('gpu-1')) === 'validated'
      ? `${pod.metadata.name} is Ready on ${pod.spec.nodeName}`
      : undefined;
  });

  t.chapter('The figures of what just happened');
  await t.holds('curl of the metrics endpoints', async () => {
    const text = await gate.metrics();
    const wanted =
      /^(gpu_gate_nodes\{state="validated"|gpu_gate_open_nodes|gpu_gate_stage_failures_total|gpu_gate_rejected_pods_total|gpu_gate_admission_total|gpu_gate_verdicts_total|gpu_gate_leader|gpu_gate_wakes_total)/;
    const lines = text.split('\n').filter((line) => wanted.test(line) && !line.endsWith(' 0'));
    const validated = metric(text, 'gpu_gate_nodes', 'state="validated"');
    const failures = metric(text, 'gpu_gate_stage_failures_total', 'stage="driver"') ?? 0;
    return validated === 2 && failures >= 1 && lines.length > 5
      ? `curl ${gate.metricsUrls.reconciler} ${gate.metricsUrls.requestPath}\n${lines.join('\n')}`
      : undefined;
  });
}

const PLAY = (cluster: Cluster): string => `
Every step held. It stays up to play with:

  export KUBECONFIG=${cluster.kubeconfig}
  kubectl label node gpu-2 gpu-gate.dev/managed=true        opt the third node in
  kubectl get nodes -L gpu-gate.dev/state -w
  kubectl annotate node gpu-0 sim.gpu-gate.dev/reboot=2     reboot one (all steering: lab/cluster/README.md)
  KUBECONFIG=${cluster.kubeconfig} npm run explain -- POD   why does a pod wait

Ctrl-C stops it and leaves nothing.`;

const USAGE = `npm run demo -- [options]        the whole idea on a real control plane, step by step

  --once        ends after the last step
  --real-node   on a real kubelet and containerd in place of simulated nodes (as root)`;
const { values } = readArguments(USAGE, {
  options: { once: { type: 'boolean', default: false }, 'real-node': { type: 'boolean', default: false } },
});

try {
  if (values['real-node']) {
    const reason = whyNoMachine();
    if (reason !== undefined) throw new Error(`npm run demo -- --real-node: ${reason}`);
    process.exit(await runOnRealNode([join(import.meta.dirname, 'demo-real-node.ts')], console.log));
  }
  await untilStopped(async (stopping) => {
    let logs = async (): Promise<string> => '';
    const teller = storyTeller(console.log, () => logs());
    const cluster = await startCluster({ nodes: 3, say: console.log, meanwhile: (cp) => problem(cp, teller) });
    stopping(() => cluster.stop());
    const gate = await startGate(cluster, { values: VALUES });
    await until(
      'the nodes to be Ready',
      async () =>
        (await cluster.kubectl(['get', 'nodes'])).stdout.split('\n').filter((line) => / Ready /.test(line)).length ===
        3,
    );
    logs = async () => {
      const tails = ['gpu-gate-reconciler', 'gpu-gate'].map(
        (name) =>
          `${name}:\n${readFileSync(join(cluster.dir, `${name}.log`), 'utf8')
            .split('\n')
            .slice(-12)
            .join('\n')}`,
      );
      return [
        (await cluster.kubectl(['get', 'nodes', '-L', 'gpu-gate.dev/state'])).stdout,
        (await cluster.kubectl(['get', 'pods', '-A', '-o', 'wide'])).stdout,
        ...tails,
      ].join('\n');
    };
    await story(cluster, gate, teller);
    console.log(values.once ? '\nEvery step held.' : PLAY(cluster));
  }, values.once);
} catch (error) {
  console.error(`\n${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = error instanceof TypeError ? 2 : 1;
}
