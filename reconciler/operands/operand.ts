// Policy → DaemonSet, one per component and revision. Pure. The revision is a digest of what the pods will be, so that the
// same rendering by another gpu-gate is the same revision, and a policy edit makes a new one only where pods differ.
import { createHash } from 'node:crypto';
import type { ComponentSpec, EnvVar, GpuPolicy } from '../../core/gpu-policy.ts';
import { COMPONENT, DEPLOY_PREFIX, MANAGED_BY, PART_OF, PRODUCT, RENDERED, REVISION } from '../../core/keys.ts';
import { POD_COMPONENT, type Component } from '../../core/stages.ts';
import type { Manifest } from '../actions.ts';
import { dcgmExporter } from './dcgm-exporter.ts';
import { devicePlugin } from './device-plugin.ts';
import { driver } from './driver.ts';
import { featureDiscovery } from './feature-discovery.ts';
import { toolkit } from './toolkit.ts';

export interface OperandContext {
  readonly namespace: string;
}

export interface Rendered {
  readonly component: Component;
  readonly revision: string;
  readonly daemonSet: Manifest;
}

/** The part of a pod that components differ in; everything shared is put around it here. */
type PodSpec = Readonly<Record<string, unknown>>;
const RENDER: Readonly<Record<Component, (policy: GpuPolicy) => PodSpec>> = {
  toolkit,
  driver,
  'device-plugin': devicePlugin,
  'dcgm-exporter': dcgmExporter,
  'feature-discovery': featureDiscovery,
};

const canonical = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(canonical)
    : typeof value === 'object' && value !== null
      ? Object.fromEntries(
          Object.entries(value)
            .filter(([, inner]) => inner !== undefined)
            .toSorted(([a], [b]) => (a < b ? -1 : 1))
            .map(([key, inner]) => [key, canonical(inner)]),
        )
      : value;

const digestOf = (value: unknown): string => createHash('sha256').update(JSON.stringify(canonical(value))).digest('hex').slice(0, 10);

/** The DaemonSet of a component as the policy wants it now. */
export function renderOperand(component: Component, policy: GpuPolicy, context: OperandContext): Rendered {
  const podSpec = {
    ...RENDER[component](policy),
    tolerations: [{ operator: 'Exists' }],
    priorityClassName: 'system-node-critical',
    automountServiceAccountToken: component === 'driver',
    ...(component === 'driver' ? { serviceAccountName: 'gpu-gate-driver' } : {}),
  };
  const revision = digestOf({ component, podSpec });
  const podComponent = POD_COMPONENT[component];
  const labels = { [PART_OF]: PRODUCT, [COMPONENT]: podComponent, [REVISION]: revision };
  const template = { metadata: { labels }, spec: { ...podSpec, nodeSelector: { [DEPLOY_PREFIX + component]: revision } } };
  const spec = {
    selector: { matchLabels: { [COMPONENT]: podComponent, [REVISION]: revision } },
    // A hand edit, or putting it back, must restart nothing: pods change only with the node's label.
    updateStrategy: { type: 'OnDelete' },
    template,
  };
  return {
    component,
    revision,
    daemonSet: {
      apiVersion: 'apps/v1',
      kind: 'DaemonSet',
      metadata: {
        name: `${podComponent}-${revision}`,
        namespace: context.namespace,
        labels: { ...labels, [MANAGED_BY]: PRODUCT },
        annotations: { [RENDERED]: digestOf(spec) },
      },
      spec,
    },
  };
}

/** `image:version`, unless the policy gives a whole image reference with a tag or digest of its own. */
export function imageOf(spec: ComponentSpec, repository: string, version: string): string {
  const image = spec.image ?? repository;
  if (/@sha256:|:[^/]+$/.test(image)) return image;
  return `${image}:${spec.version ?? version}`;
}

/** Environment of a container: ours, overridden by name with the policy's. */
export function envOf(ours: Readonly<Record<string, string>>, spec: ComponentSpec): readonly EnvVar[] {
  const merged = { ...ours, ...Object.fromEntries(spec.env.map(({ name, value }) => [name, value])) };
  return Object.entries(merged).map(([name, value]) => ({ name, value }));
}

/** Downward-API variable with the node's name. */
export const NODE_NAME = { name: 'NODE_NAME', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'spec.nodeName' } } } as const;

export const pullSecrets = (spec: ComponentSpec): Readonly<Record<string, unknown>> =>
  spec.imagePullSecrets.length === 0 ? {} : { imagePullSecrets: spec.imagePullSecrets.map((name) => ({ name })) };

export const pullPolicy = (spec: ComponentSpec): Readonly<Record<string, unknown>> => ({ imagePullPolicy: spec.imagePullPolicy ?? 'IfNotPresent' });

export const containerExtras = (spec: ComponentSpec): Readonly<Record<string, unknown>> => ({
  ...pullPolicy(spec),
  ...(spec.args.length === 0 ? {} : { args: spec.args }),
  ...(spec.resources === undefined ? {} : { resources: spec.resources }),
});

/** A hostPath volume. */
export const hostPath = (name: string, path: string, type = 'DirectoryOrCreate'): Readonly<Record<string, unknown>> => ({ name, hostPath: { path, type } });
