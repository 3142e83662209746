// The extender's certificates. Schedulers read its CA once, at their start: so the CA lives long, and where it must be replaced
// (aged, or its Secret was lost) both are handed out and the old one's certificate is served on, until that one is due itself.
import type { Log } from '../platform/log.ts';
import { issueCa, issueLeaf } from './issue.ts';
import { readBundle, type CertFacts } from './read.ts';
import { caOf, leafOf, pairOf, pemOf } from './material.ts';
import type { CertMetrics } from './metrics.ts';
import { CA_SECRET, EXTENDER_CA_CONFIG_MAP, EXTENDER_SECRET, SCHEDULER_SECRET, type CertStore } from './store.ts';
import { renewalOf, validAt } from './validity.ts';

export interface ExtenderChainOptions {
  readonly store: CertStore;
  readonly log: Log;
  readonly metrics: CertMetrics;
  readonly extenderSans: readonly string[];
  /** ms */
  readonly certLife: number;
  readonly extenderCaLife: number;
}

/** Common name of the client certificate of the chart's scheduler. */
const SCHEDULER_CLIENT = 'gpu-gate-scheduler';

/** Takes every step that is due at `now`, ms since the epoch: CA, ConfigMap, serving and client certificate. */
export async function keepExtenderChain(options: ExtenderChainOptions, now: number): Promise<void> {
  const { store, metrics, extenderSans } = options;
  const ca = await extenderCa(options, now);
  if (ca === undefined) return;
  metrics.ends('extender-ca', ca.to);
  const serving = leafOf((await store.secret(EXTENDER_SECRET)).data);
  const published = readBundle((await store.configMap(EXTENDER_CA_CONFIG_MAP))['ca.crt']);
  const trusted = [
    ca,
    ...published.filter(
      (cert) => cert.fingerprint !== ca.fingerprint && validAt(cert, now) && serving?.signedBy(cert) === true,
    ),
  ];
  metrics.extenderBundle.set(trusted.length);
  await store.writeConfigMap(EXTENDER_CA_CONFIG_MAP, { 'ca.crt': pemOf(trusted) });
  await keepLeaf(options, trusted, now, {
    secret: EXTENDER_SECRET,
    kind: 'extender',
    usage: 'server',
    sans: extenderSans,
  });
  await keepLeaf(options, trusted, now, {
    secret: SCHEDULER_SECRET,
    kind: 'scheduler-client',
    usage: 'client',
    sans: [],
  });
}

async function extenderCa(options: ExtenderChainOptions, now: number): Promise<CertFacts | undefined> {
  const { store, log, metrics, extenderCaLife } = options;
  const stored = await store.secret(CA_SECRET);
  const ca = caOf(stored.data, 'extender-ca');
  if (validAt(ca, now) && now < renewalOf(ca)) return ca;
  log.info('certificate step', {
    step: 'make-extender-ca',
    because: `${ca === undefined ? 'there is no usable CA' : 'two thirds of the life of the CA are over'}; restart schedulers that read the one before`,
  });
  const fresh = await issueCa('gpu-gate extender CA', extenderCaLife, now);
  const done = await store.writeSecret(
    CA_SECRET,
    { ...stored.data, 'extender-ca.crt': fresh.cert, 'extender-ca.key': fresh.key },
    stored,
  );
  metrics.rotations.inc({ kind: 'make-extender-ca', result: done ? 'ok' : 'conflict' });
  return done ? caOf((await store.secret(CA_SECRET)).data, 'extender-ca') : undefined;
}

interface Leaf {
  readonly secret: string;
  readonly kind: string;
  readonly usage: 'server' | 'client';
  readonly sans: readonly string[];
}

async function keepLeaf(
  { store, log, metrics, certLife }: ExtenderChainOptions,
  trusted: readonly CertFacts[],
  now: number,
  { secret, kind, usage, sans }: Leaf,
): Promise<void> {
  const stored = await store.secret(secret);
  const leaf = leafOf(stored.data);
  if (leaf !== undefined) metrics.ends(kind, leaf.to);
  const good =
    validAt(leaf, now) &&
    now < renewalOf(leaf) &&
    trusted.some((ca) => leaf.signedBy(ca)) &&
    sans.every((san) => leaf.sans.includes(san));
  const bundle = pemOf(trusted);
  if (good && stored.data['ca.crt'] === bundle) return;
  const caStored = await store.secret(CA_SECRET);
  const name = usage === 'client' ? SCHEDULER_CLIENT : (sans[0] ?? 'gpu-gate-extender');
  // Where only the CAs beside it changed, the certificate stays.
  const pair = good
    ? pairOf(stored.data, 'tls')
    : await issueLeaf(pairOf(caStored.data, 'extender-ca'), { name, sans, usage, life: certLife }, now);
  if (!good) log.info('certificate step', { step: `issue-${kind}`, because: 'none there, due, or of another CA' });
  const done = await store.writeSecret(secret, { 'tls.crt': pair.cert, 'tls.key': pair.key, 'ca.crt': bundle }, stored);
  if (!good) metrics.rotations.inc({ kind: `issue-${kind}`, result: done ? 'ok' : 'conflict' });
}
