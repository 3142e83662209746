// A steady load of dry-run creates of GPU pods through the webhook: every call's time and outcome.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kube } from '../../platform/kube.ts';
import { explainError } from '../../platform/log.ts';

export interface Call {
  /** ms since the epoch, when it was sent. */
  readonly at: number;
  readonly ms: number;
  /** undefined: the pod came back injected or as it was, but the webhook was called. */
  readonly failure: string | undefined;
}

export interface Load {
  readonly calls: readonly Call[];
  /** Failed calls sent since then. */
  failures(since: number): readonly Call[];
  stop(): Promise<void>;
}

const POD = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { generateName: 'load-' },
  spec: { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
};

/**
 * Sends `perSecond` calls a second whether earlier ones have come back or not, through the given
 * servers in turn. `atMost` are under way at once: a test's load must not be more than a busy
 * machine answers in time.
 */
export function startLoad(servers: readonly Kube[], perSecond: number, atMost = Infinity): Load {
  const calls: Call[] = [];
  const open = new Set<Promise<void>>();
  const ending = new AbortController();
  const one = async (kube: Kube): Promise<void> => {
    const at = Date.now();
    const began = performance.now();
    let failure: string | undefined;
    try {
      await kube.request('POST', '/api/v1/namespaces/default/pods', { query: { dryRun: 'All' }, body: POD });
    } catch (error) {
      failure = explainError(error);
    }
    calls.push({ at, ms: performance.now() - began, failure });
  };
  const loop = (async () => {
    const began = performance.now();
    for (let sent = 0; !ending.signal.aborted; sent += 1) {
      const due = began + (sent * 1000) / perSecond - performance.now();
      if (due > 0) await sleep(due);
      while (open.size >= atMost) await Promise.race(open);
      const kube = servers[sent % servers.length];
      if (kube === undefined) throw new Error('a load needs an API server');
      const call = one(kube);
      open.add(call);
      void call.then(() => open.delete(call));
    }
  })();
  return {
    calls,
    failures: (since) => calls.filter(({ at, failure }) => at >= since && failure !== undefined),
    async stop() {
      ending.abort();
      await loop;
      await Promise.all(open);
    },
  };
}
