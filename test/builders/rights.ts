// The audit of rights: what an account may do, as the API server itself answers, against what it
// called, as the API server's audit log has it.
import { readFileSync } from 'node:fs';
import type { Cluster } from '../../lab/cluster/cluster.ts';
import { openKube, type Kube } from '../../platform/kube.ts';

export interface Rule {
  readonly verbs: readonly string[];
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
}
/**
 * One right or one call, such as `elsewhere: patch nodes/status gpu-0`; a right that holds for all
 * names ends with `*`.
 */
export interface Entry {
  readonly where: string;
  readonly what: string;
  readonly name: string;
}
export const text = ({ where, what, name }: Entry): string => `${where}: ${what} ${name}`;

/** Where the chart has Roles; `elsewhere` stands for every other namespace. */
const NAMESPACES = ['gpu-gate', 'gpu-gate-operands', 'default', 'elsewhere'] as const;

const rulesIn = async (kube: Kube, namespace: string): Promise<readonly Rule[]> =>
  (
    await kube.request<{ status: { resourceRules: Rule[] } }>(
      'POST',
      '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews',
      { body: { apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectRulesReview', spec: { namespace } } },
    )
  ).status.resourceRules;
export const entriesOf = (where: string, rules: readonly Rule[]): readonly Entry[] =>
  rules.flatMap(({ verbs, apiGroups, resources, resourceNames = ['*'] }) =>
    verbs.flatMap((verb) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) =>
          resourceNames.map((name) => ({ where, what: `${verb} ${group === '' ? '' : `${group}/`}${resource}`, name })),
        ),
      ),
    ),
  );

/**
 * Everything that an account may do, each right where it begins: cluster-wide ones are not said
 * again for a namespace.
 */
export async function granted(cluster: Cluster, kube: Kube): Promise<readonly Entry[]> {
  const plain = await openKube({
    kubeconfig: await cluster.serviceAccountKubeconfig('elsewhere', 'default'),
    userAgent: 'test',
  });
  const everybody = new Set((await rulesIn(plain, 'elsewhere')).map((rule) => JSON.stringify(rule)));
  const seen = new Set<string>();
  const all: Entry[] = [];
  for (const where of ['elsewhere', ...NAMESPACES.slice(0, -1)]) {
    const rules = (await rulesIn(kube, where)).filter((rule) => !everybody.has(JSON.stringify(rule)));
    for (const entry of entriesOf(where, rules)) {
      const key = `${entry.what} ${entry.name}`;
      if (seen.has(key)) continue;
      if (where === 'elsewhere') seen.add(key);
      all.push(entry);
    }
  }
  return all;
}

interface AuditEvent {
  readonly verb: string;
  readonly user: { readonly username: string };
  readonly objectRef?: {
    readonly resource?: string;
    readonly subresource?: string;
    readonly namespace?: string;
    readonly name?: string;
    readonly apiGroup?: string;
  };
  readonly responseStatus?: { readonly code: number; readonly reason?: string };
  readonly requestURI: string;
}
/** What a user called. */
const eventsOf = (cluster: Cluster, user: string): readonly AuditEvent[] =>
  readFileSync(cluster.auditLog, 'utf8')
    .split('\n')
    .filter((line) => line.includes(user))
    .map((line) => JSON.parse(line) as AuditEvent)
    .filter(({ user: { username } }) => username === user);
export const called = (cluster: Cluster, user: string): readonly Entry[] =>
  eventsOf(cluster, user)
    .filter(({ objectRef }) => objectRef?.resource !== undefined)
    .flatMap(({ verb, responseStatus, objectRef: { resource, subresource, namespace, name, apiGroup } = {} }) =>
      // A server-side apply that makes its object is authorized as a create too.
      (verb === 'patch' && responseStatus?.code === 201 ? ['patch', 'create'] : [verb]).map((each) => ({
        where: namespace ?? '',
        what: `${each} ${apiGroup === undefined ? '' : `${apiGroup}/`}${resource}${subresource === undefined ? '' : `/${subresource}`}`,
        name: name ?? '*',
      })),
    );
/** Calls that were not allowed. */
export const refusedCalls = (cluster: Cluster, user: string): readonly string[] =>
  eventsOf(cluster, user)
    .filter(({ responseStatus }) => responseStatus?.code === 403)
    .map(({ verb, requestURI }) => `${verb} ${requestURI}`);

/** Does the call use the right? A cluster-wide right is used by a call anywhere. */
const uses = (right: Entry, call: Entry): boolean =>
  right.what === call.what &&
  (right.where === 'elsewhere' || right.where === call.where) &&
  (right.name === '*' || right.name === call.name);
export const unused = (rights: readonly Entry[], calls: readonly Entry[]): readonly string[] =>
  [...new Set(rights.filter((right) => !calls.some((call) => uses(right, call))).map(text))].toSorted();
