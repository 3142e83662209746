// What is seen from outside: which certificate each replica serves, and whether every API server calls the canary with the
// newest CA. The canary is a dry-run ConfigMap: nothing is stored, and the answer is written into what comes back.
import { randomUUID } from 'node:crypto';
import { connect } from 'node:tls';
import { CANARY } from '../core/keys.ts';
import { isForbidden, openKube, type Kube, type KubeOptions } from '../platform/kube.ts';
import { explainError } from '../platform/log.ts';
import { readCert, type CertFacts } from './read.ts';
import type { Replicas } from './webhook-rules.ts';

export interface ProbeOptions {
  readonly kube: Kube;
  /** How the API is reached; the canary opens a fresh connection to each server with it. */
  readonly access: KubeOptions;
  readonly namespace: string;
  /** Name that API servers' certificates carry, whatever their address. */
  readonly apiServerName: string;
  /** `host:port`, in place of the EndpointSlice default/kubernetes. */
  readonly apiServers: readonly string[];
  /** Service of the webhook, and `host:port` in place of its EndpointSlices. */
  readonly service: string;
  readonly replicas: readonly string[];
  readonly serverName: string;
}

export interface Probe {
  replicas(): Promise<Replicas>;
  /** Sends the canary through every API server; a sentence where one did not bring it back with that leaf. */
  canary(leaf: CertFacts): Promise<string | undefined>;
  /** The API server's clock, ms since the epoch, whole seconds: it is what verifies certificates. */
  serverTime(): Promise<number>;
}

interface EndpointSlice {
  ports?: { name?: string; port?: number }[];
  endpoints?: { addresses: string[]; conditions?: { ready?: boolean; serving?: boolean } }[];
}

const HANDSHAKE_MS = 3000;

/** Addresses that calls are sent to, as `host:port`. */
const addressesOf = (slices: readonly EndpointSlice[], portName: string): readonly string[] => [
  ...new Set(
    slices.flatMap(({ ports = [], endpoints }) => {
      const port = (ports ?? []).find(({ name }) => name === portName)?.port;
      const called = (endpoints ?? []).filter(({ conditions }) => conditions?.ready ?? conditions?.serving ?? true);
      return port === undefined
        ? []
        : called.flatMap(({ addresses }) => addresses.map((ip) => `${ip.includes(':') ? `[${ip}]` : ip}:${port}`));
    }),
  ),
];

/** The certificate served at an address; undefined where no handshake came about. */
const served = (address: string, serverName: string): Promise<CertFacts | undefined> =>
  new Promise((resolve) => {
    const { hostname, port } = new URL(`https://${address}`);
    const socket = connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port === '' ? 443 : port),
      servername: serverName,
      // What it serves is the question; who signed it is judged afterwards.
      rejectUnauthorized: false,
      timeout: HANDSHAKE_MS,
    });
    const end = (leaf: CertFacts | undefined): void => {
      socket.destroy();
      resolve(leaf);
    };
    socket.on('secureConnect', () => end(readCert(socket.getPeerX509Certificate()?.toString())));
    socket.on('timeout', () => end(undefined));
    socket.on('error', () => end(undefined));
  });

export function certProbe(options: ProbeOptions): Probe {
  const { kube, namespace } = options;
  const configMaps = `/api/v1/namespaces/${namespace}/configmaps`;
  const dryRun = (name: string, labels: Record<string, string>, data: Record<string, string>) => ({
    query: { dryRun: 'All' },
    timeoutMs: 10_000,
    body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels }, data },
  });

  const apiServers = async (): Promise<readonly string[]> => {
    if (options.apiServers.length > 0) return options.apiServers;
    const slice = await kube.request<EndpointSlice>(
      'GET',
      '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes',
    );
    const found = addressesOf([slice], 'https');
    if (found.length === 0) throw new Error('the EndpointSlice default/kubernetes names no API server');
    return found;
  };

  const through = async (address: string, leaf: CertFacts): Promise<string | undefined> => {
    const challenge = randomUUID();
    try {
      const one = await openKube({
        ...options.access,
        server: `https://${address}`,
        serverName: options.apiServerName,
        freshConnections: true,
      });
      const { data } = await one.request<{ data?: Record<string, string> }>(
        'POST',
        configMaps,
        dryRun(CANARY_NAME, { [CANARY]: 'true' }, { challenge }),
      );
      return data?.['answer'] === canaryAnswer(challenge, leaf.fingerprint)
        ? undefined
        : `API server ${address} does not call the canary as it is configured now`;
    } catch (error) {
      return `API server ${address} did not bring the canary back: ${explainError(error)}`;
    }
  };

  return {
    async replicas() {
      try {
        const addresses =
          options.replicas.length > 0
            ? options.replicas
            : addressesOf(
                (
                  await kube.request<{ items: EndpointSlice[] }>(
                    'GET',
                    `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`,
                    { query: { labelSelector: `kubernetes.io/service-name=${options.service}` } },
                  )
                ).items,
                'https',
              );
        const seen = addresses.map(async (address) => ({ address, leaf: await served(address, options.serverName) }));
        return { kind: 'known', served: await Promise.all(seen) };
      } catch (error) {
        if (!isForbidden(error)) throw error;
        return { kind: 'unknown', because: `the replicas are not known: ${explainError(error)}` };
      }
    },
    async canary(leaf) {
      try {
        const answers = await Promise.all((await apiServers()).map((address) => through(address, leaf)));
        return answers.find((problem) => problem !== undefined);
      } catch (error) {
        return `the API servers are not known: ${explainError(error)}`;
      }
    },
    async serverTime() {
      const { metadata } = await kube.request<{ metadata: { creationTimestamp: string } }>(
        'POST',
        configMaps,
        dryRun('gpu-gate-clock', {}, {}),
      );
      return Date.parse(metadata.creationTimestamp);
    },
  };
}

const CANARY_NAME = 'gpu-gate-canary';

/** What the canary writes into the ConfigMap: which certificate was served to whoever called. */
export const canaryAnswer = (challenge: string, fingerprint: string): string => `${challenge} ${fingerprint}`;
