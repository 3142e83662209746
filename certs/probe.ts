// What the leader sees from outside: the certificate that each replica serves, whether every API
// server calls the canary, and the API server's time.
import { connect } from 'node:tls';
import { isForbidden, openKube, type Kube, type KubeOptions } from '../platform/kube.ts';
import { explainError } from '../platform/log.ts';
import { dryRunConfigMap, sendCanary } from './canary.ts';
import { readCert, type CertFacts } from './cert.ts';
import type { Replicas, Served } from './chain.ts';

/** The replicas behind a Service. */
export interface Target {
  readonly service: string;
  /** `host:port` of each, in place of the Service's EndpointSlices. */
  readonly replicas: readonly string[];
}

export interface ProbeOptions {
  readonly kube: Kube;
  /** How the API is reached. The canary opens a fresh connection to each server with it. */
  readonly access: KubeOptions;
  readonly namespace: string;
  /** Name in API servers' certificates, whatever their address. */
  readonly apiServerName: string;
  /** `host:port`, in place of the EndpointSlice default/kubernetes. */
  readonly apiServers: readonly string[];
  readonly webhook: Target;
  readonly extender: Target;
}

export interface Probe {
  replicas(of: 'webhook' | 'extender'): Promise<Replicas>;
  /**
   * Sends the canary through every API server. A sentence if one did not bring it back with that
   * certificate.
   */
  canary(leaf: CertFacts): Promise<string | undefined>;
  /**
   * The API server's clock in milliseconds since the epoch, to the second. It is what verifies
   * certificates.
   */
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
    slices.flatMap(({ ports, endpoints }) => {
      const port = (ports ?? []).find(({ name }) => name === portName)?.port;
      const called = (endpoints ?? []).filter(({ conditions }) => conditions?.ready ?? conditions?.serving ?? true);
      return port === undefined
        ? []
        : called.flatMap(({ addresses }) => addresses.map((ip) => `${ip.includes(':') ? `[${ip}]` : ip}:${port}`));
    }),
  ),
];

/** The certificate that an address serves, or why there was no handshake. */
const served = (
  address: string,
  serverName: string,
): Promise<{ readonly leaf: CertFacts | undefined; readonly turnedDown: boolean }> =>
  new Promise((resolve) => {
    const { hostname, port } = new URL(`https://${address}`);
    const socket = connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port === '' ? 443 : port),
      servername: serverName,
      // The question is what it serves. Who signed that is judged afterwards.
      rejectUnauthorized: false,
      timeout: HANDSHAKE_MS,
    });
    const end = (leaf: CertFacts | undefined, turnedDown = false): void => {
      socket.destroy();
      resolve({ leaf, turnedDown });
    };
    socket.on('secureConnect', () => end(readCert(socket.getPeerX509Certificate()?.toString())));
    socket.on('timeout', () => end(undefined));
    // Nobody listens, or a server without a certificate listens.
    socket.on('error', ({ code }: NodeJS.ErrnoException) =>
      end(undefined, /^(ECONNREFUSED|ECONNRESET|ERR_SSL_)/.test(code ?? '')),
    );
  });

export function certProbe(options: ProbeOptions): Probe {
  const { kube, namespace } = options;

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
    try {
      const one = await openKube({
        ...options.access,
        server: `https://${address}`,
        serverName: options.apiServerName,
        freshConnections: true,
      });
      return await sendCanary({ kube: one, address, namespace, leaf });
    } catch (error) {
      return `API server ${address} did not bring the canary back: ${explainError(error)}`;
    }
  };

  const endpointsOf = async (service: string): Promise<readonly string[]> => {
    const { items } = await kube.request<{ items: EndpointSlice[] }>(
      'GET',
      `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`,
      { query: { labelSelector: `kubernetes.io/service-name=${service}` } },
    );
    return addressesOf(items, 'https');
  };

  return {
    async replicas(of) {
      const { service, replicas } = options[of];
      try {
        const addresses = replicas.length > 0 ? replicas : await endpointsOf(service);
        const name = `${service}.${namespace}.svc`;
        const seen = addresses.map(async (address): Promise<Served> => {
          const { leaf, turnedDown } = await served(address, name);
          // An address in an EndpointSlice is that of a ready replica, which a firewall may turn
          // down.
          return turnedDown && replicas.length > 0 ? { address, leaf, idle: true } : { address, leaf };
        });
        return { kind: 'known', served: await Promise.all(seen) };
      } catch (error) {
        if (!isForbidden(error)) throw error;
        return {
          kind: 'unknown',
          because: `the replicas are not known: ${explainError(error)}; name them with --webhook-replicas and --extender-replicas`,
        };
      }
    },
    async canary(leaf) {
      try {
        const answers = await Promise.all((await apiServers()).map((address) => through(address, leaf)));
        return answers.find((problem) => problem !== undefined);
      } catch (error) {
        return `the API servers are not known: ${explainError(error)}; name them with --api-servers`;
      }
    },
    async serverTime() {
      const { metadata } = await kube.request<{ metadata: { creationTimestamp: string } }>(
        'POST',
        `/api/v1/namespaces/${namespace}/configmaps`,
        dryRunConfigMap('gpu-gate-clock', namespace),
      );
      return Date.parse(metadata.creationTimestamp);
    },
  };
}
