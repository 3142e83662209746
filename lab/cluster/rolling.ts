// Two replicas of the webhook behind one Service are restarted one after the other under load,
// `failurePolicy: Fail`. A script of its own in a network namespace (test/support/network.ts); its
// argument is {rate, rounds}.
import { setTimeout as sleep } from 'node:timers/promises';
import { startLoad } from '../../test/support/calls.ts';
import { binariesFromEnvironment } from './cluster.ts';
import { startControlPlane } from './control-plane.ts';
import { installChart, until } from './gate.ts';
import { startProcess, startReplicas } from './replicas.ts';

export interface RollingResult {
  readonly calls: number;
  readonly failed: number;
  readonly example: string | undefined;
  readonly restarts: number;
  /** The control: with both replicas stopped calls must fail. */
  readonly failedWithNone: number;
}

const [SERVER, FIRST, SECOND, KEEPER] = ['10.99.0.1', '10.99.0.11', '10.99.0.12', '10.99.0.21'] as const;

async function scenario(rate: number, rounds: number): Promise<RollingResult> {
  const cp = await startControlPlane({
    binaries: await binariesFromEnvironment(console.log),
    address: SERVER,
    apiServerArgs: ['--enable-aggregator-routing=true'],
    scheduler: false,
  });
  try {
    // Half a minute for a call, because how fast it is answered is a benchmark's business.
    await installChart(cp, 'install', {
      deployments: { create: false },
      webhook: { failurePolicy: 'Fail', timeoutSeconds: 30 },
    });
    await until('the ServiceAccounts', () =>
      cp.admin.request('GET', '/api/v1/namespaces/gpu-gate/serviceaccounts/gpu-gate-reconciler'),
    );
    const replicas = await startReplicas(cp, { addresses: [FIRST, SECOND], flags: ['--drain', '2s'] });
    await startProcess(cp, 'keeper', 'gpu-gate-reconciler', KEEPER, ['--roles', 'certs', '--lease-duration', '2s']);
    const bothReady = (): Promise<unknown> =>
      until('both replicas', async () => {
        const ready = replicas.map(
          async ({ metricsUrl }) => (await fetch(metricsUrl.replace('/metrics', '/readyz'))).ok,
        );
        return (await Promise.all(ready)).every(Boolean);
      });
    const body = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { generateName: 'first-' },
      spec: { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
    };
    const create = (): Promise<object> =>
      cp.admin.request('POST', '/api/v1/namespaces/default/pods', { query: { dryRun: 'All' }, body });
    await until('a first call', create);
    await bothReady();
    const load = startLoad([cp.admin], rate, 20);
    let restarts = 0;
    for (let round = 0; round < rounds; round += 1)
      for (const replica of replicas) {
        await sleep(500);
        await replica.stop();
        await replica.start();
        await bothReady();
        // A Deployment goes on once the new pod is ready; the EndpointSlice follows its probe.
        await sleep(1000);
        restarts += 1;
      }
    await load.stop();
    const failures = load.failures(0);
    await Promise.all(replicas.map((replica) => replica.stop()));
    const control = startLoad([cp.admin], 10, 20);
    await until('a call to fail', () => control.failures(0).length > 0);
    await control.stop();
    return {
      calls: load.calls.length,
      failed: failures.length,
      example: failures[0]?.failure,
      restarts,
      failedWithNone: control.failures(0).length,
    };
  } finally {
    await cp.stop();
  }
}

if (import.meta.main) {
  const { rate, rounds } = JSON.parse(process.argv[2] ?? '{}') as { rate: number; rounds: number };
  console.log(`RESULT ${JSON.stringify(await scenario(rate, rounds))}`);
}
