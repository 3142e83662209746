// `explain POD`: reads pod, nodes and policies with the caller's own kubeconfig and prints the
// gate's verdicts.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { DEVICE_WATCHES, NO_DEVICES, wantedClaims, type Devices } from '../gate/devices.ts';
import type { RawPod } from '../gate/gpu-request.ts';
import { POLICIES_PATH } from '../core/keys.ts';
import { printable, printableJson } from '../core/printable.ts';
import type { NodeView } from '../gate/node-proof.ts';
import { explanationText } from './table.ts';
import { explainPod } from './explanation.ts';
import { isNotFound, openKube, type Kube } from '../platform/kube.ts';
import { explainError } from '../platform/log.ts';
import { sentenceOf as errorSentence } from '../platform/sentence.ts';
import type { ExplainArgs } from './args.ts';

/** The objects that the webhook decides by. */
export interface WebhookFacts {
  readonly policies: ReadonlyMap<string, GpuPolicy>;
  readonly runtimeClasses: ReadonlyMap<
    string,
    { readonly handler?: string; readonly nodeSelector: Readonly<Record<string, string>> }
  >;
  readonly devices: Devices;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly excludedNamespaces: ReadonlySet<string>;
}

/** What the webhook decides, as far as it is explained. */
export type WebhookDecision =
  | { readonly kind: 'leave'; readonly reason: string }
  | { readonly kind: 'refuse'; readonly because: string }
  | { readonly kind: 'inject'; readonly injected: readonly string[]; readonly policy: string };

export interface ExplainDeps {
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
  /** The webhook's own rules. */
  readonly decide: (pod: RawPod, facts: WebhookFacts) => WebhookDecision;
}

/** Prints the explanation, or to `complain` why there is none; returns the exit code. */
export async function explain(args: ExplainArgs, { print, complain, decide }: ExplainDeps): Promise<number> {
  try {
    const kube = await openKube({ kubeconfig: args.kubeconfigs, userAgent: 'gpu-gate-explain' });
    const namespace = args.manifest?.metadata?.namespace ?? args.namespace ?? kube.namespace;
    // The pod before all nodes: where it cannot be read, that is the error to tell.
    const pod =
      args.manifest ??
      (await kube.request<RawPod>(
        'GET',
        `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(args.pod)}`,
      ));
    const nodes = await kube.request<{ items: NodeView[] }>('GET', '/api/v1/nodes', { timeoutMs: 60_000 });
    const policies = await kube.request<{ items: unknown[] }>('GET', POLICIES_PATH);
    const { devices, unread } = await devicesFor(kube, namespace, pod);
    const byName = new Map(policies.items.map(parsePolicy).map((policy) => [policy.name, policy]));
    const explanation = explainPod({
      pod,
      nodes:
        args.whyNot === undefined ? nodes.items : nodes.items.filter(({ metadata }) => metadata.name === args.whyNot),
      policies: byName,
      devices,
      unread,
      operandNamespace: args.operandNamespace,
      webhookWould: await webhookWould(kube, decide, { ...args, namespace }, pod, { policies: byName, devices }),
    });
    print(args.output === 'json' ? `${printableJson(explanation)}\n` : explanationText(explanation));
    return 0;
  } catch (error) {
    complain(
      isNotFound(error)
        ? `not found: ${printable(explainError(error))}; check the pod's name, its namespace (-n), and that gpu-gate is installed\n`
        : `${printable(errorSentence(error))}\n`,
    );
    return 1;
  }
}

interface Listed {
  readonly items: readonly { readonly metadata: { readonly name: string; readonly namespace?: string } }[];
}

/**
 * Classes, and the claims of the pod's namespace if it has claims. A person may not be allowed to
 * read them, and a cluster may not have them.
 */
async function devicesFor(
  kube: Kube,
  namespace: string,
  pod: RawPod,
): Promise<{ readonly devices: Devices; readonly unread: readonly string[] }> {
  const unread: string[] = [];
  const read = async <T>(path: string, trim: (raw: unknown) => T): Promise<ReadonlyMap<string, T>> => {
    try {
      const { items } = await kube.request<Listed>('GET', path);
      return new Map(
        items.map((item) => {
          const { name, namespace: within } = item.metadata;
          return [within === undefined ? name : `${within}/${name}`, trim(item)];
        }),
      );
    } catch (error) {
      if (!isNotFound(error)) unread.push(`not read: ${explainError(error)}`);
      return new Map();
    }
  };
  const within = (path: string): string => {
    const at = path.lastIndexOf('/');
    return `${path.slice(0, at)}/namespaces/${encodeURIComponent(namespace)}${path.slice(at)}`;
  };
  const { classes, claims, templates } = DEVICE_WATCHES;
  const hasClaims = wantedClaims(pod.spec, pod.status).length > 0;
  const [byClass, byClaim, byTemplate] = await Promise.all([
    read(classes.path, classes.trim),
    hasClaims ? read(within(claims.path), claims.trim) : NO_DEVICES.claims,
    hasClaims ? read(within(templates.path), templates.trim) : NO_DEVICES.templates,
  ]);
  return { devices: { classes: byClass, claims: byClaim, templates: byTemplate }, unread };
}

/**
 * What the webhook would do with a pod like this one. Leaves out the node that the scheduler chose
 * since.
 */
async function webhookWould(
  kube: Kube,
  decide: ExplainDeps['decide'],
  args: ExplainArgs & { readonly namespace: string },
  pod: RawPod,
  known: Pick<WebhookFacts, 'policies' | 'devices'>,
): Promise<string> {
  try {
    const [namespace, classes] = await Promise.all([
      kube.request<{ metadata: { labels?: Record<string, string> } }>(
        'GET',
        `/api/v1/namespaces/${encodeURIComponent(args.namespace)}`,
      ),
      kube.request<{
        items: {
          metadata: { name: string };
          handler?: string;
          scheduling?: { nodeSelector?: Record<string, string> };
        }[];
      }>('GET', '/apis/node.k8s.io/v1/runtimeclasses'),
    ]);
    const { nodeName: _, ...spec } = pod.spec ?? {};
    return sentenceOf(
      decide(
        { ...pod, spec },
        {
          ...known,
          runtimeClasses: new Map(
            classes.items.map((item) => [
              item.metadata.name,
              { handler: item.handler ?? '', nodeSelector: item.scheduling?.nodeSelector ?? {} },
            ]),
          ),
          namespaceLabels: namespace.metadata.labels ?? {},
          namespace: args.namespace,
          excludedNamespaces: new Set([args.ownNamespace, args.operandNamespace, ...args.excludedNamespaces]),
        },
      ),
    );
  } catch (error) {
    return `what it would do is not known: ${explainError(error)}`;
  }
}

const sentenceOf = (admission: WebhookDecision): string => {
  switch (admission.kind) {
    case 'leave':
      return `it would be left as it is (${admission.reason})`;
    case 'refuse':
      return `it would be refused: ${admission.because}`;
    case 'inject':
      return `it would get ${admission.injected.join(', ') || 'nothing'} by policy ${admission.policy}`;
  }
};
