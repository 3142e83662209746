import { X509Certificate } from 'node:crypto';
import { Agent, request } from 'node:https';
import { afterEach, describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import type { KeyPair } from '../../certs/cert.ts';
import { canaryAnswer, canaryApp } from '../../certs/canary.ts';
import { startServer, type RunningServer } from '../../platform/http.ts';

const DAY = 86_400_000;
let server: RunningServer;
afterEach(() => server.close(0));

const ask = (agent: Agent, body: string): Promise<{ status: number; text: string }> =>
  new Promise((resolve, reject) => {
    const call = request(
      { agent, port: server.port, method: 'POST', path: '/canary', rejectUnauthorized: false },
      (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      },
    );
    call.on('error', reject);
    call.end(body);
  });
const review = (challenge: string): string =>
  JSON.stringify({ request: { uid: 'u', object: { data: { challenge } } } });
const answerIn = (text: string): unknown => {
  const { response } = JSON.parse(text) as { response: { patch: string } };
  return (JSON.parse(Buffer.from(response.patch, 'base64').toString()) as { value: unknown }[])[0]?.value;
};
const fingerprint = ({ cert }: KeyPair): string => new X509Certificate(cert).fingerprint256;

describe('the canary', () => {
  it('answers with the certificate of the connection that asks, not with the newest', async () => {
    const ca = await issueCa('test CA', DAY, Date.now());
    const leaf = (): Promise<KeyPair> =>
      issueLeaf(ca, { name: 'c', sans: ['c'], usage: 'server', life: DAY }, Date.now());
    const [before, after] = [await leaf(), await leaf()];
    server = await startServer({
      port: 0,
      host: '127.0.0.1',
      portOption: 'canary-port',
      handler: canaryApp(),
      tls: {},
    });
    server.setTls(before);
    const kept = new Agent({ keepAlive: true, maxSockets: 1 });
    const seen = async (agent: Agent, challenge: string): Promise<unknown> =>
      answerIn((await ask(agent, review(challenge))).text);
    expect(await seen(kept, 'a')).toBe(canaryAnswer('a', fingerprint(before)));
    server.setTls(after);
    expect(await seen(kept, 'b')).toBe(canaryAnswer('b', fingerprint(before)));
    expect(await seen(new Agent({ maxCachedSessions: 0 }), 'c')).toBe(canaryAnswer('c', fingerprint(after)));
    kept.destroy();
  });

  it.each([['junk'], ['{}'], ['null'], ['{"request":{"uid":"u"}}']])('refuses %s in one sentence', async (body) => {
    const ca = await issueCa('test CA', DAY, Date.now());
    server = await startServer({
      port: 0,
      host: '127.0.0.1',
      portOption: 'canary-port',
      handler: canaryApp(),
      tls: {},
    });
    server.setTls(await issueLeaf(ca, { name: 'c', sans: ['c'], usage: 'server', life: DAY }, Date.now()));
    const { status, text } = await ask(new Agent(), body);
    expect([status, text]).toEqual([400, 'send the AdmissionReview of a ConfigMap with data.challenge\n']);
  });
});
