// Every serving replica's part: follows its Secret by a watch and hands each usable certificate to its server. A broken one is
// said and not taken: the last good one goes on being served.
import type { Kube } from '../platform/kube.ts';
import type { Log } from '../platform/log.ts';
import { reflector } from '../platform/reflector.ts';
import { keyMatches, readCert } from './read.ts';

export interface CertFollower {
  start(signal: AbortSignal): void;
  /** Why nothing usable is served; undefined: all is well. */
  problem(): string | undefined;
}

export interface FollowerOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly secret: string;
  readonly log: Log;
  readonly now: () => number;
  /** Names that a certificate must have to be taken: whoever calls checks them. */
  readonly names: readonly string[];
  /** `ca` is what the Secret's ca.crt says: the CAs of clients, where they are asked. */
  /** Told the end of what is served, ms since the epoch. */
  readonly served?: (until: number) => void;
  readonly use: (material: { readonly key: string; readonly cert: string; readonly ca: string }) => void;
}

interface RawSecret {
  readonly data?: Readonly<Record<string, string>>;
}

/** Follows one Secret of type kubernetes.io/tls. */
export function certFollower(options: FollowerOptions): CertFollower {
  let servedUntil = 0;
  const text = (raw: RawSecret, key: string): string => Buffer.from(raw.data?.[key] ?? '', 'base64').toString('utf8');
  const take = (material: { cert: string; key: string; ca: string }): void => {
    const cert = readCert(material.cert);
    const because =
      cert === undefined
        ? 'it cannot be read'
        : !keyMatches(material)
          ? 'its key is missing or is another one'
          : cert.to <= options.now()
            ? 'it has expired'
            : options.names.some((name) => !cert.sans.includes(name))
              ? `it lacks the name ${options.names.find((name) => !cert.sans.includes(name)) ?? ''}`
              : undefined;
    if (cert === undefined || because !== undefined) {
      options.log.error('certificate not taken, the last good one stays', { secret: options.secret, because });
      return;
    }
    options.use(material);
    servedUntil = cert.to;
    options.served?.(cert.to);
    options.log.info('certificate in use', { secret: options.secret, until: new Date(cert.to).toISOString() });
  };
  const secrets = reflector<{ cert: string; key: string; ca: string }>({
    kube: options.kube,
    log: options.log,
    path: `/api/v1/namespaces/${options.namespace}/secrets`,
    query: { fieldSelector: `metadata.name=${options.secret}` },
    trim: (raw: RawSecret) => ({ cert: text(raw, 'tls.crt'), key: text(raw, 'tls.key'), ca: text(raw, 'ca.crt') }),
    onChange: (_, __, after) => {
      if (after !== undefined) take(after);
    },
  });
  return {
    start: (signal) => secrets.start(signal),
    problem() {
      if (servedUntil === 0) return `no usable certificate in Secret ${options.namespace}/${options.secret} yet`;
      return options.now() >= servedUntil
        ? `the certificate of Secret ${options.namespace}/${options.secret} has expired`
        : undefined;
    },
  };
}
