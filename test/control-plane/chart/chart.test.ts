// What the chart renders for given values, and what it refuses to render and why. `helm template`
// only: nothing runs.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type Server } from 'node:tls';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { OPTIONS, variableOf } from '../../../app/options.ts';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import { COMPONENTS } from '../../../core/components.ts';
import { parsePolicy } from '../../../core/parse-policy.ts';
import { ensureBinaries, fromEnvironment } from '../../../lab/cluster/binaries.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');

interface PodTemplate {
  metadata: { labels: Record<string, string>; annotations?: Record<string, string> };
  spec: Record<string, unknown> & { containers: { image: string; args?: string[]; resources?: object }[] };
}
interface Rendered {
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    annotations?: Record<string, string>;
    labels: Record<string, string>;
  };
  rules?: { resources: string[]; verbs: string[] }[];
  webhooks?: { name: string; matchConditions: { expression: string }[] }[];
  spec?: Record<string, unknown> & {
    template?: PodTemplate;
    groups?: { rules: { alert: string }[] }[];
    matchConditions?: { expression: string }[];
  };
  data?: Record<string, string>;
}

let helm: string;
let helm3: string;
beforeAll(async () => {
  const binaries = await ensureBinaries({ modules: ['tools', 'helm3'], ...fromEnvironment(), say: console.log });
  [helm, helm3] = [binaries('helm'), binaries('helm3')];
});

const template = (
  values: object,
  flags: readonly string[],
  by: string = helm,
): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(
    by,
    ['template', 'gpu-gate', join(ROOT, 'deploy/chart'), '--namespace', 'gpu-gate', '--values', '-', ...flags],
    { encoding: 'utf8', maxBuffer: 16 << 20, input: JSON.stringify(values) },
  );
function render(values: object = {}, ...flags: string[]): readonly Rendered[] {
  const { status, stdout, stderr } = template(values, flags);
  if (status !== 0) throw new Error(stderr);
  return parseAllDocuments(stdout)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);
}
const refusal = (values: object): string => {
  const { status, stderr } = template(values, []);
  return status === 0 ? '' : stderr;
};
const find = (objects: readonly Rendered[], kind: string, name: string): Rendered | undefined =>
  objects.find((object) => object.kind === kind && object.metadata.name === name);
const pods = (objects: readonly Rendered[]): readonly (PodTemplate & { name: string })[] =>
  objects.flatMap(({ kind, metadata, spec }) =>
    kind === 'Deployment' && spec?.template !== undefined ? [{ name: metadata.name, ...spec.template }] : [],
  );
const policy = (spec: object): object => ({ policy: { spec } });

describe('Helm 3', () => {
  const PRESETS = join(ROOT, 'deploy/presets');
  it('is of that version', () => expect(spawnSync(helm3, ['version', '--short']).stdout.toString()).toMatch(/^v3\./));

  it.each(['', ...readdirSync(PRESETS).filter((name) => name.endsWith('.yaml'))])(
    'renders the same objects as Helm 4 with the preset "%s"',
    (preset) => {
      const flags = ['--include-crds', '--kube-version', 'v1.37.2'].concat(
        preset === '' ? [] : ['--values', join(PRESETS, preset)],
      );
      // Kinds that Helm does not know come in another order.
      const [three, four] = [helm3, helm].map((by) => {
        const { status, stdout, stderr } = template({}, flags, by);
        expect(status, stderr).toBe(0);
        return parseAllDocuments(stdout)
          .map((document) => JSON.stringify(document.toJS()))
          .toSorted();
      });
      expect(three).toEqual(four);
      expect(three?.length).toBeGreaterThan(20);
    },
  );

  it('refuses a bad value with the same sentence', () => {
    for (const values of [{ operandNamespace: { name: 'gpu-gate' } }, { replicas: 'two' }]) {
      const [three, four] = [helm3, helm].map((by) => template(values, [], by));
      expect([three?.status, three?.stderr]).toEqual([1, four?.stderr]);
    }
  });
});

describe('options of both Deployments of the program', () => {
  it('the namespaces that the API server never calls us for', () => {
    const objects = render({ webhook: { excludedNamespaces: ['kube-system', 'team'] } });
    for (const name of ['gpu-gate', 'gpu-gate-reconciler']) {
      const { args = [] } = find(objects, 'Deployment', name)?.spec?.template?.spec.containers[0] ?? {};
      expect(args, name).toContain('--excluded-namespaces=kube-system,team');
    }
    expect(JSON.stringify(find(objects, 'MutatingWebhookConfiguration', 'zz-gpu-gate'))).toContain(
      '"values":["kube-system","team","gpu-gate","gpu-gate-operands"]',
    );
  });
});

describe('what an uninstall keeps', () => {
  it.each([
    ['Namespace', 'gpu-gate-operands'],
    ['GPUPolicy', 'default'],
  ])('%s %s', (kind, name) =>
    expect(find(render(), kind, name)?.metadata.annotations?.['helm.sh/resource-policy']).toBe('keep'),
  );
});

describe('the pod of helm test', () => {
  const pod = (): { spec: PodTemplate['spec'] & { containers: { command: string[] }[] } } =>
    find(render(), 'Pod', 'gpu-gate-test') as never;
  /**
   * Runs its program against servers with certificates of these names, at addresses that Services
   * give.
   */
  async function answers(
    webhook: string,
    extender: string,
    addresses = true,
  ): Promise<{ status: number; stderr: string }> {
    const now = Date.now();
    const ca = await issueCa('test', 3_600_000, now);
    const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-helm-test-'));
    writeFileSync(join(dir, 'ca.crt'), ca.cert);
    const env: Record<string, string> = {};
    const servers: Server[] = [];
    for (const [service, name] of [
      ['WEBHOOK', webhook],
      ['EXTENDER', extender],
    ] as const) {
      const leaf = await issueLeaf(ca, { name: 'test', sans: [name], usage: 'server', life: 3_600_000 }, now);
      const server = createServer(leaf, (socket) => socket.on('error', () => undefined));
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      servers.push(server);
      env[`GPU_GATE_${service}_SERVICE_HOST`] = '127.0.0.1';
      env[`GPU_GATE_${service}_SERVICE_PORT`] = String((server.address() as AddressInfo).port);
    }
    onTestFinished(() => {
      for (const server of servers) server.close();
      rmSync(dir, { recursive: true });
    });
    const [container] = pod().spec.containers;
    const program = container?.command[2]?.replace('/etc/gpu-gate/ca', dir) ?? '';
    const child = spawn(process.execPath, ['-e', program], { env: addresses ? env : {} });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const [status] = (await once(child, 'close')) as [number];
    return { status, stderr };
  }
  it('gets the addresses of Services, so that it needs no DNS', () =>
    expect(pod().spec['enableServiceLinks']).toBe(true));
  it('is content with a webhook and an extender of the right names, and with no other', async () => {
    const [webhook, extender] = ['gpu-gate-webhook.gpu-gate.svc', 'gpu-gate-extender.gpu-gate.svc'];
    expect(await answers(webhook, extender)).toEqual({ status: 0, stderr: '' });
    expect(await answers('other.gpu-gate.svc', extender)).toEqual({
      status: 1,
      stderr: 'gpu-gate-webhook serves a certificate of other names: DNS:other.gpu-gate.svc\n',
    });
    expect(await answers(webhook, webhook)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('gpu-gate-extender: Hostname/IP does not match'),
    });
  });
  it('asks by name where it was given no address', async () => {
    const { status, stderr } = await answers('a', 'b', false);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/getaddrinfo \w+ gpu-gate-\w+\.gpu-gate\.svc/)]);
  });
});

describe('the hook of an uninstall', () => {
  const hooks = (values: object): readonly Rendered[] =>
    render(values).filter(({ metadata }) => metadata.annotations?.['helm.sh/hook'] === 'pre-delete');
  const argsOf = (values: object): readonly string[] =>
    find(hooks(values), 'Job', 'gpu-gate-release')?.spec?.template?.spec.containers[0]?.args ?? [];
  it('is a Job with an account and rights that end with it', () => {
    const made = hooks({});
    expect(made.map(({ kind }) => kind).toSorted()).toEqual([
      'ClusterRole',
      'ClusterRoleBinding',
      'Job',
      'Role',
      'Role',
      'RoleBinding',
      'RoleBinding',
      'ServiceAccount',
    ]);
    for (const { metadata } of made)
      expect(metadata.annotations?.['helm.sh/hook-delete-policy']).toBe('before-hook-creation,hook-succeeded');
    // The account comes before the Job.
    for (const { kind, metadata } of made)
      expect(metadata.annotations?.['helm.sh/hook-weight']).toBe(kind === 'Job' ? '0' : '-1');
    expect(render({}).filter(({ metadata }) => metadata.name === 'gpu-gate-release')).toHaveLength(made.length);
  });
  it('ends the Deployment that leads', () => {
    expect(argsOf({})).toContain('--deployment=gpu-gate-reconciler');
    expect(argsOf({ oneProcess: true })).toContain('--deployment=gpu-gate');
  });
  it('refuses under running GPU pods unless the values say otherwise', () => {
    expect(argsOf({})).not.toContain('--force');
    expect(argsOf({ uninstall: { force: true, timeoutSeconds: 60 } })).toEqual(
      expect.arrayContaining(['--force', '--timeout=60s']),
    );
  });
  it.each([
    ['the value says so', { uninstall: { hook: false } }],
    ['gpu-gate runs as processes', { deployments: { create: false } }],
  ])('is not there where %s', (_, values) => expect(hooks(values)).toEqual([]));
});

describe('which pods the API server calls the webhook for', () => {
  const matches = (resources?: string[]): string | undefined =>
    /exists\(k, \((.*?)\) && quantity/.exec(
      find(
        render(resources === undefined ? {} : policy({ resources })),
        'MutatingWebhookConfiguration',
        'zz-gpu-gate',
      )?.webhooks?.[0]?.matchConditions[0]?.expression.replaceAll('\n', ' ') ?? '',
    )?.[1];
  it.each([
    [undefined, "k == 'nvidia.com/gpu' || k == 'nvidia.com/gpu.shared'"],
    [['nvidia.com/mig-*'], "k.startsWith('nvidia.com/mig-')"],
    [['nvidia.com/gpu', 'nvidia.com/mig-*'], "k == 'nvidia.com/gpu' || k.startsWith('nvidia.com/mig-')"],
    [['nvidia.com/mig-1g.10gb'], "k == 'nvidia.com/mig-1g.10gb'"],
  ])('policy.spec.resources %j, and whatever a DeviceClass may map', (resources, clauses) =>
    expect(matches(resources)).toBe(
      `${clauses} || k.startsWith('deviceclass.resource.kubernetes.io/') || (k.contains('/') && !k.contains('kubernetes.io/') && !k.startsWith('nvidia.com/'))`,
    ),
  );
});

describe('which pods are refused for what a tenant may not do', () => {
  const refused = (spec: object): string =>
    find(
      render({ ...policy(spec), tenants: { refuseNodeName: true } }),
      'ValidatingAdmissionPolicy',
      'gpu-gate-tenants',
    )?.spec?.matchConditions?.[0]?.expression.replaceAll('\n', ' ') ?? '';
  it('those that ask for a GPU as far as CEL can tell, and no pod with another vendor’s resource', () => {
    expect(refused({ deviceClasses: ['gpu.nvidia.com'] })).toContain(
      "(k == 'nvidia.com/gpu' || k == 'nvidia.com/gpu.shared' || k == 'deviceclass.resource.kubernetes.io/gpu.nvidia.com')",
    );
    expect(refused({})).not.toContain("contains('/')");
    expect(refusal({ ...policy({ deviceClasses: ["x' || true"] }), tenants: { refuseNodeName: true } })).toContain(
      'is not the name of a DeviceClass',
    );
  });
});

describe('the snippet for the cluster’s own scheduler', () => {
  const snippet = (resources: string[]): string | undefined =>
    find(render(policy({ resources })), 'ConfigMap', 'gpu-gate-scheduler-snippet')?.data?.['extenders.yaml'];
  it('names resources exactly and leaves patterns out', () => {
    const text = snippet(['nvidia.com/gpu', 'nvidia.com/mig-*', 'nvidia.com/mig-1g.10gb']) ?? '';
    expect(text.match(/- \{name: .*\}/g)).toEqual(['- {name: nvidia.com/gpu}', '- {name: nvidia.com/mig-1g.10gb}']);
  });
  it('is not there where only patterns are left, and the chart’s own scheduler does without', () =>
    expect(snippet(['nvidia.com/mig-*'])).toBeUndefined());
});

describe('the scheduler', () => {
  const scheduler = (values: object = {}, ...flags: string[]): PodTemplate | undefined =>
    pods(render(values, ...flags)).find(({ name }) => name === 'gpu-gate-scheduler');
  it.each([
    ['v1.36.3', 'v1.36.3'],
    ['v1.35.2-gke.1003000', 'v1.35.2'],
    ['v1.35.2+k3s1', 'v1.35.2'],
    ['v1.35.1-eks-113cf36', 'v1.35.1'],
    ['v1.37.0-rc.1', 'v1.37.0-rc.1'],
  ])('in a cluster of version %s is of version %s', (cluster, tag) =>
    expect(scheduler({}, '--kube-version', cluster)?.spec.containers[0]?.image).toBe(
      `registry.k8s.io/kube-scheduler:${tag}`,
    ),
  );
  it('is of the version that the values name', () =>
    expect(
      scheduler({ scheduler: { image: 'mirror/kube-scheduler', version: 'v1.36.1' } })?.spec.containers[0]?.image,
    ).toBe('mirror/kube-scheduler:v1.36.1'));
  it('restarts when its configuration changes, and only then', () => {
    const sum = (values: object): string | undefined => scheduler(values)?.metadata.annotations?.['checksum/config'];
    expect(sum({})).toMatch(/^[0-9a-f]{64}$/);
    expect(sum({ replicas: 3 })).toBe(sum({}));
    expect(sum({ extender: { ignorable: true } })).not.toBe(sum({}));
  });
  it('has a budget with more than one replica only', () => {
    const budget = (replicas: number): Rendered | undefined =>
      find(render({ scheduler: { replicas } }), 'PodDisruptionBudget', 'gpu-gate-scheduler');
    expect(budget(2)?.spec).toMatchObject({ maxUnavailable: 1, unhealthyPodEvictionPolicy: 'AlwaysAllow' });
    expect(budget(1)).toBeUndefined();
  });
});

describe('every Deployment', () => {
  it('asks for resources, spreads its replicas per roll-out, and tolerates the startup taint', () => {
    const all = pods(render());
    expect(all.map(({ name }) => name).toSorted()).toEqual(['gpu-gate', 'gpu-gate-reconciler', 'gpu-gate-scheduler']);
    for (const { name, spec } of all) {
      expect(spec.containers[0]?.resources, name).toMatchObject({ requests: { cpu: '50m' } });
      expect(spec['topologySpreadConstraints'], name).toMatchObject([
        {
          labelSelector: { matchLabels: { 'app.kubernetes.io/component': name } },
          matchLabelKeys: ['pod-template-hash'],
        },
      ]);
      expect(JSON.stringify(spec['tolerations']), name).toContain('startup-taint');
    }
  });
  it('goes where the values say and carries what they say', () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    const values = {
      image: { repository: 'r/gpu-gate', digest },
      scheduler: { digest },
      imagePullSecrets: [{ name: 'registry' }],
      priorityClassName: 'infra',
      nodeSelector: { pool: 'system' },
      affinity: { nodeAffinity: {} },
      tolerations: [{ key: 'system', operator: 'Exists' }],
      podAnnotations: { note: 'a' },
      podLabels: { team: 'ml' },
    };
    for (const { name, metadata, spec } of pods(render(values))) {
      expect(spec, name).toMatchObject({
        imagePullSecrets: values.imagePullSecrets,
        priorityClassName: 'infra',
        nodeSelector: values.nodeSelector,
        affinity: values.affinity,
      });
      expect(spec['tolerations'], name).toHaveLength(3);
      expect(spec.containers[0]?.image.endsWith(`@${digest}`), name).toBe(true);
      expect([metadata.labels['team'], metadata.annotations?.['note']], name).toEqual(['ml', 'a']);
    }
  });
});

describe('the quota for critical pods', () => {
  const namespaces = (values: object): readonly string[] =>
    render(values)
      .filter(({ kind }) => kind === 'ResourceQuota')
      .map(({ metadata }) => metadata.namespace ?? '')
      .toSorted();
  it('is in both namespaces', () => expect(namespaces({})).toEqual(['gpu-gate', 'gpu-gate-operands']));
  it('is in the operands’ alone where our own pods have another priority', () =>
    expect(namespaces({ priorityClassName: 'infra' })).toEqual(['gpu-gate-operands']));
});

describe('the RuntimeClass', () => {
  const names = (values: object): readonly unknown[] => {
    const objects = render(values);
    const injection = find(objects, 'GPUPolicy', 'default')?.spec?.['injection'] as { runtimeClassName: string };
    expect(objects.some(({ kind }) => kind === 'RuntimeClass')).toBe(false);
    const args = JSON.stringify(find(objects, 'Deployment', 'gpu-gate-reconciler'));
    const mayCreate = JSON.stringify(find(objects, 'ClusterRole', 'gpu-gate-reconciler')?.rules).includes(
      'runtimeclasses',
    );
    const [, name = ''] = /"--runtime-class=([^"]*)"/.exec(args) ?? [];
    expect(mayCreate).toBe(name !== '');
    return [name, injection.runtimeClassName];
  };
  it.each([
    ['by default', {}, ['nvidia', 'nvidia']],
    ['named in runtimeClass', { runtimeClass: { name: 'gpu' } }, ['gpu', 'gpu']],
    ['named in the policy', policy({ injection: { runtimeClassName: 'gpu' } }), ['gpu', 'gpu']],
    ['not injected', policy({ injection: { runtimeClassName: '' } }), ['nvidia', '']],
    [
      'created by another installer',
      { runtimeClass: { create: false }, ...policy({ injection: { runtimeClassName: 'theirs' } }) },
      ['', 'theirs'],
    ],
  ])('%s: its name, and the name that is injected', (_, values, expected) => expect(names(values)).toEqual(expected));
});

describe('rights', () => {
  const mayDeletePods = (values: object): boolean =>
    find(render(values), 'ClusterRole', 'gpu-gate-reconciler')?.rules?.some(
      ({ resources, verbs }) => resources.includes('pods') && verbs.includes('delete'),
    ) === true;
  it.each([
    ['not by default', {}, false],
    ['where the default policy says Delete', policy({ rejectedPods: 'Delete' }), true],
    ['where the value says so for another policy', { rbac: { deleteRejectedPods: true } }, true],
    [
      'not where the value says no',
      { rbac: { deleteRejectedPods: false }, ...policy({ rejectedPods: 'Delete' }) },
      false,
    ],
  ])('the reconciler may delete any pod: %s', (_, values, may) => expect(mayDeletePods(values)).toBe(may));

  const mayEvict = (values: object): boolean =>
    find(render(values), 'ClusterRole', 'gpu-gate-reconciler')?.rules?.some(({ resources }) =>
      resources.includes('pods/eviction'),
    ) === true;
  const evicting = policy({ upgrade: { drain: { mode: 'Evict' } } });
  it.each([
    ['not by default', {}, false],
    ['where the default policy says Evict', evicting, true],
    ['where the value says so for another policy', { rbac: { evictPods: true } }, true],
    ['not where the value says no', { rbac: { evictPods: false }, ...evicting }, false],
  ])('the reconciler may evict pods: %s', (_, values, may) => expect(mayEvict(values)).toBe(may));

  const external = policy({ components: { driver: { mode: 'external' } } });
  it.each([
    ['by default', {}, true],
    ['not where the default policy leaves the driver to others', external, false],
    ['where another policy manages one', { ...external, rbac: { driver: true } }, true],
    ['not where the value says that none does', { rbac: { driver: false } }, false],
  ])('the driver’s pods may write Nodes: %s', (_, values, may) => {
    const objects = render(values);
    const kinds = objects.filter(({ metadata }) => metadata.name === 'gpu-gate-driver').map(({ kind }) => kind);
    // The account is always there: without it the driver's pods would not be made, and nobody would
    // say why.
    expect(kinds.toSorted()).toEqual(
      may ? ['ClusterRole', 'ClusterRoleBinding', 'Role', 'RoleBinding', 'ServiceAccount'] : ['ServiceAccount'],
    );
  });

  const dra = policy({ allocation: 'DRA' });
  const externalDra = policy({ allocation: 'DRA', components: { draDriver: { mode: 'external' } } });
  it.each([
    ['not by default', {}, false, false],
    ['where the default policy allocates by claim', dra, true, true],
    ['not where it leaves the DRA driver to others', externalDra, false, true],
    ['where the value says so for another policy', { rbac: { draDriver: true } }, true, true],
    ['not where the value says no', { ...dra, rbac: { draDriver: false } }, false, true],
  ])('the DRA driver’s pods may publish devices: %s', (_, values, may, templates) => {
    const objects = render(values);
    const kinds = objects.filter(({ metadata }) => metadata.name === 'gpu-gate-dra-driver').map(({ kind }) => kind);
    expect(kinds.toSorted()).toEqual(
      may
        ? [
            'ClusterRole',
            'ClusterRoleBinding',
            'ServiceAccount',
            'ValidatingAdmissionPolicy',
            'ValidatingAdmissionPolicyBinding',
          ]
        : ['ServiceAccount'],
    );
    const classes = objects.filter(({ kind }) => kind === 'DeviceClass').map(({ metadata }) => metadata.name);
    expect(classes).toEqual(may ? ['gpu.nvidia.com', 'mig.nvidia.com'] : []);
    const mayMake = objects.some(
      ({ kind, metadata, rules }) =>
        kind === 'Role' &&
        metadata.name === 'gpu-gate-reconciler' &&
        rules?.some(
          ({ resources, verbs }) => resources.includes('resourceclaimtemplates') && verbs.includes('create'),
        ) === true,
    );
    expect(mayMake).toBe(templates);
  });
  it('leaves the DeviceClasses to another chart', () =>
    expect(
      render({ ...dra, draDriver: { deviceClasses: false } }).filter(({ kind }) => kind === 'DeviceClass'),
    ).toEqual([]));
});

describe('alerts', () => {
  const monitoring = { prometheusRule: true, podMonitor: true, labels: { release: 'prometheus' } };
  it('carry the labels that a Prometheus selects by', () => {
    for (const kind of ['PrometheusRule', 'PodMonitor'])
      expect(find(render({ monitoring }), kind, 'gpu-gate')?.metadata.labels['release']).toBe('prometheus');
  });
  it('that the docs name exist', () => {
    const alerts = new Set(
      find(render({ monitoring }), 'PrometheusRule', 'gpu-gate')
        ?.spec?.groups?.flatMap(({ rules }) => rules)
        .map(({ alert }) => alert),
    );
    const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.md'))
      .map((file) => join('docs', file));
    const named = ['README.md', ...docs].flatMap(
      (file) => readFileSync(join(ROOT, file), 'utf8').match(/\bGPUGate[A-Z]\w+/g) ?? [],
    );
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter((name) => !alerts.has(name))).toEqual([]);
  });
});

it('the dashboard is a ConfigMap that a sidecar finds, where the values ask for it', () => {
  const dashboards = (values: object): readonly Rendered[] =>
    render(values).filter(({ metadata }) => metadata.name === 'gpu-gate-dashboard');
  expect(dashboards({})).toEqual([]);
  const [made] = dashboards({ monitoring: { dashboard: { create: true, folder: 'GPUs', labels: { mine: 'yes' } } } });
  expect(made?.metadata).toMatchObject({ labels: { mine: 'yes' }, annotations: { grafana_folder: 'GPUs' } });
  expect(made?.data?.['gpu-gate.json']).toBe(readFileSync(join(ROOT, 'deploy/chart/dashboard.json'), 'utf8'));
});

describe('values that are refused, and with what advice', () => {
  it.each([
    [
      'a resource that would break out of the expression',
      policy({ resources: ["x' || true"] }),
      'is not a resource name: write',
    ],
    [
      'patterns only, for the cluster’s own scheduler',
      { scheduler: { create: false }, ...policy({ resources: ['nvidia.com/mig-*'] }) },
      'list each MIG profile in use',
    ],
    ['a url without a canary’s', { webhook: { url: 'https://h:1/mutate' } }, 'Set webhook.canaryUrl to'],
    [
      'two names of the RuntimeClass',
      { runtimeClass: { name: 'gpu' }, ...policy({ injection: { runtimeClassName: 'other' } }) },
      'write one of them, the other follows',
    ],
    ['an unknown failurePolicy', { webhook: { failurePolicy: 'ignore' } }, "'Ignore', 'Fail'"],
    ['an unknown reinvocationPolicy', { webhook: { reinvocationPolicy: 'Always' } }, "'IfNeeded', 'Never'"],
    ['an unknown source of certificates', { certs: { source: 'vault' } }, "'self', 'cert-manager'"],
    ['an unknown value', { replica: 3 }, "'replica' not allowed"],
    ['an unknown value further in', { webhook: { failurepolicy: 'Fail' } }, "'failurepolicy' not allowed"],
    ['a label of the chart as a pod label', { podLabels: { 'app.kubernetes.io/name': 'x' } }, 'app.kubernetes.io/name'],
  ])('%s', (_, values, advice) => expect(refusal(values)).toContain(advice));

  it('a url needs no canary’s where cert-manager makes the certificates', () =>
    expect(refusal({ webhook: { url: 'https://h:1/mutate' }, certs: { source: 'cert-manager' } })).toBe(''));
});

describe('a field that others write', () => {
  it('is not looked up anywhere: an upgrade renders the same whatever the cluster holds', () => {
    const files = readdirSync(join(ROOT, 'deploy/chart/templates'), { recursive: true, encoding: 'utf8' });
    for (const file of files.filter((name) => /\.(yaml|tpl|txt)$/i.test(name)))
      expect(readFileSync(join(ROOT, 'deploy/chart/templates', file), 'utf8'), file).not.toMatch(/\blookup\b/);
    expect(JSON.stringify(render())).not.toContain('caBundle');
  });
});

interface Schema {
  description?: string;
  properties?: Readonly<Record<string, Schema>>;
  items?: Schema;
  enum?: readonly unknown[];
}
describe('the schema of the values', () => {
  const schema = JSON.parse(readFileSync(join(ROOT, 'deploy/chart/values.schema.json'), 'utf8')) as Schema;
  const values = parse(readFileSync(join(ROOT, 'deploy/chart/values.yaml'), 'utf8')) as object;

  const described = (
    at: string,
    { properties = {}, items }: Schema,
  ): readonly (readonly [string, string | undefined])[] => [
    ...Object.entries(properties).flatMap(([key, inner]) => [
      [`${at}.${key}`, inner.description] as const,
      ...described(`${at}.${key}`, inner),
    ]),
    ...(items === undefined ? [] : described(`${at}[]`, items)),
  ];
  it('describes every value in a sentence', () => {
    const all = described('', schema);
    expect(all.length).toBeGreaterThan(100);
    expect(all.filter(([, description]) => !/^[A-Za-z"/].{8,}[.]$/s.test(description ?? ''))).toEqual([]);
  });
  it('and values.yaml shows every value that it describes', () => {
    const missing = (at: string, { properties = {} }: Schema, shown: unknown): readonly string[] =>
      Object.entries(properties).flatMap(([key, inner]) => {
        const path = `${at}.${key}`;
        if (typeof shown !== 'object' || shown === null || !(key in shown)) return [path];
        return missing(path, inner, (shown as Record<string, unknown>)[key]);
      });
    expect(missing('', schema, values)).toEqual([
      // Optional parts of what cert-manager takes.
      '.certs.certManager.issuerRef.name',
      '.certs.certManager.issuerRef.kind',
      '.certs.certManager.issuerRef.group',
      '.certs.certManager.privateKey.encoding',
    ]);
  });
});

describe('images', () => {
  const imagesOf = (object: unknown): readonly string[] =>
    Array.isArray(object)
      ? object.flatMap(imagesOf)
      : typeof object === 'object' && object !== null
        ? Object.entries(object).flatMap(([key, value]) =>
            key === 'image' && typeof value === 'string' ? [value] : imagesOf(value),
          )
        : [];
  /** Of the chart's pods, and of all that the policy of the chart makes the reconciler run. */
  const running = async (values: object): Promise<{ images: readonly string[]; specs: readonly object[] }> => {
    const { renderOperand } = await import('../../../reconciler/manifests/render.ts');
    const { validationPod } = await import('../../../reconciler/manifests/validation-pod.ts');
    const objects = render(values);
    const policyOf = parsePolicy(find(objects, 'GPUPolicy', 'default'));
    if (policyOf === undefined) throw new Error('no policy');
    const operands = COMPONENTS.map(
      (component) => renderOperand(component, policyOf, { namespace: 'operands' }).daemonSet,
    );
    const validation = validationPod({
      kind: 'driver-validation',
      policy: policyOf,
      namespace: 'operands',
      node: { name: 'n', uid: 'u' },
      round: 'r',
      attempt: 1,
    });
    const specs = [
      ...pods(objects).map(({ spec }) => spec),
      ...operands.map(({ spec }) => (spec as { template: PodTemplate }).template.spec),
      validation['spec'] as object,
    ];
    return { images: specs.flatMap(imagesOf), specs };
  };
  it('all come from one registry where the values name one, with their paths and tags', async () => {
    const own = await running({});
    const mirrored = await running({ global: { imageRegistry: 'mirror.example.com/gpu/' } });
    expect(mirrored.images).toEqual(
      own.images.map((image) => `mirror.example.com/gpu/${image.replace(/^(nvcr\.io|registry\.k8s\.io)\//, '')}`),
    );
    expect(new Set(mirrored.images).size).toBeGreaterThan(7);
  });
  it('that the policy names itself stay', async () => {
    const { images } = await running({
      global: { imageRegistry: 'mirror.example.com' },
      ...policy({
        components: { driver: { image: 'own.example.com/driver', manager: { image: 'own.example.com/m:1' } } },
      }),
    });
    expect(images.filter((image) => image.startsWith('own.example.com/'))).toHaveLength(3);
  });
  it('are pulled with the global Secrets by every pod', async () => {
    const { specs } = await running({
      global: { imagePullSecrets: [{ name: 'pull' }] },
      imagePullSecrets: [{ name: 'ours' }],
    });
    for (const spec of specs)
      expect(JSON.stringify((spec as { imagePullSecrets?: object }).imagePullSecrets)).toContain('"pull"');
  });
});

describe('how pods of the chart run', () => {
  const of = (values: object, name: string): PodTemplate & { name: string } => {
    const found = pods(render(values)).find((one) => one.name === name);
    if (found === undefined) throw new Error(`no Deployment ${name}`);
    return found;
  };
  it('on other ports', () => {
    const values = { webhook: { port: 10250, canaryPort: 1 }, extender: { port: 2 }, metricsPort: 3 };
    const objects = render(values);
    const args = of(values, 'gpu-gate').spec.containers[0]?.args ?? [];
    for (const flag of ['--webhook-port=10250', '--canary-port=1', '--extender-port=2', '--metrics-port=3'])
      expect(args).toContain(flag);
    expect(find(objects, 'Service', 'gpu-gate-webhook')?.spec?.['ports']).toMatchObject([
      { port: 443, targetPort: 10250 },
      { port: 8445, targetPort: 1 },
    ]);
    expect(find(objects, 'Service', 'gpu-gate-extender')?.spec?.['ports']).toMatchObject([
      { port: 443, targetPort: 2 },
    ]);
  });
  it('on their nodes’ network, with a roll-out that frees a port before it takes it', () => {
    const values = { webhook: { hostNetwork: true } };
    expect(of(values, 'gpu-gate').spec).toMatchObject({ hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' });
    expect(of(values, 'gpu-gate-reconciler').spec['hostNetwork']).toBeUndefined();
    expect(find(render(values), 'Deployment', 'gpu-gate')?.spec?.['strategy']).toMatchObject({
      rollingUpdate: { maxUnavailable: 1, maxSurge: 0 },
    });
  });
  it('as one process with the rights of both', () => {
    const objects = render({ oneProcess: true });
    const template = of({ oneProcess: true }, 'gpu-gate');
    expect(template.spec['serviceAccountName']).toBe('gpu-gate-reconciler');
    expect(template.spec.containers[0]?.args).toContain('--roles=webhook,extender,reconciler,certs');
    expect(find(objects, 'Deployment', 'gpu-gate-reconciler')).toBeUndefined();
    expect(find(objects, 'ServiceAccount', 'gpu-gate')).toBeUndefined();
    const subjects = objects.flatMap((object) => (object as { subjects?: { name: string }[] }).subjects ?? []);
    expect(subjects.map(({ name }) => name)).not.toContain('gpu-gate');
  });
  it('without a user of their own, which OpenShift gives', () => {
    for (const { spec } of pods(render({ securityContext: { runAsUser: null, runAsGroup: null } })))
      expect(spec.containers[0]).toMatchObject({
        securityContext: { runAsNonRoot: true, capabilities: { drop: ['ALL'] } },
      });
    expect(JSON.stringify(render({ securityContext: { runAsUser: null, runAsGroup: null } }))).not.toContain(
      'runAsUser',
    );
  });
  it('with labels on every object', () => {
    for (const { kind, metadata } of render({ commonLabels: { team: 'ml' }, networkPolicy: { create: true } }))
      expect([kind, metadata.name, metadata.labels?.['team']]).toEqual([kind, metadata.name, 'ml']);
  });
  it('with further objects, which are templates', () => {
    const objects = render({
      extraObjects: [
        { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a', namespace: '{{ .Release.Namespace }}' } },
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: {{ .Release.Namespace }}}\n',
      ],
    });
    for (const name of ['a', 'b']) expect(find(objects, 'ConfigMap', name)?.metadata.namespace).toBe('gpu-gate');
  });
  it('spread as the values say', () => {
    const values = {
      topologySpreadConstraints: [
        { maxSkew: 1, topologyKey: 'topology.kubernetes.io/zone', whenUnsatisfiable: 'DoNotSchedule' },
      ],
    };
    expect(of(values, 'gpu-gate').spec['topologySpreadConstraints']).toMatchObject([
      {
        topologyKey: 'topology.kubernetes.io/zone',
        labelSelector: { matchLabels: { 'app.kubernetes.io/component': 'gpu-gate' } },
      },
    ]);
  });
});

describe('the scheduler’s profile', () => {
  const profile = (values: object): unknown =>
    (
      parse(find(render(values), 'ConfigMap', 'gpu-gate-scheduler')?.data?.['config.yaml'] ?? '') as {
        profiles: { pluginConfig?: unknown }[];
      }
    ).profiles[0]?.pluginConfig;
  it('is Kubernetes’ own by default', () => expect(profile({})).toBeUndefined());
  it('fills nodes by the policy’s resources', () =>
    expect(
      profile({ scheduler: { binPacking: true }, ...policy({ resources: ['nvidia.com/gpu', 'nvidia.com/mig-*'] }) }),
    ).toEqual([
      {
        name: 'NodeResourcesFit',
        args: {
          scoringStrategy: {
            type: 'MostAllocated',
            resources: [
              { name: 'nvidia.com/gpu', weight: 10 },
              { name: 'cpu', weight: 1 },
              { name: 'memory', weight: 1 },
            ],
          },
        },
      },
    ]));
  it('takes further configuration', () =>
    expect(
      profile({ scheduler: { pluginConfig: [{ name: 'PodTopologySpread', args: { defaultingType: 'List' } }] } }),
    ).toEqual([{ name: 'PodTopologySpread', args: { defaultingType: 'List' } }]));
});

describe('the device plugin’s configuration', () => {
  const sharing = (replicas: number): object => ({
    devicePlugin: {
      config: { version: 'v1', sharing: { timeSlicing: { resources: [{ name: 'nvidia.com/gpu', replicas }] } } },
    },
  });
  const named = (values: object): string => {
    const spec = find(render(values), 'GPUPolicy', 'default')?.spec as {
      components?: { devicePlugin: { config: string } };
    };
    return spec.components?.devicePlugin.config ?? '';
  };
  it('is a ConfigMap beside the operands, which the policy names, another one for another content', () => {
    const objects = render(sharing(4));
    const configMap = find(objects, 'ConfigMap', named(sharing(4)));
    expect(configMap?.metadata.namespace).toBe('gpu-gate-operands');
    expect(parse(configMap?.data?.['config.yaml'] ?? '')).toMatchObject({ version: 'v1' });
    expect(named(sharing(2))).not.toBe(named(sharing(4)));
    expect(named({})).toBe('');
  });
});

describe('what tenants may not do', () => {
  const guard = (values: object): readonly string[] | undefined =>
    (
      find(render(values), 'ValidatingAdmissionPolicy', 'gpu-gate-tenants')?.spec as
        | { validations: { expression: string }[] }
        | undefined
    )?.validations.map(({ expression }) => expression);
  it('is nothing by default', () => expect(guard({})).toBeUndefined());
  it.each([
    ['the injected scheduler', {}, ['gpu-gate-scheduler']],
    ['the cluster’s own', { scheduler: { create: false } }, ['default-scheduler']],
    ['one that the policy injects', policy({ injection: { schedulerName: 'own' } }), ['own']],
    ['further ones', { tenants: { schedulers: ['kai'] } }, ['gpu-gate-scheduler', 'kai']],
  ])('allows %s', (_, values: object, schedulers) => {
    const { tenants = {} } = values as { tenants?: object };
    expect(guard({ ...values, tenants: { refuseSchedulers: true, ...tenants } })).toEqual([
      `object.spec.?schedulerName.orValue('default-scheduler') in ['${schedulers.join("', '")}']`,
    ]);
  });
});

describe('options in the environment', () => {
  it('that exist are taken, each of them', () => {
    const env = Object.values(OPTIONS).map(({ flag }) => ({ name: variableOf(flag), value: 'x' }));
    expect(refusal({ env })).toBe('');
  });
  it('of others are not judged', () => expect(refusal({ env: [{ name: 'HTTPS_PROXY', value: 'x' }] })).toBe(''));
});

describe('values that would fail later', () => {
  it.each([
    ['one namespace for all', { operandNamespace: { name: 'gpu-gate' } }, "the release's own namespace"],
    [
      'an option that does not exist',
      { env: [{ name: 'GPU_GATE_LOGLEVEL', value: 'x' }] },
      'GPU_GATE_LOGLEVEL is not an option',
    ],
    ['one port for two things', { webhook: { port: 8444 } }, 'must differ'],
    ['an issuer without a name', { certs: { certManager: { issuerRef: { kind: 'Issuer' } } } }, 'name'],
    ['sharing by MPS', { devicePlugin: { config: { sharing: { mps: {} } } } }, 'use sharing.timeSlicing'],
    [
      'two configurations of the device plugin',
      { devicePlugin: { config: { version: 'v1' } }, ...policy({ components: { devicePlugin: { config: 'own' } } }) },
      'write one of them',
    ],
    [
      'two scoring strategies',
      { scheduler: { binPacking: true, pluginConfig: [{ name: 'NodeResourcesFit' }] } },
      'leave it out of scheduler.pluginConfig',
    ],
    [
      'a scheduler’s name that would break out of the expression',
      { tenants: { refuseSchedulers: true, schedulers: ["x'] || true || '' in ['"] } },
      'is not the name of a scheduler',
    ],
  ])('are refused: %s', (_, values, advice) => expect(refusal(values)).toContain(advice));
});

describe('options of Node.js', () => {
  type Env = readonly { readonly name: string; readonly value: string }[];
  const envOf = (name: string, values: object = {}): Env =>
    (
      find(render(values), 'Deployment', name) as unknown as {
        spec: { template: { spec: { containers: { env?: Env }[] } } };
      }
    ).spec.template.spec.containers[0]?.env ?? [];
  const own = { env: [{ name: 'NODE_OPTIONS', value: '--max-old-space-size=300' }] };
  it('keep the memory of the reconciler small', () =>
    expect(envOf('gpu-gate-reconciler')).toEqual([{ name: 'NODE_OPTIONS', value: '--max-semi-space-size=8' }]));
  it('are not those of the request path', () => expect(envOf('gpu-gate')).toEqual([]));
  it('are those of the values where they name some', () => expect(envOf('gpu-gate-reconciler', own)).toEqual(own.env));
});

describe('deploy/install.yaml, for kubectl alone', () => {
  it('is what the chart renders', () => {
    const file = join(ROOT, 'deploy/install.yaml');
    // A scheduler may be one minor version older than its API server, and must not be newer.
    const { status, stdout, stderr } = template(
      { scheduler: { version: 'v1.36.3' }, test: { create: false }, uninstall: { hook: false } },
      ['--include-crds', '--kube-version', 'v1.36.3'],
    );
    expect(status, stderr).toBe(0);
    const text = [
      '# kubectl apply --server-side -f install.yaml, twice: the first time the GPUPolicy finds no CRD yet. Rendered from deploy/chart by its test, never edited by hand.',
      'apiVersion: v1',
      'kind: Namespace',
      'metadata: {name: gpu-gate}',
      stdout,
    ].join('\n');
    if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(file, text);
    expect(readFileSync(file, 'utf8'), 'GPU_GATE_TEST_UPDATE=1 renders it').toBe(text);
  });
});
