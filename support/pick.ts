// Objects of the API → what of them goes into a bundle. Each field is named here. What is not
// named stays where it is. Pure.
import { GPU_VALIDATED, NODE_VALIDATED, OUR_PREFIX, PART_OF, PRODUCT, STARTUP_TAINT } from '../core/keys.ts';
import { list, object, text, type Raw } from '../core/raw.ts';
import { occupied, wantsOf } from '../gate/gpu-request.ts';

const pick = (from: unknown, ...keys: readonly string[]): Raw =>
  Object.fromEntries(keys.flatMap((key) => (object(from)[key] === undefined ? [] : [[key, object(from)[key]]])));
const ours = (map: unknown): Raw =>
  Object.fromEntries(Object.entries(object(map)).filter(([key]) => key.startsWith(OUR_PREFIX)));
const gpus = (map: unknown): Raw =>
  Object.fromEntries(Object.entries(object(map)).filter(([key]) => key.startsWith('nvidia.com/')));
const conditions = (raw: unknown, types?: readonly string[]): readonly Raw[] =>
  list<unknown>(raw)
    .filter((one) => types === undefined || types.includes(text(object(one)['type'], '')))
    .map((one) => pick(one, 'type', 'status', 'reason', 'message', 'lastTransitionTime'));

const carriesOurs = (map: unknown): boolean => Object.keys(ours(map)).length > 0;

/** Does the Node carry anything of gpu-gate's? */
export function isOurNode(raw: unknown): boolean {
  const { metadata, spec, status } = object(raw);
  return (
    carriesOurs(object(metadata)['labels']) ||
    carriesOurs(object(metadata)['annotations']) ||
    list<unknown>(object(spec)['taints']).some((taint) => object(taint)['key'] === STARTUP_TAINT) ||
    conditions(object(status)['conditions'], [GPU_VALIDATED]).length > 0
  );
}

/** Our labels, annotations, condition and taint; what the kubelet says of the machine. */
export function nodeOf(raw: unknown): Raw {
  const { metadata, spec, status } = object(raw);
  return {
    ...pick(metadata, 'name', 'uid', 'creationTimestamp', 'deletionTimestamp'),
    labels: ours(object(metadata)['labels']),
    annotations: ours(object(metadata)['annotations']),
    unschedulable: object(spec)['unschedulable'] === true,
    taints: list<unknown>(object(spec)['taints']).filter((taint) => object(taint)['key'] === STARTUP_TAINT),
    conditions: conditions(object(status)['conditions'], ['Ready', GPU_VALIDATED]),
    capacity: gpus(object(status)['capacity']),
    allocatable: gpus(object(status)['allocatable']),
    machine: pick(
      object(status)['nodeInfo'],
      'bootID',
      'kernelVersion',
      'osImage',
      'containerRuntimeVersion',
      'kubeletVersion',
      'architecture',
    ),
  };
}

const deviceTaint = (raw: unknown): Raw => pick(raw, 'key', 'value', 'effect', 'timeAdded');

/** A ResourceSlice: whose devices, and what is said against them. Attributes are not shown. */
export function sliceOf(raw: unknown): Raw {
  const { metadata, spec } = object(raw);
  return {
    ...pick(metadata, 'name', 'creationTimestamp'),
    ...pick(spec, 'driver', 'nodeName'),
    pool: pick(object(spec)['pool'], 'name', 'generation', 'resourceSliceCount'),
    devices: list<unknown>(object(spec)['devices']).map((device) => ({
      ...pick(device, 'name'),
      taints: list<unknown>(object(device)['taints']).map(deviceTaint),
    })),
  };
}

/** A DeviceTaintRule, of gpu-gate or of others. */
export function taintRuleOf(raw: unknown): Raw {
  const { metadata, spec } = object(raw);
  return {
    ...pick(metadata, 'name', 'creationTimestamp'),
    selector: pick(object(spec)['deviceSelector'], 'driver', 'pool', 'device'),
    taint: deviceTaint(object(spec)['taint']),
  };
}

const stateOf = (raw: unknown): Raw =>
  Object.fromEntries(
    Object.entries(object(raw)).map(([name, state]) => [
      name,
      pick(state, 'reason', 'message', 'exitCode', 'signal', 'startedAt', 'finishedAt'),
    ]),
  );
const containers = (raw: unknown): readonly Raw[] =>
  list<unknown>(raw).map((one) => ({
    ...pick(one, 'name', 'image', 'ready', 'restartCount'),
    state: stateOf(object(one)['state']),
    lastState: stateOf(object(one)['lastState']),
  }));

/** Our own pods, operands and validation pods: states and messages, no command and no variable. */
export function ownPodOf(raw: unknown): Raw {
  const { metadata, spec, status } = object(raw);
  return {
    ...pick(metadata, 'namespace', 'name', 'uid', 'creationTimestamp', 'deletionTimestamp'),
    labels: {
      ...ours(object(metadata)['labels']),
      ...pick(object(metadata)['labels'], 'app.kubernetes.io/component', 'app.kubernetes.io/version'),
    },
    ...pick(spec, 'nodeName'),
    ...pick(status, 'phase', 'reason', 'message', 'startTime'),
    conditions: conditions(object(status)['conditions']),
    containers: containers(object(status)['containerStatuses']),
    initContainers: containers(object(status)['initContainerStatuses']),
  };
}

/** Users' pods that ask for GPUs: who asks for how many, and what scheduler and gate say. */
export function userPodOf(raw: unknown): Raw | undefined {
  const { metadata, spec, status } = object(raw);
  const labels = object(object(metadata)['labels']);
  const asked = occupied(wantsOf(object(raw), ''));
  if (labels[PART_OF] === PRODUCT || (Object.keys(asked).length === 0 && !carriesOurs(labels))) return undefined;
  return {
    ...pick(metadata, 'namespace', 'name', 'uid', 'creationTimestamp', 'deletionTimestamp'),
    labels: ours(labels),
    annotations: ours(object(metadata)['annotations']),
    gpus: asked,
    ...pick(spec, 'nodeName', 'schedulerName', 'runtimeClassName', 'priority'),
    ...pick(status, 'phase', 'reason'),
    conditions: conditions(object(status)['conditions'], ['PodScheduled', 'Ready', NODE_VALIDATED]),
  };
}

/** Names of variables without what they hold. */
const names = (env: unknown): readonly string[] => list<unknown>(env).map((one) => text(object(one)['name'], ''));

/** Variables that are options of gpu-gate say what they are set to. */
const options = (env: unknown): Raw =>
  Object.fromEntries(
    list<unknown>(env)
      .map(object)
      .map(({ name, value }) => [
        text(name, ''),
        text(name, '').startsWith('GPU_GATE_') ? text(value, '') : '[not shown]',
      ]),
  );

/** One of our Deployments or DaemonSets: images, options, how many pods it has. */
export function workloadOf(raw: unknown): Raw {
  const { kind, metadata, spec, status } = object(raw);
  const template = object(object(object(spec)['template'])['spec']);
  return {
    ...(kind === undefined ? {} : { kind }),
    ...pick(metadata, 'name', 'creationTimestamp', 'deletionTimestamp', 'generation'),
    labels: ours(object(metadata)['labels']),
    ...pick(spec, 'replicas'),
    containers: [...list<unknown>(template['initContainers']), ...list<unknown>(template['containers'])].map((one) => ({
      ...pick(one, 'name', 'image', 'args', 'resources'),
      env: options(object(one)['env']),
    })),
    status: pick(
      status,
      'observedGeneration',
      'replicas',
      'readyReplicas',
      'updatedReplicas',
      'desiredNumberScheduled',
      'currentNumberScheduled',
      'numberReady',
      'numberUnavailable',
    ),
    conditions: conditions(object(status)['conditions']),
  };
}

/** A GPUPolicy whole, but for what variables hold. */
export function policyOf(raw: unknown): Raw {
  const { metadata, spec, status } = object(raw);
  const without = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(without)
      : typeof value === 'object' && value !== null
        ? Object.fromEntries(
            Object.entries(value).map(([key, inner]) => [key, key === 'env' ? names(inner) : without(inner)]),
          )
        : value;
  return {
    ...pick(metadata, 'name', 'uid', 'generation', 'creationTimestamp', 'deletionTimestamp', 'finalizers'),
    annotations: ours(object(metadata)['annotations']),
    spec: without(spec),
    status,
  };
}

/** What happened, to which object. */
export function eventOf(raw: unknown): Raw {
  const event = object(raw);
  return {
    at: event['lastTimestamp'] ?? event['eventTime'] ?? object(event['metadata'])['creationTimestamp'],
    ...pick(event, 'type', 'reason', 'message', 'count'),
    about: pick(event['involvedObject'], 'kind', 'namespace', 'name'),
    by: text(object(event['source'])['component'], text(event['reportingComponent'], '')),
  };
}

/** The webhook's configuration without its certificates. */
export const webhookOf = (raw: unknown): Raw => ({
  ...pick(object(raw)['metadata'], 'name', 'creationTimestamp'),
  webhooks: list<unknown>(object(raw)['webhooks']).map((one) => ({
    ...pick(one, 'name', 'failurePolicy', 'timeoutSeconds', 'namespaceSelector', 'objectSelector', 'rules'),
    hasCa: text(object(object(one)['clientConfig'])['caBundle'], '') !== '',
  })),
});
