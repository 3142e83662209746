// Policy → DaemonSet, one per component and revision. Pure. The revision is a digest of what the
// pods will be, so that the same rendering by another gpu-gate is the same revision, and a policy
// edit makes a new one only where pods differ.
import { canonical, digestOf } from '../../core/digest.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { COMPONENT, DEPLOY_PREFIX, MANAGED_BY, PART_OF, PRODUCT, RENDERED, REVISION } from '../../core/keys.ts';
import { POD_COMPONENT, type Component } from '../../core/components.ts';
import type { Manifest } from '../actions.ts';
import { dcgmExporter } from './dcgm-exporter.ts';
import { devicePlugin } from './device-plugin.ts';
import { draDriver } from './dra-driver.ts';
import { driver } from './driver.ts';
import { featureDiscovery } from './feature-discovery.ts';
import { toolkit } from './toolkit.ts';

export interface OperandContext {
  readonly namespace: string;
}

export interface Rendered {
  readonly component: Component;
  readonly revision: string;
  /** Digest of the whole DaemonSet, as its annotation says. */
  readonly digest: string;
  readonly daemonSet: Manifest;
}

/** The part of a pod that components differ in; everything shared is put around it here. */
type PodSpec = Readonly<Record<string, unknown>>;
const RENDER: Readonly<Record<Component, (policy: GpuPolicy) => PodSpec>> = {
  toolkit,
  driver,
  'device-plugin': devicePlugin,
  'dra-driver': draDriver,
  'dcgm-exporter': dcgmExporter,
  'feature-discovery': featureDiscovery,
};

/** Those that call the API server. */
const ACCOUNTS: Readonly<Partial<Record<Component, string>>> = {
  driver: 'gpu-gate-driver',
  'dra-driver': 'gpu-gate-dra-driver',
};

const revisionOf = (value: unknown): string => digestOf(JSON.stringify(canonical(value)), 10);

/**
 * A container that ends badly leaves the end of its log in the pod's status: there the reason is
 * read, with no permission on logs.
 */
const withLastWords = (containers: unknown): readonly object[] =>
  (containers as readonly object[]).map((container) => ({
    ...container,
    terminationMessagePolicy: 'FallbackToLogsOnError',
  }));

/** The DaemonSet of a component as the policy wants it now. */
export function renderOperand(component: Component, policy: GpuPolicy, context: OperandContext): Rendered {
  const parts = RENDER[component](policy);
  const podSpec = {
    ...parts,
    ...(parts['initContainers'] === undefined ? {} : { initContainers: withLastWords(parts['initContainers']) }),
    containers: withLastWords(parts['containers']),
    tolerations: [{ operator: 'Exists' }],
    priorityClassName: 'system-node-critical',
    automountServiceAccountToken: ACCOUNTS[component] !== undefined,
    ...(ACCOUNTS[component] === undefined ? {} : { serviceAccountName: ACCOUNTS[component] }),
  };
  const revision = revisionOf({ component, podSpec });
  const podComponent = POD_COMPONENT[component];
  const labels = { [PART_OF]: PRODUCT, [COMPONENT]: podComponent, [REVISION]: revision };
  const template = {
    metadata: { labels },
    spec: { ...podSpec, nodeSelector: { [DEPLOY_PREFIX + component]: revision } },
  };
  const spec = {
    selector: { matchLabels: { [COMPONENT]: podComponent, [REVISION]: revision } },
    // A hand edit, or putting it back, must restart nothing: pods change only with the node's
    // label.
    updateStrategy: { type: 'OnDelete' },
    template,
  };
  const digest = revisionOf(spec);
  return {
    component,
    revision,
    digest,
    daemonSet: {
      apiVersion: 'apps/v1',
      kind: 'DaemonSet',
      metadata: {
        name: `${podComponent}-${revision}`,
        namespace: context.namespace,
        labels: { ...labels, [MANAGED_BY]: PRODUCT },
        annotations: { [RENDERED]: digest },
      },
      spec,
    },
  };
}
