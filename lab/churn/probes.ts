// Asks an extender again and again about every node, as a scheduler does, and records what it
// refuses. So the judge knows from when on the extender knew that a node is closed.
import { appendFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

export interface ProbeOptions {
  /** The extender's port on loopback. */
  readonly port: number;
  /** The scheduler's client certificate, PEM. */
  readonly client: { readonly cert: string; readonly key: string };
  readonly nodes: readonly string[];
  /**
   * Gets one line of JSON for each call: `{ from, to, refused }`, times in ms since the epoch.
   * `refused` is left out where it is as before.
   */
  readonly file: string;
}

export interface Probes {
  /** The nodes that the newest answer refuses. */
  refused(): ReadonlySet<string>;
  /** Resolves when the last call has ended; throws what made a call fail. */
  stop(): Promise<void>;
}

const POD = {
  metadata: { name: 'probe', namespace: 'default' },
  spec: { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
};

export function startProbes(options: ProbeOptions): Probes {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false, ...options.client });
  const body = JSON.stringify({ Pod: POD, NodeNames: options.nodes });
  const ask = (): Promise<ReadonlySet<string>> =>
    new Promise((resolve, reject) => {
      const call = request(
        { agent, host: '127.0.0.1', port: options.port, path: '/filter', method: 'POST' },
        (response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => (text += chunk.toString()));
          response.on('error', reject);
          response.on('end', () => {
            const { Error: error, NodeNames } = JSON.parse(text) as { Error?: string; NodeNames?: string[] };
            if (response.statusCode === 200 && (error ?? '') === '') {
              const kept = new Set(NodeNames);
              resolve(new Set(options.nodes.filter((node) => !kept.has(node))));
            } else reject(new Error(`the extender answers a probe with ${response.statusCode}: ${text.slice(0, 200)}`));
          });
        },
      );
      call.on('error', reject);
      call.end(body);
    });

  let refused: ReadonlySet<string> = new Set();
  const end = new AbortController();
  const asking = (async () => {
    for (let isFirst = true; !end.signal.aborted; isFirst = false) {
      const from = Date.now();
      const now = await ask();
      const isAsBefore = !isFirst && now.size === refused.size && [...now].every((node) => refused.has(node));
      const line = { from, to: Date.now(), ...(isAsBefore ? {} : { refused: [...now] }) };
      appendFileSync(options.file, `${JSON.stringify(line)}\n`);
      refused = now;
      await sleep(50);
    }
  })();
  // What fails is thrown by stop().
  asking.catch(() => undefined);
  return {
    refused: () => refused,
    async stop() {
      end.abort();
      await asking.finally(() => agent.destroy());
    },
  };
}
