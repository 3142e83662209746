// A call to the extender as a scheduler makes it.
import type { IncomingHttpHeaders } from 'node:http';
import { request, type Agent } from 'node:https';

/** Asks about a GPU pod over the agent's one connection: which of the nodes may it go to? */
export const askExtender = (
  port: number,
  agent: Agent,
  nodes: readonly string[],
): Promise<{ headers: IncomingHttpHeaders; answer: { Error: string; NodeNames: string[] } }> =>
  new Promise((resolve, reject) => {
    const call = request(
      { port, host: '127.0.0.1', path: '/filter', method: 'POST', agent, rejectUnauthorized: false },
      (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode === 200)
            resolve({ headers: response.headers, answer: JSON.parse(text) as { Error: string; NodeNames: string[] } });
          else reject(new Error(`the extender answers with ${response.statusCode}: ${text.slice(0, 200)}`));
        });
      },
    );
    call.on('error', reject);
    const containers = [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }];
    call.end(
      JSON.stringify({
        Pod: { metadata: { name: 'p', namespace: 'default' }, spec: { containers } },
        NodeNames: nodes,
      }),
    );
  });
