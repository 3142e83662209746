// Every serving replica's part: follows its Secret by a watch and hands each usable certificate to
// its server. A certificate that is broken, or that callers would not trust, is reported and not
// taken; the last good one stays in use.
import { CANARY_ENTRY, WEBHOOK_CONFIGURATION } from '../core/keys.ts';
import type { Kube } from '../platform/kube.ts';
import type { Log } from '../platform/log.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import { keyMatches, readBundle, readCert, type CertFacts } from './cert.ts';
import { refusal } from './judge.ts';

export interface CertFollower {
  start(signal: AbortSignal): void;
  /** Why nothing usable is served. `undefined` if all is well. */
  problem(): string | undefined;
  readonly watch: Reflector<unknown>;
}

interface Material {
  readonly key: string;
  readonly cert: string;
  /**
   * What the Secret's ca.crt says: the CAs of clients, if the server requires a client certificate.
   */
  readonly ca: string;
}

export interface FollowerOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly secret: string;
  readonly log: Log;
  readonly now: () => number;
  /** Names that a certificate must have to be taken, because callers check them. */
  readonly names: readonly string[];
  /** CAs by which callers verify it. Absent or empty if they are not known. */
  readonly trusted?: TrustedCas;
  /** Called with the end of what is served, in milliseconds since the epoch. */
  readonly served?: (until: number) => void;
  readonly use: (material: Material) => void;
}

/** The CAs by which callers verify certificates, followed by a watch. */
export interface TrustedCas {
  readonly watch: Reflector<unknown>;
  cas(): readonly CertFacts[];
  onChange(listener: () => void): void;
}

interface RawConfiguration {
  readonly webhooks?: readonly { readonly name: string; readonly clientConfig: { readonly caBundle?: string } }[];
}

/** The CAs of the webhook's entries in its configuration. */
export function webhookCas({ kube, log }: { readonly kube: Kube; readonly log: Log }): TrustedCas {
  const listeners: (() => void)[] = [];
  let cas: readonly CertFacts[] = [];
  const watch = reflector<string>({
    kube,
    log,
    path: '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
    query: { fieldSelector: `metadata.name=${WEBHOOK_CONFIGURATION}` },
    trim: ({ webhooks = [] }: RawConfiguration) =>
      webhooks
        .filter(({ name }) => name !== CANARY_ENTRY)
        .map(({ clientConfig }) => Buffer.from(clientConfig.caBundle ?? '', 'base64').toString('utf8'))
        .join('\n'),
    onChange(_, __, after) {
      cas = readBundle(after);
      for (const listener of listeners) listener();
    },
  });
  return { watch, cas: () => cas, onChange: (listener) => void listeners.push(listener) };
}

/**
 * How often (ms) a certificate that was not taken is judged again: it may have become valid, or a
 * failure may have passed.
 */
const AGAIN_MS = 2000;

/** Follows one Secret of type kubernetes.io/tls. */
export function certFollower(options: FollowerOptions): CertFollower {
  const { log, now, trusted, secret } = options;
  let offered: Material | undefined;
  let used: Material | undefined;
  let served: CertFacts | undefined;
  let logged = '';
  const text = (raw: RawSecret, key: string): string => Buffer.from(raw.data?.[key] ?? '', 'base64').toString('utf8');

  /**
   * Without a certificate to replace the lost one, the leader can still say which clients to trust.
   */
  const takeCas = ({ ca, cert, key }: Material): void => {
    if (cert !== '' || key !== '' || ca === '' || used === undefined || used.ca === ca) return;
    used = { ...used, ca };
    options.use(used);
    log.info('CAs of clients in use', { secret });
  };

  /** Takes what is offered, or logs once why not. */
  const judge = (): void => {
    if (offered === undefined) return;
    takeCas(offered);
    const cert = readCert(offered.cert);
    const keyFits = keyMatches(offered);
    const cas = trusted?.cas() ?? [];
    let because = refusal({ offered: cert, keyFits, names: options.names, served, trusted: cas, now: now() });
    if (cert !== undefined && because === undefined) {
      try {
        options.use(offered);
        used = offered;
        offered = undefined;
        served = cert;
        logged = '';
        options.served?.(cert.to);
        log.info('certificate in use', { secret, until: new Date(cert.to).toISOString() });
        return;
      } catch (error) {
        // An error of OpenSSL may quote what it was given.
        because = `the server refused it: ${(error as NodeJS.ErrnoException).code ?? 'no code'}`;
      }
    }
    if (because !== logged) log.error('certificate not taken, the last good one stays', { secret, because });
    logged = because ?? '';
  };

  const watch = reflector<Material>({
    kube: options.kube,
    log,
    path: `/api/v1/namespaces/${options.namespace}/secrets`,
    query: { fieldSelector: `metadata.name=${secret}` },
    trim: (raw: RawSecret) => ({ cert: text(raw, 'tls.crt'), key: text(raw, 'tls.key'), ca: text(raw, 'ca.crt') }),
    onChange: (_, __, after) => {
      // If it was deleted, the one served stays, and what was offered and not taken is gone.
      offered = after;
      logged = '';
      judge();
    },
  });
  trusted?.onChange(judge);
  return {
    watch,
    start(signal) {
      watch.start(signal);
      const timer = setInterval(judge, AGAIN_MS).unref();
      signal.addEventListener('abort', () => clearInterval(timer), { once: true });
    },
    problem() {
      if (served === undefined) return `no usable certificate in Secret ${options.namespace}/${secret} yet`;
      return now() >= served.to ? `the certificate of Secret ${options.namespace}/${secret} has expired` : undefined;
    },
  };
}

interface RawSecret {
  readonly data?: Readonly<Record<string, string>>;
}
