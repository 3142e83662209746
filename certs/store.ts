// The objects that certificates live in: Secrets, the extender's CA ConfigMap, the webhook's caBundle. Every write is a
// compare-and-swap by resourceVersion; what is the same already is not written.
import { WEBHOOK_CONFIGURATION } from '../core/keys.ts';
import { isAlreadyExists, isConflict, isNotFound, type Kube } from '../platform/kube.ts';

export const CA_SECRET = 'gpu-gate-ca';
export const WEBHOOK_SECRET = 'gpu-gate-webhook-tls';
export const EXTENDER_SECRET = 'gpu-gate-extender-tls';
export const EXTENDER_CA_CONFIG_MAP = 'gpu-gate-extender-ca';

export interface Stored {
  readonly resourceVersion: string | undefined;
  /** Decoded texts. */
  readonly data: Readonly<Record<string, string>>;
}

interface RawSecret {
  metadata?: { resourceVersion?: string };
  data?: Record<string, string>;
  webhooks?: { name: string; clientConfig: { caBundle?: string } }[];
}

const WEBHOOKS = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${WEBHOOK_CONFIGURATION}`;

export interface CertStore {
  secret(name: string): Promise<Stored>;
  /** False: somebody else wrote meanwhile; look again. */
  writeSecret(name: string, type: string, data: Readonly<Record<string, string>>, before: Stored): Promise<boolean>;
  writeConfigMap(name: string, data: Readonly<Record<string, string>>): Promise<void>;
  /** The caBundles of the webhook configuration by entry; undefined: it is not installed. */
  caBundles(): Promise<ReadonlyMap<string, string> | undefined>;
  writeCaBundle(bundle: string): Promise<boolean>;
}

const decode = (data: Readonly<Record<string, string>> | undefined): Record<string, string> =>
  Object.fromEntries(
    Object.entries(data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
  );

/** False for the outcomes that mean "look again". */
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
  const guard = (): void => {
    if (!leads()) throw new Error('not leading any more: certificates are left to the next leader');
  };
  return {
    async secret(name) {
      try {
        const raw = await kube.request<RawSecret>('GET', `${secrets}/${name}`);
        return { resourceVersion: raw.metadata?.resourceVersion, data: decode(raw.data) };
      } catch (error) {
        if (isNotFound(error)) return { resourceVersion: undefined, data: {} };
        throw error;
      }
    },
    writeSecret(name, type, data, before) {
      guard();
      const body = {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: {
          name,
          namespace,
          labels: { 'app.kubernetes.io/part-of': 'gpu-gate' },
          ...(before.resourceVersion === undefined ? {} : { resourceVersion: before.resourceVersion }),
        },
        type,
        data: Object.fromEntries(
          Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
        ),
      };
      return swapped(
        before.resourceVersion === undefined
          ? kube.request('POST', secrets, { body })
          : kube.request('PUT', `${secrets}/${name}`, { body }),
      );
    },
    async writeConfigMap(name, data) {
      try {
        const present = await kube.request<{ metadata: { resourceVersion: string }; data?: Record<string, string> }>(
          'GET',
          `${configMaps}/${name}`,
        );
        if (JSON.stringify(present.data) === JSON.stringify(data)) return;
        guard();
        await swapped(kube.request('PUT', `${configMaps}/${name}`, { body: { ...present, data } }));
      } catch (error) {
        if (!isNotFound(error)) throw error;
        guard();
        await swapped(
          kube.request('POST', configMaps, {
            body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data },
          }),
        );
      }
    },
    async caBundles() {
      try {
        const raw = await kube.request<RawSecret>('GET', WEBHOOKS);
        return new Map(
          (raw.webhooks ?? []).map((entry) => [
            entry.name,
            Buffer.from(entry.clientConfig.caBundle ?? '', 'base64').toString('utf8'),
          ]),
        );
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    },
    async writeCaBundle(bundle) {
      const raw = await kube.request<RawSecret>('GET', WEBHOOKS);
      guard();
      const encoded = Buffer.from(bundle).toString('base64');
      const webhooks = (raw.webhooks ?? []).map((entry) => ({
        ...entry,
        clientConfig: { ...entry.clientConfig, caBundle: encoded },
      }));
      return swapped(kube.request('PUT', WEBHOOKS, { body: { ...raw, webhooks } }));
    },
  };
}
