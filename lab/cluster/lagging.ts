// A cluster whose extender sees everything late: its connection to the API server goes through a
// proxy that holds answers back.
import { tcpProxy } from '../../test/support/tcp-proxy.ts';
import { viewOf } from '../../test/builders/view.ts';
import { startCluster } from './cluster.ts';
import { startGate } from './gate.ts';
import { wakeUps, type Try } from './wakeup.ts';

const NODES = ['gpu-0', 'gpu-1', 'gpu-2', 'gpu-3'];

export interface Lagging {
  /** Sorted by time; they are spread over four nodes at once. */
  tries(count: number, patience: number): Promise<readonly Try[]>;
  stop(): Promise<void>;
}

/**
 * Four nodes, opted in and proven; the request path is `lagMs` behind, and the reconciler tells
 * again after `wakeAfter`.
 */
export async function startLagging(options: {
  readonly lagMs: number;
  readonly wakeAfter: string;
  readonly say?: (line: string) => void;
}): Promise<Lagging> {
  const cluster = await startCluster({
    nodes: NODES.length,
    ...(options.say === undefined ? {} : { say: options.say }),
  });
  try {
    const proxy = await tcpProxy(Number(new URL(cluster.server).port));
    cluster.lifetime.onStop(() => proxy.close());
    await startGate(cluster, {
      requestPathServer: `https://127.0.0.1:${proxy.port}`,
      flags: ['--wake-after', options.wakeAfter],
      values: {
        policy: {
          spec: {
            bringUp: { maxConcurrent: '4' },
            breaker: '100%',
            validation: { backoff: { initial: '1s', max: '4s' } },
          },
        },
      },
    });
    const view = viewOf(() => cluster);
    for (const name of NODES) await view.kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
    for (const name of NODES) await view.validated(name);
    proxy.delay(options.lagMs);
    return {
      async tries(count, patience) {
        const driverSeconds = options.lagMs === 0 ? 0.1 : options.lagMs / 1000 + 1;
        const all = await Promise.all(
          NODES.map((name) => wakeUps(cluster, name, Math.ceil(count / NODES.length), patience, driverSeconds)),
        );
        return all.flat().toSorted((a, b) => a.ms - b.ms);
      },
      stop: () => cluster.stop(),
    };
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}
