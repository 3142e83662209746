// Asks an extender again and again about every node, as a scheduler does, and records what it
// refuses. So the judge knows from when on the extender knew that a node is closed.
import { appendFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { askExtender } from '../cluster/ask-extender.ts';

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

export function startProbes(options: ProbeOptions): Probes {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ...options.client });
  const ask = async (): Promise<ReadonlySet<string>> => {
    const { answer } = await askExtender(options.port, agent, options.nodes);
    if (answer.Error !== '') throw new Error(`the extender answers a probe with an error: ${answer.Error}`);
    const kept = new Set(answer.NodeNames);
    return new Set(options.nodes.filter((node) => !kept.has(node)));
  };

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
