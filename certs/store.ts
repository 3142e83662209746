// The objects that certificates live in: Secrets, the extender's CA ConfigMap, the webhook's
// caBundle. Every write of a Secret or of the configuration is a compare-and-swap by
// resourceVersion.
import { CANARY_ENTRY, WEBHOOK_CONFIGURATION, WEBHOOK_CONFIGURATION_PATH } from '../core/keys.ts';
import {
  CANARY_SECRET,
  CA_SECRET,
  EXTENDER_CA_CONFIG_MAP,
  EXTENDER_SECRET,
  SCHEDULER_SECRET,
  WEBHOOK_SECRET,
} from '../core/own-objects.ts';
import { isAlreadyExists, isConflict, isForbidden, isNotFound, type Kube, type Method } from '../platform/kube.ts';
import type { Log } from '../platform/log.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';

export interface Stored {
  readonly resourceVersion: string | undefined;
  readonly type: string | undefined;
  /** As it was read, so that a write keeps labels and annotations of other writers. */
  readonly metadata: Metadata;
  /** Decoded texts. */
  readonly data: Readonly<Record<string, string>>;
}

interface Metadata {
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The PEM bundles of the webhook configuration. */
export type Bundles =
  | { readonly kind: 'absent' }
  | { readonly kind: 'forbidden'; readonly because: string }
  /**
   * `entries`: of every entry but the canary's. `canary` is `undefined` if there is no such entry.
   */
  | { readonly kind: 'present'; readonly entries: readonly string[]; readonly canary: string | undefined };

interface RawSecret {
  metadata?: Metadata;
  type?: string;
  data?: Record<string, string>;
}
interface RawConfiguration {
  webhooks?: { name: string; clientConfig: { caBundle?: string } }[];
}

const TLS = 'kubernetes.io/tls';

export interface CertStore {
  secret(name: string): Promise<Stored>;
  /** Writes a Secret of type kubernetes.io/tls. False if another writer was faster. */
  writeSecret(name: string, data: Readonly<Record<string, string>>, before: Stored): Promise<boolean>;
  /** Empty if it does not exist. */
  configMap(name: string): Promise<Readonly<Record<string, string>>>;
  writeConfigMap(name: string, data: Readonly<Record<string, string>>): Promise<void>;
  bundles(): Promise<Bundles>;
  /** The canary's entry gets a bundle of its own. False if another writer was faster. */
  writeBundles(bundle: string, canary: string): Promise<boolean>;
}

const decode = (data: Readonly<Record<string, string>> | undefined): Record<string, string> =>
  Object.fromEntries(
    Object.entries(data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
  );
const encode = (text: string): string => Buffer.from(text).toString('base64');

/** False if the object changed since it was read, so that the caller looks again. */
const swapped = async (write: Promise<unknown>): Promise<boolean> => {
  try {
    await write;
    return true;
  } catch (error) {
    if (isConflict(error) || isAlreadyExists(error) || isNotFound(error)) return false;
    throw error;
  }
};

export function certStore(kube: Kube, namespace: string, leads: () => boolean): CertStore {
  const secrets = `/api/v1/namespaces/${namespace}/secrets`;
  const configMaps = `/api/v1/namespaces/${namespace}/configmaps`;
  /**
   * Also before each retry of a request that the server put off: an old leader must not write late.
   */
  const beforeAttempt = (): void => {
    if (!leads()) throw new Error('not leading any more: certificates are left to the next leader');
  };
  const write = (method: Method, path: string, body: unknown): Promise<unknown> =>
    kube.request(method, path, { body, beforeAttempt });
  return {
    async secret(name) {
      try {
        const raw = await kube.request<RawSecret>('GET', `${secrets}/${name}`);
        const { metadata = {}, type, data } = raw;
        return { resourceVersion: metadata.resourceVersion, type, metadata, data: decode(data) };
      } catch (error) {
        if (isNotFound(error)) return { resourceVersion: undefined, type: undefined, metadata: {}, data: {} };
        throw error;
      }
    },
    async writeSecret(name, data, before) {
      const { labels, annotations } = before.metadata;
      const own = { name, namespace, labels: { ...labels, 'app.kubernetes.io/part-of': 'gpu-gate' } };
      const secret = {
        apiVersion: 'v1',
        kind: 'Secret',
        type: TLS,
        data: Object.fromEntries(
          // The type requires both keys, even if they are empty.
          Object.entries({ 'tls.crt': '', 'tls.key': '', ...data }).map(([key, value]) => [key, encode(value)]),
        ),
      };
      const fresh = { ...secret, metadata: { ...own, ...(annotations === undefined ? {} : { annotations }) } };
      if (before.resourceVersion === undefined) return swapped(write('POST', secrets, fresh));
      // A type cannot change in place. The CA's Secret keeps its type, because a leader that died
      // between deletion and creation would take the CA with it.
      if (before.type === TLS || name === CA_SECRET) {
        const type = before.type ?? TLS;
        const metadata = { ...before.metadata, ...own };
        return swapped(write('PUT', `${secrets}/${name}`, { ...secret, type, metadata }));
      }
      const { uid, resourceVersion } = before.metadata;
      const preconditions = { uid, resourceVersion };
      return (
        (await swapped(write('DELETE', `${secrets}/${name}`, { preconditions }))) &&
        swapped(write('POST', secrets, fresh))
      );
    },
    async configMap(name) {
      try {
        return (await kube.request<{ data?: Record<string, string> }>('GET', `${configMaps}/${name}`)).data ?? {};
      } catch (error) {
        if (isNotFound(error)) return {};
        throw error;
      }
    },
    async writeConfigMap(name, data) {
      try {
        const present = await kube.request<{ metadata: { resourceVersion: string }; data?: Record<string, string> }>(
          'GET',
          `${configMaps}/${name}`,
        );
        if (JSON.stringify(present.data) === JSON.stringify(data)) return;
        await swapped(write('PUT', `${configMaps}/${name}`, { ...present, data }));
      } catch (error) {
        if (!isNotFound(error)) throw error;
        const configMap = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data };
        await swapped(write('POST', configMaps, configMap));
      }
    },
    async bundles() {
      try {
        const raw = await kube.request<RawConfiguration>('GET', WEBHOOK_CONFIGURATION_PATH);
        const found = (raw.webhooks ?? []).map((entry) => ({
          name: entry.name,
          bundle: Buffer.from(entry.clientConfig.caBundle ?? '', 'base64').toString('utf8'),
        }));
        return {
          kind: 'present',
          entries: found.filter(({ name }) => name !== CANARY_ENTRY).map(({ bundle }) => bundle),
          canary: found.find(({ name }) => name === CANARY_ENTRY)?.bundle,
        };
      } catch (error) {
        if (isNotFound(error)) return { kind: 'absent' };
        if (isForbidden(error)) return { kind: 'forbidden', because: explain('read') };
        throw error;
      }
    },
    async writeBundles(bundle, canary) {
      const raw = await kube.request<RawConfiguration>('GET', WEBHOOK_CONFIGURATION_PATH);
      const webhooks = (raw.webhooks ?? []).map((entry) => ({
        ...entry,
        clientConfig: { ...entry.clientConfig, caBundle: encode(entry.name === CANARY_ENTRY ? canary : bundle) },
      }));
      try {
        return await swapped(write('PUT', WEBHOOK_CONFIGURATION_PATH, { ...raw, webhooks }));
      } catch (error) {
        if (isForbidden(error)) throw new NotPermitted(explain('update'), { cause: error });
        throw error;
      }
    },
  };
}

/** The ServiceAccount lacks a right that the chart's ClusterRole grants. */
export class NotPermitted extends Error {}

const explain = (verb: string): string =>
  `this ServiceAccount may not ${verb} the MutatingWebhookConfiguration ${WEBHOOK_CONFIGURATION}: give it the ClusterRole gpu-gate-reconciler of the chart`;

/**
 * Watches of the objects that certificates live in, not started yet. Keeps only the resourceVersion
 * of each object, never its contents. They tell the leader of a change, so that what was broken is
 * repaired at once and not at the next check.
 */
export function ownObjects(options: {
  readonly kube: Kube;
  readonly log: Log;
  readonly namespace: string;
  readonly onChange: () => void;
}): Readonly<Record<string, Reflector<string>>> {
  const { kube, log, namespace, onChange } = options;
  const watch = (collection: string, name: string): Reflector<string> =>
    reflector({
      kube,
      log,
      path: collection,
      query: { fieldSelector: `metadata.name=${name}` },
      trim: ({ metadata }: { metadata: { resourceVersion?: string } }) => metadata.resourceVersion ?? '',
      onChange,
    });
  const core = `/api/v1/namespaces/${namespace}`;
  const secrets = [CA_SECRET, WEBHOOK_SECRET, CANARY_SECRET, EXTENDER_SECRET, SCHEDULER_SECRET];
  return {
    ...Object.fromEntries(secrets.map((name) => [`secrets/${name}`, watch(`${core}/secrets`, name)])),
    [`configmaps/${EXTENDER_CA_CONFIG_MAP}`]: watch(`${core}/configmaps`, EXTENDER_CA_CONFIG_MAP),
    mutatingwebhookconfigurations: watch(
      '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
      WEBHOOK_CONFIGURATION,
    ),
  };
}
