// A replica's part on a watch that the test feeds: what of the Secret it hands to its server, and
// when.
import { describe, expect, it } from 'vitest';
import { certFollower, webhookCas } from '../../certs/follower.ts';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import type { KeyPair } from '../../certs/cert.ts';
import type { Kube } from '../../platform/kube.ts';
import { jsonLog } from '../../platform/log.ts';
import { until } from '../../lab/cluster/gate.ts';

const DAY = 86_400_000;
const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** An API server with one object for each path; every watch sees a `put`. */
function served() {
  const listeners = new Map<string, (line: string) => void>();
  let version = 1;
  const kube = {
    server: '',
    request: async () => ({ metadata: { resourceVersion: '1' }, items: [] }),
    async stream(path: string, _: unknown, signal: AbortSignal) {
      const lines: string[] = [];
      let wake = (): void => undefined;
      listeners.set(path, (line) => {
        lines.push(line);
        wake();
      });
      signal.addEventListener('abort', () => wake());
      return (async function* () {
        while (!signal.aborted) {
          const line = lines.shift();
          if (line === undefined) await new Promise<void>((resolve) => (wake = resolve));
          else yield line;
        }
      })();
    },
  } as unknown as Kube;
  const put = async (path: string, object: object): Promise<void> => {
    const listener = await until('a watch', () => listeners.get(path));
    version += 1;
    const metadata = { name: 'o', resourceVersion: String(version) };
    listener(JSON.stringify({ type: 'MODIFIED', object: { metadata, ...object } }));
  };
  return {
    kube,
    secret: (pair: KeyPair, ca = '') =>
      put('/api/v1/namespaces/n/secrets', {
        data: { 'tls.crt': base64(pair.cert), 'tls.key': base64(pair.key), 'ca.crt': base64(ca) },
      }),
    configuration: (...cas: readonly KeyPair[]) =>
      put('/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations', {
        webhooks: [
          { name: 'pods', clientConfig: { caBundle: base64(cas.map(({ cert }) => cert).join('')) } },
          { name: 'canary.gpu-gate.dev', clientConfig: { caBundle: base64('junk') } },
        ],
      }),
  };
}

const newLeaf = (ca: KeyPair, at = Date.now()): Promise<KeyPair> =>
  issueLeaf(ca, { name: 'w', sans: ['w'], usage: 'server', life: DAY }, at);

describe('a replica', () => {
  it('takes what callers trust, waits with what they do not trust yet, and tries again where its server refused', async () => {
    const api = served();
    const lines: string[] = [];
    const log = jsonLog('info', (line) => void lines.push(line));
    const taken: string[] = [];
    let broken = false;
    const stop = new AbortController();
    const trusted = webhookCas({ kube: api.kube, log });
    const follower = certFollower({
      kube: api.kube,
      namespace: 'n',
      secret: 's',
      log,
      now: Date.now,
      names: ['w'],
      trusted,
      use({ cert, key }) {
        if (broken) throw Object.assign(new Error(`no good: ${key}`), { code: 'ERR_OSSL_X' });
        taken.push(cert);
      },
    });
    trusted.watch.start(stop.signal);
    follower.start(stop.signal);
    const said = (text: string): number => lines.filter((line) => line.includes(text)).length;

    const [ours, theirs] = [await issueCa('ours', 9 * DAY, Date.now()), await issueCa('theirs', 9 * DAY, Date.now())];
    const [first, foreign, early, last] = [
      await newLeaf(ours),
      await newLeaf(theirs),
      await newLeaf(ours, Date.now() + DAY),
      await newLeaf(ours),
    ];
    expect(follower.problem()).toContain('no usable certificate');
    await api.configuration(ours);
    await api.secret(first);
    await until('the first', () => taken.at(-1) === first.cert);
    expect(follower.problem()).toBeUndefined();

    await api.secret(foreign);
    await until('the refusal', () => said('no CA of the webhook configuration signed it') === 1);
    await api.secret(early);
    await until('the refusal', () => said('it is not valid yet') === 1);
    await api.secret(foreign);
    await until('the refusal', () => said('no CA of the webhook configuration signed it') === 2);
    expect(taken).toEqual([first.cert]);
    await api.configuration(theirs, ours);
    await until('the other, now that it is trusted', () => taken.at(-1) === foreign.cert);

    broken = true;
    await api.secret(last);
    await until('the report', () => said('the server refused it: ERR_OSSL_X') === 1);
    expect(taken.at(-1)).toBe(foreign.cert);
    broken = false;
    await until('the next attempt', () => taken.at(-1) === last.cert, 5000);
    expect(said('the server refused it')).toBe(1);
    expect(lines.join('')).not.toContain(last.key.split('\n')[3]);
    stop.abort();
  });

  it('goes on with its certificate and takes the CAs of clients from a Secret that has no certificate', async () => {
    const api = served();
    const stop = new AbortController();
    const taken: { readonly cert: string; readonly key: string; readonly ca: string }[] = [];
    const follower = certFollower({
      kube: api.kube,
      namespace: 'n',
      secret: 's',
      log: jsonLog('info', () => undefined),
      now: Date.now,
      names: ['w'],
      use: (material) => void taken.push(material),
    });
    follower.start(stop.signal);
    const pair = await newLeaf(await issueCa('ours', 9 * DAY, Date.now()));
    await api.secret({ cert: '', key: '' }, 'too early');
    await api.secret(pair, 'old');
    await until('the certificate', () => taken.length === 1);
    await api.secret({ cert: '', key: '' }, 'old and new');
    await until('the CAs', () => taken.length === 2);
    // A broken certificate may come with broken CAs.
    await api.secret({ cert: 'junk', key: 'junk' }, 'junk');
    await api.secret({ cert: '', key: '' });
    await api.secret(pair, 'new');
    await until('the certificate again', () => taken.at(-1)?.ca === 'new');
    expect(taken).toEqual(['old', 'old and new', 'new'].map((ca) => ({ ...pair, ca })));
    expect(follower.problem()).toBeUndefined();
    stop.abort();
  });
});
