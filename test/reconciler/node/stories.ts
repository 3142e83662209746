// Stories of one node, from its first walk to its removal, with what goes wrong on the way. What
// gpu-gate writes in each is in test/golden/node.
import { COMPONENT, DEPLOY_PREFIX, MANAGED, PROOF, RETRY, STATE, WALK } from '../../../core/keys.ts';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import type { ContainerStatus, PodObject } from '../../../reconciler/model.ts';
import { aPolicy, keptPod, verdict } from '../../builders/objects.ts';
import { Story, user } from './transcript.ts';
import { aPool } from './world.ts';

const S = 1000;
const MINUTE = 60 * S;
const HOUR = 60 * MINUTE;
const NFD = 'feature.node.kubernetes.io/pci-10de.present';

const spec = { validation: { timeouts: { driver: '60s' } } };
const newDriver = aPolicy({ ...spec, components: { driver: { version: '600.1.1' } } });
const story = (policy: GpuPolicy = aPolicy(spec), labels: Record<string, string> = {}): Story =>
  new Story(policy, labels);
const validated = (policy?: GpuPolicy): Story => story(policy).so('a first walk', (s) => s.settle());

const retry = (s: Story, value = 'now'): void => s.annotate(RETRY, value);
const strip = (s: Story, ...keys: readonly string[]): void => {
  const without = (map: Readonly<Record<string, string>> | undefined): Record<string, string> =>
    Object.fromEntries(Object.entries(map ?? {}).filter(([key]) => !keys.includes(key)));
  const { labels, annotations } = s.node.metadata;
  s.node = { ...s.node, metadata: { ...s.node.metadata, labels: without(labels), annotations: without(annotations) } };
};
const offers = (s: Story, status: object): void => {
  s.status = { ...s.status, ...status };
  s.node = { ...s.node, status: { ...s.node.status, ...status } };
};
const container = (parts: Partial<ContainerStatus>): ContainerStatus => ({
  name: 'c',
  ready: false,
  restartCount: 3,
  image: 'example/driver:1',
  ...parts,
});
/** The pods of the validations that have not been looked at yet end like this. */
const validationsEnd = (s: Story, end: Partial<PodObject>): void => {
  for (const [name, pod] of s.pods)
    if (pod.validates !== undefined && pod.phase !== 'Failed') s.pods.set(name, { ...pod, containers: [], ...end });
};
const external = (name: string, parts: Partial<PodObject> = {}): PodObject =>
  keptPod({
    namespace: 'drivers',
    name,
    uid: name,
    labels: { app: 'driver' },
    controller: { kind: 'DaemonSet', uid: 'theirs' },
    conditions: [{ type: 'Ready', status: 'True' }],
    containers: [container({ ready: true, state: { running: { startedAt: '2026-11-24T09:00:00Z' } } })],
    ...parts,
  });
const externalDriver = (podSelector?: object): GpuPolicy =>
  aPolicy({
    ...spec,
    components: { driver: { mode: 'external', ...(podSelector === undefined ? {} : { podSelector }) } },
  });
const SELECTOR = { namespace: 'drivers', matchLabels: { app: 'driver' }, ownerKind: 'DaemonSet' };

/** A first walk that has come to this state; its driver does not get Ready. */
function reaching(state: string): Story {
  const s = story();
  if (state === 'driver') s.broken['driver'] = {};
  for (let i = 0; i < 40 && s.state !== state; i += 1) s.step();
  return s;
}
/** A driver whose pod shows one trouble on the first walk. */
const driverShows = (what: string, trouble: Partial<PodObject>): readonly [string, () => Story] => [
  `the driver's pod shows ${what}`,
  () =>
    reaching('driver').so(`its pod is not Ready: ${what}`, (s) => {
      s.broken['driver'] = trouble;
      s.reality();
      s.pass(18);
    }),
];
/** A driver validation on a first walk that ends so. */
const validationEnds = (what: string, end: Partial<PodObject>): readonly [string, () => Story] => [
  `a validation ends ${what}`,
  () =>
    reaching('driver-validation').so(`the validation's pod: ${what}`, (s) => {
      validationsEnd(s, end);
      s.pass(3);
    }),
];

const inOrder: Readonly<Record<string, () => Story>> = {
  'a first walk': () => story().so('opted in', (s) => s.pass(20)),
  'a first walk by claims': () => story(aPolicy({ ...spec, allocation: 'DRA' })).so('opted in', (s) => s.pass(20)),
  'a first walk by claims whose pool is not complete': () => {
    const s = story(aPolicy({ ...spec, allocation: 'DRA' }));
    s.publishes = [aPool({ count: 2 })];
    return s
      .so('one of two slices', (one) => one.pass(12))
      .so('both', (one) => {
        one.publishes = [aPool({ slices: 2, count: 2 })];
        one.reality();
        one.pass(6);
      });
  },
  'a first walk with the startup taint switched off': () =>
    story(aPolicy({ ...spec, startupTaint: 'None' })).so('opted in', (s) => s.pass(8)),
  'a first walk on a node that NFD has not labelled': () =>
    story()
      .so('no label of NFD', (s) => {
        strip(s, NFD);
        s.pass(4);
      })
      .so('NFD labels it, and finds no NVIDIA device', (s) => {
        s.relabel((labels) => {
          labels['feature.node.kubernetes.io/cpu-model.id'] = '1';
        });
        s.pass(4, 20 * S);
      })
      .so('its device is found', (s) => {
        s.relabel((labels) => {
          labels[NFD] = 'true';
        });
        s.pass(4);
      }),
  'a first walk that waits for a place': () => {
    const s = story();
    s.slotFree = false;
    return s
      .so('no place is free', (one) => one.pass(4, 30 * S))
      .so('a place is free', (one) => {
        one.slotFree = true;
        one.pass(3);
      });
  },
  'a first walk on a node without a boot ID': () =>
    story()
      .so('the kubelet has published none', (s) => {
        s.reboot('');
        s.pass(3);
      })
      .so('the kubelet publishes one', (s) => {
        s.reboot('boot-1');
        s.pass(3);
      }),
  'a driver that never gets Ready': () => {
    const s = story();
    s.broken['driver'] = {};
    return s
      .so('its time runs out again and again', (one) => one.pass(120, 20 * S))
      .so('all places are taken: it waits for one', (one) => {
        one.slotFree = false;
        one.pass(60, MINUTE);
      })
      .so('a place is free, and the driver gets Ready', (one) => {
        one.slotFree = true;
        one.broken = {};
        one.pass(90, 20 * S);
      });
  },
  'a driver that never gets Ready, and a person': () => {
    const s = story();
    s.broken['driver'] = {};
    return s
      .so('a person asks for a retry while it is being waited for', (one) => {
        one.pass(10, 5 * S);
        retry(one);
        one.pass(3);
      })
      .so('its time runs out', (one) => one.pass(8, 10 * S))
      .so('a person asks for a retry', (one) => {
        retry(one, 'again');
        one.pass(2);
      })
      .so('its time runs out', (one) => one.pass(8, 10 * S))
      .so('a person takes the retry away', (one) => {
        strip(one, RETRY);
        one.pass(2);
      })
      .so('the policy is edited: its inputs are others', (one) => {
        one.policy = aPolicy({ validation: { timeouts: { driver: '90s' } } });
        one.pass(3);
      });
  },
};

const ended: Readonly<Record<string, () => Story>> = Object.fromEntries([
  driverShows('an image that cannot be pulled', {
    containers: [container({ state: { waiting: { reason: 'ImagePullBackOff', message: 'Back-off: not found' } } })],
  }),
  driverShows('an image name that is not valid', {
    containers: [{ name: 'c', ready: false, restartCount: 0, state: { waiting: { reason: 'InvalidImageName' } } }],
  }),
  driverShows('a first failed pull', { containers: [container({ state: { waiting: { reason: 'ErrImagePull' } } })] }),
  driverShows('an image that may not be pulled', {
    containers: [container({ state: { waiting: { reason: 'ErrImageNeverPull' } } })],
  }),
  driverShows('a crash loop', {
    containers: [
      container({
        state: { waiting: { reason: 'CrashLoopBackOff' } },
        lastState: { terminated: { exitCode: 1, message: 'Error: no device\nbye' } },
      }),
    ],
  }),
  driverShows('a crash loop without a word', {
    initContainers: [container({ name: 'init', state: { waiting: { reason: 'CrashLoopBackOff' } } })],
  }),
  driverShows('a kernel module that is missing', {
    initContainers: [
      container({
        name: 'kernel-modules',
        state: { terminated: { exitCode: 1, message: 'modprobe: i2c_core not found' } },
      }),
    ],
  }),
  driverShows('a kernel module that is missing, without a word', {
    initContainers: [
      container({
        name: 'kernel-modules',
        state: { waiting: { reason: 'PodInitializing' } },
        lastState: { terminated: { exitCode: 2 } },
      }),
    ],
  }),
  driverShows('kernel modules that are being loaded again', {
    initContainers: [
      container({ name: 'kernel-modules', state: { running: {} }, lastState: { terminated: { exitCode: 1 } } }),
    ],
  }),
  driverShows('a handler that is missing', {
    containers: [
      container({
        state: {
          waiting: { reason: 'CreateContainerError', message: 'no runtime for "nvidia" is configured' },
        },
      }),
    ],
  }),
  driverShows('a handler that is missing, in the words of the pod', {
    message: 'Failed to create pod sandbox: no runtime for "nvidia" is configured',
    containers: [container({ state: { waiting: { reason: 'ContainerCreating' } } })],
  }),
  ...(['CreateContainerConfigError', 'CreateContainerError', 'RunContainerError'] as const).map((reason) =>
    driverShows(reason, {
      containers: [container({ state: { waiting: { reason, message: `the words of ${reason}` } } })],
    }),
  ),
  driverShows('a container that cannot be created, without a word', {
    containers: [container({ state: { waiting: { reason: 'CreateContainerError' } } })],
  }),
  driverShows('a container that is being created', {
    containers: [container({ state: { waiting: { reason: 'ContainerCreating' } } })],
  }),
  driverShows('no container that runs, though it is Ready', {
    conditions: [{ type: 'Ready', status: 'True' }],
    containers: [container({})],
  }),
  driverShows('that it is on its way out', { deleting: true, conditions: [{ type: 'Ready', status: 'True' }] }),
  driverShows('a driver on the host', {
    initContainers: [
      container({
        name: 'k8s-driver-manager',
        state: { terminated: { exitCode: 1, message: 'the driver is pre-installed on this host' } },
      }),
    ],
  }),
  driverShows('that its driver-manager ended well', {
    initContainers: [
      container({ name: 'k8s-driver-manager', state: { terminated: { exitCode: 0, message: 'not pre-installed' } } }),
    ],
  }),
  validationEnds('with a verdict against it', {
    phase: 'Failed',
    containers: [container({ state: { terminated: { exitCode: 1, message: verdict(false, 'no CUDA device\nbye') } } })],
  }),
  validationEnds('with a verdict against it that says nothing', {
    phase: 'Failed',
    containers: [container({ state: { terminated: { exitCode: 1, message: verdict(false) } } })],
  }),
  ...[
    'Evicted',
    'OutOfcpu',
    'Preempting',
    'UnexpectedAdmissionError',
    'TopologyAffinityError',
    'NodeAffinity',
    'NodeShutdown',
    'Terminated',
    'SomethingNew',
  ].flatMap((reason) => [
    validationEnds(`before it began: ${reason}`, { phase: 'Failed', reason, message: `the kubelet on ${reason}` }),
    validationEnds(`after it began: ${reason}`, {
      phase: 'Failed',
      reason,
      containers: [
        container({ state: { terminated: { exitCode: 137, startedAt: '2026-11-24T10:00:00Z', reason: 'Error' } } }),
      ],
    }),
  ]),
  validationEnds('without a container or a reason', { phase: 'Failed', message: 'no words' }),
  ...[
    { exitCode: 137, reason: 'OOMKilled' },
    { exitCode: 137, reason: 'Error' },
    { exitCode: 143, reason: 'Error' },
    { reason: 'ContainerStatusUnknown' },
    { exitCode: 127, reason: 'StartError', message: 'exec: not found' },
    { exitCode: 128, reason: 'ContainerCannotRun', startedAt: '1970-01-01T00:00:00Z' },
    { exitCode: 1 },
    { exitCode: 2, message: '{"gpuGate":1,"verdict":"none","exit":143,"words":"killed"}' },
    { exitCode: 3, message: '{"gpuGate":1,' },
    { exitCode: 0, reason: 'Completed', message: 'something else ran' },
    {},
  ].map((terminated) =>
    validationEnds(`as ${JSON.stringify(terminated)}`, {
      phase: terminated.exitCode === 0 ? 'Succeeded' : 'Failed',
      containers: [container({ state: { terminated } })],
    }),
  ),
  validationEnds('not: its image cannot be pulled', {
    phase: 'Pending',
    containers: [container({ state: { waiting: { reason: 'ImagePullBackOff', message: 'denied' } } })],
  }),
  validationEnds('not: no node is found for it', {
    phase: 'Pending',
    nodeName: undefined,
    conditions: [
      { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '1 node had an untolerated taint' },
    ],
  }),
]);

const afterwards: Readonly<Record<string, () => Story>> = {
  'operands restart': () =>
    validated()
      .so('the toolkit', (s) => {
        s.start('toolkit');
        s.pass(8);
      })
      .so('the device plugin', (s) => {
        s.start('device-plugin');
        s.pass(8);
      })
      .so('the exporter', (s) => {
        s.start('dcgm-exporter');
        s.pass(8);
      })
      .so('the driver', (s) => {
        s.start('driver');
        s.pass(8);
      }),
  'operands restart under GPU pods': () =>
    validated()
      .so('a GPU pod has come, and the device plugin restarts', (s) => {
        s.pods.set('user', user());
        s.start('device-plugin');
        s.pass(1);
        validationsEnd(s, {
          phase: 'Pending',
          nodeName: undefined,
          conditions: [
            { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: 'Insufficient nvidia.com/gpu.' },
          ],
        });
        s.pass(20, MINUTE);
      })
      .so('the driver restarts', (s) => {
        s.start('driver');
        s.pass(3);
      })
      .so('the GPU pod ends', (s) => {
        s.pods.delete('user');
        validationsEnd(s, {
          nodeName: 'n',
          phase: 'Succeeded',
          containers: [container({ state: { terminated: { exitCode: 0, message: verdict(true) } } })],
        });
        s.pass(6);
      }),
  'the driver crashes': () =>
    validated()
      .so('it is not Ready, and still the same', (s) => {
        s.broken['driver'] = { conditions: [{ type: 'Ready', status: 'False' }] };
        s.pass(70);
      })
      .so('it is Ready again', (s) => {
        s.broken = {};
        s.start('driver');
        s.pass(40, 10 * S);
      }),
  'validations fail on a proven node': () =>
    validated()
      .so('the driver restarts, and CUDA computes no more', (s) => {
        s.validationsFail = true;
        s.start('driver');
        s.pass(120, 10 * S);
      })
      .so('a person asks for a retry', (s) => {
        retry(s);
        s.pass(20, 10 * S);
      })
      .so('it computes again', (s) => {
        s.validationsFail = false;
        s.pass(200, 10 * S);
      }),
  'a validation that hangs': () =>
    validated()
      .so('the toolkit restarts', (s) => {
        s.start('toolkit');
        s.pass(1);
        validationsEnd(s, {
          phase: 'Running',
          conditions: [{ type: 'PodScheduled', status: 'True', lastTransitionTime: new Date(s.now).toISOString() }],
        });
      })
      .so('the program has begun and does not end', (s) => s.pass(12, MINUTE)),
  'a validation that does not start': () =>
    validated()
      .so('the toolkit restarts', (s) => {
        s.start('toolkit');
        s.pass(1);
        validationsEnd(s, { phase: 'Pending' });
      })
      .so('its pod is bound, and nothing more is heard of it', (s) => s.pass(12, MINUTE)),
  'a reboot': () =>
    validated()
      .so('another boot ID, and the pods of the previous boot', (s) => {
        s.reboot('boot-2');
        s.pass(3);
      })
      .so('each operand starts again', (s) => {
        for (const name of ['toolkit', 'driver', 'device-plugin', 'dcgm-exporter'] as const) s.start(name);
        s.pass(8);
      }),
  'a reboot with operands that start again at once, but for one': () =>
    validated().so('the toolkit’s containers are new, the driver is another pod, the plugin is as before', (s) => {
      const toolkit = s.pods.get('toolkit-pod');
      s.reboot('boot-2');
      s.start('toolkit');
      const started = s.pods.get('toolkit-pod');
      if (toolkit !== undefined && started !== undefined)
        s.pods.set('toolkit-pod', { ...toolkit, containers: started.containers });
      const driver = s.pods.get('driver-pod');
      if (driver !== undefined) s.pods.set('driver-pod', { ...driver, uid: 'another' });
      s.pass(6);
      s.pass(4, MINUTE);
    }),
  'a reboot with news that come late': () =>
    validated()
      .so('one status without a boot ID', (s) => {
        s.reboot('');
        s.pass(2);
      })
      .so('not Ready on another boot', (s) => {
        s.reboot('boot-2');
        s.ready('False');
        s.pass(2);
      })
      .so('Ready, and the pods are said to be those of before', (s) => {
        s.ready('True');
        s.pass(10, 20 * S);
      }),
  'GPUs are lost': () =>
    validated()
      .so('two of eight', (s) => {
        offers(s, { allocatable: { 'nvidia.com/gpu': '6' }, capacity: { 'nvidia.com/gpu': '8', cpu: '4' } });
        s.pass(3);
      })
      .so('one more', (s) => {
        offers(s, { allocatable: { 'nvidia.com/gpu': '5' } });
        s.pass(3);
      })
      .so('all', (s) => {
        offers(s, { allocatable: { 'nvidia.com/gpu': '0' } });
        s.pass(3);
      })
      .so('all are back', (s) => {
        offers(s, { allocatable: { 'nvidia.com/gpu': '8' } });
        s.pass(6);
      }),
  'GPUs are lost, and what a person would try is tried': () =>
    validated().so('the kubelet offers none', (s) => {
      offers(s, { allocatable: {} });
      s.pass(120, MINUTE);
    }),
  'GPUs are lost under GPU pods': () =>
    validated().so('the kubelet offers none', (s) => {
      s.pods.set('user', user());
      offers(s, { allocatable: {} });
      s.pass(60, MINUTE);
    }),
  'the runtime has no handler any more': () =>
    validated()
      .so('its configuration was changed', (s) => {
        offers(s, { runtimeHandlers: ['', 'runc'] });
        s.pass(20, MINUTE);
      })
      .so('it has it again', (s) => {
        offers(s, { runtimeHandlers: ['', 'runc', 'nvidia'] });
        s.pass(60, MINUTE);
      }),
  'the runtime never gets the handler': () => {
    const s = story();
    offers(s, { runtimeHandlers: ['', 'runc'] });
    return s.so('opted in', (one) => one.pass(10, MINUTE));
  },
  'a node out of sight': () =>
    validated()
      .so('for a short time', (s) => {
        s.ready('Unknown');
        s.podsReady(false);
        s.pass(3, 10 * S);
        s.ready('True');
        s.podsReady(true);
        s.pass(3);
      })
      .so('for long', (s) => {
        s.ready('Unknown');
        s.podsReady(false);
        s.pass(9, 10 * S);
        s.ready('True');
        s.podsReady(true);
        s.pass(8);
      })
      .so('for long, among many', (s) => {
        s.more = { isOverloaded: true };
        s.ready('Unknown');
        s.podsReady(false);
        s.pass(9, 10 * S);
        s.ready('True');
        s.podsReady(true);
        s.pass(8);
      }),
  'a node out of sight at its validation': () => {
    const s = reaching('driver-validation');
    return s
      .so('not Ready', (one) => {
        validationsEnd(one, { phase: 'Pending' });
        one.ready('False');
        one.pass(12, MINUTE);
      })
      .so('Ready', (one) => {
        one.ready('True');
        one.pass(3);
      });
  },
  'discovery loses sight of the device': () =>
    validated()
      .so('the label is gone', (s) => {
        strip(s, NFD);
        s.pass(40, 30 * S);
      })
      .so('the label is back', (s) => {
        s.relabel((labels) => {
          labels[NFD] = 'true';
        });
        s.pass(3);
      }),
  'the kubelet rejects GPU pods': () =>
    validated()
      .so('five in a short time', (s) => {
        s.validationsFail = true;
        s.more = { rejection: { count: 5, words: 'GPU is lost', at: s.now } };
        s.pass(4);
      })
      .so('validations pass again', (s) => {
        s.validationsFail = false;
        s.pass(30, 20 * S);
      }),
  'validation at intervals': () =>
    validated(aPolicy({ ...spec, validation: { ...spec.validation, interval: '1h' } }))
      .so('an hour passes', (s) => s.pass(8, 10 * MINUTE))
      .so('with a GPU pod on it', (s) => {
        s.pods.set('user', user());
        s.pass(8, 10 * MINUTE);
      }),
};

const changed: Readonly<Record<string, () => Story>> = {
  'another driver version': () =>
    validated()
      .so('the policy names it', (s) => {
        s.policy = newDriver;
        s.pass(3);
      })
      .so('a person asks for it while a GPU pod is there', (s) => {
        s.pods.set('user', user());
        retry(s);
        s.pass(3);
      })
      .so('the device plugin crashes', (s) => {
        s.start('device-plugin');
        s.broken['device-plugin'] = {};
        s.pass(8, 30 * S);
      })
      .so('the GPU pod ends', (s) => {
        s.pods.delete('user');
        s.broken = {};
        s.pass(2);
      })
      .so('a person asks for it', (s) => {
        retry(s, 'later');
        s.pass(30, 20 * S);
      }),
  'a retry where nothing is wrong': () =>
    validated().so('a person asks for it', (s) => {
      retry(s);
      s.pass(4);
    }),
  'a revision whose DaemonSet is gone': () =>
    validated().so('the driver’s DaemonSet and pod are gone', (s) => {
      s.policy = newDriver;
      const held = s.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`] ?? '';
      s.more = { daemonSets: new Map([...s.input().daemonSets].filter(([name]) => !name.endsWith(held))) };
      s.pods.delete('driver-pod');
      s.broken['driver'] = { deleting: true };
      s.pass(10, 30 * S);
    }),
  'exporters come and go': () =>
    validated()
      .so('the exporter is switched off', (s) => {
        s.policy = aPolicy({ ...spec, components: { dcgmExporter: { enabled: false } } });
        s.pass(3);
      })
      .so('the exporter is switched on', (s) => {
        s.policy = aPolicy({ ...spec, components: { dcgmExporter: { image: 'example/other:1' } } });
        s.pass(3);
      })
      .so('another image of it', (s) => {
        s.policy = aPolicy(spec);
        s.pass(4);
      }),
  'a driver that others install': () =>
    story(externalDriver(SELECTOR))
      .so('its pod is missing', (s) => s.pass(6))
      .so('there are pods that do not count', (s) => {
        s.pods.set('a', external('a', { deleting: true }));
        s.pods.set('b', external('b', { phase: 'Succeeded' }));
        s.pods.set('c', external('c', { phase: 'Failed' }));
        s.pods.set('d', external('d', { controller: { kind: 'ReplicaSet', uid: 'x' } }));
        s.pods.set('e', external('e', { namespace: 'elsewhere' }));
        s.pods.set('f', external('f', { labels: { app: 'other' } }));
        s.pass(2);
      })
      .so('its pod is not Ready', (s) => {
        s.pods.set('theirs', external('theirs', { conditions: [] }));
        s.pass(2);
      })
      .so('its pod crashes', (s) => {
        s.pods.set(
          'theirs',
          external('theirs', {
            conditions: [],
            containers: [container({ state: { waiting: { reason: 'CrashLoopBackOff' } } })],
          }),
        );
        s.pass(2);
      })
      .so('its pod is Ready', (s) => {
        s.pods.set('theirs', external('theirs'));
        s.pass(30, 20 * S);
      })
      .so('its pod starts again', (s) => {
        s.pods.set(
          'theirs',
          external('theirs', {
            containers: [
              container({ ready: true, state: { running: { startedAt: '2026-11-24T09:00:00Z' } } }),
              container({ ready: true, state: { running: { startedAt: '2026-11-24T11:00:00Z' } } }),
            ],
          }),
        );
        s.pass(6);
      })
      .so('its pod is gone', (s) => {
        s.pods.delete('theirs');
        s.pass(3);
      }),
  'a driver that others install, where the walk is forgotten and no policy selects the node': () =>
    story(externalDriver(SELECTOR))
      .so('a first walk', (s) => {
        s.pods.set('theirs', external('theirs'));
        s.settle();
      })
      .so('both', (s) => {
        strip(s, WALK);
        s.more = { policy: undefined };
        s.pass(2);
      })
      .so('the node is opted out', (s) => {
        strip(s, WALK);
        s.more = {};
        s.pods.set('user', user());
        s.relabel((labels) => {
          delete labels[MANAGED];
        });
        s.pass(2);
      }),
  'a driver that others install, and nobody watches': () =>
    story(externalDriver())
      .so('a first walk', (s) => s.pass(12))
      .so('from now on its pods are watched, and there is none', (s) => {
        s.policy = externalDriver(SELECTOR);
        s.pass(3);
      })
      .so('there is one', (s) => {
        s.pods.set('theirs', external('theirs'));
        s.pass(6);
      })
      .so('it is managed by the policy', (s) => {
        s.policy = aPolicy(spec);
        s.pass(3);
      })
      .so('a person asks for that', (s) => {
        retry(s);
        s.pass(20);
      }),
  'a managed driver becomes another’s': () =>
    validated()
      .so('the policy says so', (s) => {
        s.policy = externalDriver();
        s.pass(3);
      })
      .so('the driver restarts, and a person asks for what the policy says', (s) => {
        s.broken['device-plugin'] = {};
        s.start('device-plugin');
        s.pass(60, 10 * S);
        retry(s);
        s.pass(12);
        s.broken = {};
        s.pass(30, 10 * S);
      }),
  'other policies select the node too': () =>
    story()
      .so('while it walks', (s) => {
        s.more = { conflicts: ['blue', 'green'] };
        s.pass(20);
      })
      .so('no more', (s) => {
        s.more = {};
        s.pass(2);
      }),
  'no policy selects the node any more': () =>
    validated()
      .so('for a moment', (s) => {
        s.more = { policy: undefined };
        s.pass(3);
        s.more = {};
        s.pass(3);
      })
      .so('for good, with a GPU pod on it', (s) => {
        s.more = { policy: undefined };
        s.pods.set('user', user());
        s.pass(8, MINUTE);
      })
      .so('its driver restarts', (s) => {
        s.start('driver');
        s.pass(2);
      })
      .so('the GPU pod ends', (s) => {
        s.pods.delete('user');
        s.pass(12);
      })
      .so('a policy selects it', (s) => {
        s.more = {};
        s.pass(20);
      }),
  'no policy selects a node from the start': () =>
    story().so('opted in', (s) => {
      s.more = { policy: undefined };
      s.pass(3);
    }),
  'the policy is deleted': () =>
    validated().so('it is on its way out', (s) => {
      s.policy = aPolicy(spec, {
        metadata: { name: 'default', uid: 'policy-uid', generation: 1, deletionTimestamp: '2026-11-24T10:00:00Z' },
      });
      s.pass(12);
    }),
  'the policy is suspended': () => {
    const s = reaching('driver');
    return s
      .so('in the middle of a first walk', (one) => {
        one.policy = aPolicy({ ...spec, suspend: true });
        one.pass(4);
      })
      .so('no more', (one) => {
        one.policy = aPolicy(spec);
        one.broken = {};
        one.pass(12);
      });
  },
  'a GPU pod comes past the gate while the driver is being replaced': () =>
    validated()
      .so('the policy names another driver, and a person asks for it', (s) => {
        s.policy = newDriver;
        s.validationsFail = true;
        s.start('driver');
        s.pass(8);
        retry(s);
        s.pass(1);
      })
      .so('a GPU pod is there', (s) => {
        s.pods.set('user', user());
        s.pass(3);
      })
      .so('two are', (s) => {
        s.pods.set('user-2', user('user-2'));
        s.pass(2);
      })
      .so('they end', (s) => {
        s.pods.delete('user');
        s.pods.delete('user-2');
        s.validationsFail = false;
        s.pass(14);
      }),
  'a component is not rendered yet': () =>
    story()
      .so('no DaemonSet of the toolkit', (s) => {
        const { toolkit: _, ...revisions } = s.input().revisions;
        s.more = { revisions };
        s.pass(3);
      })
      .so('there is one', (s) => {
        s.more = {};
        s.pass(3);
      }),
  'validations go by another scheduler': () =>
    story(aPolicy({ ...spec, injection: { schedulerName: 'gpu-scheduler' } })).so('opted in', (s) => s.pass(8)),
};

const others: Readonly<Record<string, () => Story>> = {
  'the node is opted out': () =>
    validated()
      .so('with four GPU pods on it', (s) => {
        for (const name of ['a', 'b', 'c', 'd']) s.pods.set(name, user(name, 1));
        s.relabel((labels) => {
          delete labels[MANAGED];
        });
        s.pass(3);
      })
      .so('one is left', (s) => {
        for (const name of ['a', 'b', 'c']) s.pods.delete(name);
        s.pass(2);
      })
      .so('its driver restarts', (s) => {
        s.start('driver');
        s.pass(2);
      })
      .so('none is left', (s) => {
        s.pods.delete('d');
        s.pass(12);
      }),
  'the node is opted out in the middle of a walk': () => {
    const s = reaching('driver-validation');
    return s.so('opted out', (one) => {
      one.relabel((labels) => {
        labels[MANAGED] = 'false';
      });
      one.pass(12);
    });
  },
  'the node is opted out with what others left on it': () =>
    validated()
      .so('it was woken, it has rebooted, and validation pods of another node are about', (s) => {
        s.annotate('gpu-gate.dev/wake', '1');
        s.reboot('boot-2');
        s.pods.set('other', keptPod({ name: 'other', uid: 'other', validates: 'other-node', nodeName: 'm' }));
        s.relabel((labels) => {
          delete labels[MANAGED];
        });
        s.pass(5);
      })
      .so('its validation pods are on their way out', (s) => {
        for (const [name, pod] of s.pods)
          if (pod.validates === 'node-uid') s.pods.set(name, { ...pod, deleting: true });
        s.pass(2);
        for (const [name, pod] of s.pods) if (pod.deleting) s.pods.delete(name);
        s.pass(3);
      }),
  'the node is opted out before anything was deployed, with a GPU pod on it': () =>
    story().so('opted in and out', (s) => {
      s.slotFree = false;
      s.pass(1);
      s.pods.set('user', user());
      s.relabel((labels) => {
        delete labels[MANAGED];
      });
      s.pass(4);
    }),
  'a validation that failed is removed by hand': () => {
    const s = reaching('driver-validation');
    return s
      .so('it has failed', (one) => {
        validationsEnd(one, {
          phase: 'Failed',
          containers: [container({ state: { terminated: { exitCode: 1, message: verdict(false, 'no device') } } })],
        });
        one.pass(2);
      })
      .so('its pod is gone, in the backoff', (one) => {
        for (const [name, pod] of one.pods) if (pod.validates !== undefined) one.pods.delete(name);
        one.pass(2);
      })
      .so('the backoff is over', (one) => one.pass(5, 10 * S));
  },
  'a validation that was bound at once': () => {
    const s = reaching('driver-validation');
    return s.so('bound, its clock runs from then on', (one) => {
      const at = new Date(one.now + 30 * S).toISOString();
      validationsEnd(one, {
        phase: 'Pending',
        nodeName: 'n',
        conditions: [
          { type: 'Initialized', status: 'True' },
          { type: 'PodScheduled', status: 'True', lastTransitionTime: at },
        ],
      });
      one.pass(9, MINUTE);
    });
  },
  'a validation that is not scheduled, without a reason': () => {
    const s = reaching('driver-validation');
    return s.so('not bound', (one) => {
      validationsEnd(one, {
        phase: 'Pending',
        conditions: [{ type: 'PodScheduled', status: 'False', reason: 'SchedulerError' }],
      });
      one.pass(2);
    });
  },
  'a node with labels of ours and no walk': () =>
    story().so('a driver’s label of an earlier life', (s) => {
      s.relabel((labels) => {
        labels[`${DEPLOY_PREFIX}driver`] = '0123456789';
      });
      s.pass(6);
    }),
  'the opt-in is misspelt': () =>
    story(undefined, { [MANAGED]: 'Yes' })
      .so('a first look', (s) => s.pass(2))
      .so('a node that is left in a wrong spelling', (s) => {
        s.relabel((labels) => {
          labels[MANAGED] = 'true';
        });
        s.settle();
        s.relabel((labels) => {
          labels[MANAGED] = 'TRUE';
        });
        s.pass(12);
      }),
  'the node is being deleted': () =>
    validated().so('it has a time of deletion', (s) => {
      s.node = { ...s.node, metadata: { ...s.node.metadata, deletionTimestamp: '2026-11-24T10:00:00Z' } };
      s.start('driver');
      s.pass(3);
    }),
  'marks are removed by hand': () =>
    validated()
      .so('each deploy label', (s) => {
        strip(s, ...['toolkit', 'driver', 'device-plugin', 'dcgm-exporter'].map((name) => DEPLOY_PREFIX + name));
        s.pass(4);
      })
      .so('the walk', (s) => {
        strip(s, WALK);
        s.pass(6);
      })
      .so('the proof', (s) => {
        strip(s, PROOF);
        s.pass(6);
      })
      .so('the state', (s) => {
        strip(s, STATE);
        s.pass(4);
      })
      .so('walk and proof', (s) => {
        strip(s, WALK, PROOF);
        s.pass(8);
      })
      .so('all labels of ours, and the opt-in', (s) => {
        s.relabel((labels) => {
          for (const key of Object.keys(labels)) if (key.startsWith('gpu-gate.dev/')) delete labels[key];
        });
        s.pass(8);
      }),
  'the walk is forgotten on another boot': () =>
    validated().so('it is stripped while the node reboots', (s) => {
      strip(s, WALK);
      s.reboot('boot-2');
      retry(s, 'before');
      s.pass(4);
    }),
  'another label is written by hand': () =>
    validated().so('the driver’s revision', (s) => {
      s.relabel((labels) => {
        labels[`${DEPLOY_PREFIX}driver`] = '0123456789';
      });
      s.pass(10);
    }),
  'a pod of another revision is in the way': () =>
    story().so('a driver of an earlier life', (s) => {
      s.pods.set(
        'old',
        keptPod({
          name: 'old',
          uid: 'old',
          controller: { kind: 'DaemonSet', uid: 'ds-old' },
          labels: { [COMPONENT]: 'driver', 'gpu-gate.dev/revision': 'fedcba9876' },
        }),
      );
      s.pass(8);
      s.pods.delete('old');
      s.pass(3);
    }),
  'another installer comes': () =>
    validated()
      .so('it marks the driver and virtual machines', (s) => {
        s.relabel((labels) => {
          labels['nvidia.com/gpu.deploy.driver'] = 'true';
          labels['nvidia.com/gpu.deploy.operator-validator'] = 'true';
          labels['nvidia.com/gpu.deploy.vfio-manager'] = 'true';
          labels['nvidia.com/gpu.deploy.device-plugin'] = 'false';
          labels['nvidia.com/gpu.deploy.dcgm-exporter'] = '';
        });
        s.pass(3);
      })
      .so('the driver is pre-installed', (s) => {
        s.relabel((labels) => {
          labels['nvidia.com/gpu.deploy.driver'] = 'pre-installed';
        });
        s.pass(3);
      })
      .so('it is gone', (s) => {
        s.relabel((labels) => {
          for (const key of Object.keys(labels)) if (key.startsWith('nvidia.com/gpu.deploy.')) delete labels[key];
        });
        s.pass(3);
      }),
  ...Object.fromEntries(
    [
      ['a driver', { 'nvidia.com/gpu.deploy.driver': 'true' }],
      ['a driver that is pre-installed', { 'nvidia.com/gpu.deploy.driver': 'pre-installed' }],
      ['a toolkit', { 'nvidia.com/gpu.deploy.container-toolkit': 'true' }],
      ['something that we do not know', { 'nvidia.com/gpu.deploy.operator-validator': 'true' }],
      ['labels that are off', { 'nvidia.com/gpu.deploy.driver': 'false', 'nvidia.com/gpu.deploy.mig-manager': '' }],
      ['virtual machines', { 'nvidia.com/gpu.workload.config': 'vm-passthrough' }],
      ['containers', { 'nvidia.com/gpu.workload.config': 'container' }],
      ['a sandbox plugin', { 'nvidia.com/gpu.deploy.sandbox-device-plugin': 'true' }],
      [
        'an image for another release',
        {
          'feature.node.kubernetes.io/system-os_release.ID': 'ubuntu',
          'feature.node.kubernetes.io/system-os_release.VERSION_ID': '22.04',
        },
      ],
    ].map(([what, labels]) => [
      `a first walk beside ${what as string}`,
      () => story(undefined, labels as Record<string, string>).so('opted in', (s) => s.pass(3)),
    ]),
  ),
  'a first walk where GPUs are offered already': () => {
    const s = story();
    offers(s, { allocatable: { 'nvidia.com/gpu': '8' } });
    return s.so('opted in', (one) => one.pass(3));
  },
  'a first walk beside another’s exporter and a driver of theirs': () =>
    story(externalDriver(), { 'nvidia.com/gpu.deploy.operator-validator': 'true' }).so('opted in', (s) => s.pass(3)),
  'why a pod does not come': () => {
    const s = reaching('driver');
    s.broken['driver'] = { containers: [] };
    return s
      .so('its mount fails', (one) => {
        one.more = { troubles: new Map([[one.pods.get('driver-pod')?.uid ?? '', 'FailedMount: not a directory']]) };
        one.pass(8);
      })
      .so('its container has started', (one) => {
        one.broken['driver'] = { containers: [container({ state: { running: {} } })] };
        one.pass(8);
      });
  },
};

const clocks: Readonly<Record<string, () => Story>> = {
  'the clock goes back an hour': () => {
    const s = story();
    s.broken['driver'] = {};
    return s
      .so('the driver hangs until its time is over', (one) => one.pass(10, 10 * S))
      .so('another leader, whose clock is an hour behind', (one) => {
        one.takeOver(-HOUR);
        one.pass(20, 10 * S);
      });
  },
  'the clock goes back years, in the middle of a backoff': () => {
    const s = story();
    s.broken['driver'] = {};
    return s
      .so('the driver hangs until its time is over', (one) => {
        one.pass(8, 10 * S);
      })
      .so('another leader, whose clock is three minutes behind', (one) => {
        one.takeOver(-3 * MINUTE);
        one.pass(3, S);
      });
  },
  'the clock goes back while the first label is awaited': () =>
    story()
      .so('no label of NFD', (s) => {
        strip(s, NFD);
        s.relabel((labels) => {
          labels['feature.node.kubernetes.io/cpu-model.id'] = '1';
        });
        s.pass(2, MINUTE);
      })
      .so('another leader, whose clock is an hour behind', (s) => {
        s.takeOver(-HOUR);
        s.pass(3, MINUTE);
      }),
  'the clock goes forward an hour': () => {
    const s = story();
    s.broken['driver'] = {};
    return s
      .so('the driver is waited for', (one) => one.pass(5, 10 * S))
      .so('another leader, whose clock is an hour ahead', (one) => {
        one.takeOver(HOUR);
        one.pass(12, 10 * S);
      });
  },
  'the clock goes back while much is being timed': () =>
    validated()
      .so('not Ready, without NFD’s label, on another boot', (s) => {
        s.reboot('boot-2');
        s.ready('False');
        strip(s, NFD);
        s.pass(3, 10 * S);
      })
      .so('another leader, whose clock is an hour behind', (s) => {
        s.takeOver(-HOUR);
        s.pass(3, 10 * S);
      })
      .so('Ready, and labelled', (s) => {
        s.ready('True');
        s.relabel((labels) => {
          labels[NFD] = 'true';
        });
        s.pass(10, 20 * S);
      }),
  'the clock goes back while no policy selects the node': () =>
    validated()
      .so('no policy', (s) => {
        s.more = { policy: undefined };
        s.pass(2, MINUTE);
      })
      .so('another leader, whose clock is an hour behind', (s) => {
        s.takeOver(-HOUR);
        s.pass(2, MINUTE);
      })
      .so('a policy', (s) => {
        s.more = {};
        s.pass(2);
      }),
};

/** Stories by file and name. */
export const STORIES: Readonly<Record<string, Readonly<Record<string, () => Story>>>> = {
  'first-walks': inOrder,
  troubles: ended,
  'after-validation': afterwards,
  'policy-changes': changed,
  'other-writers': others,
  clocks,
};
