// Both ends of the canary. One sends a dry-run ConfigMap through an API server, the other is what
// that API server calls: it writes into the ConfigMap which certificate it served on that very
// connection. Nothing is stored, and an answer over a connection that was kept shows the
// certificate that was served before.
import { randomUUID } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Express } from 'express';
import { CANARY } from '../core/keys.ts';
import { readBody, reply, replyText } from '../platform/body.ts';
import { expressApp } from '../platform/express.ts';
import type { Kube } from '../platform/kube.ts';
import { explainError } from '../platform/log.ts';
import type { CertFacts } from './cert.ts';

const CANARY_NAME = 'gpu-gate-canary';
const MAX_BODY = 64 * 1024;

/** What the canary writes into the ConfigMap: the certificate that the caller was served. */
export const canaryAnswer = (challenge: string, fingerprint: string): string => `${challenge} ${fingerprint}`;

/** A ConfigMap that is created on a dry run: it goes through admission and is not stored. */
export const dryRunConfigMap = (
  name: string,
  namespace: string,
  labels: Readonly<Record<string, string>> = {},
  data: Readonly<Record<string, string>> = {},
) => ({
  query: { dryRun: 'All' },
  timeoutMs: 10_000,
  body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels }, data },
});

/**
 * Sends the canary through one API server. A sentence if it did not come back with that
 * certificate.
 */
export async function sendCanary(options: {
  readonly kube: Kube;
  readonly address: string;
  readonly namespace: string;
  readonly leaf: CertFacts;
}): Promise<string | undefined> {
  const { kube, address, namespace, leaf } = options;
  const challenge = randomUUID();
  try {
    const { data } = await kube.request<{ data?: Record<string, string> }>(
      'POST',
      `/api/v1/namespaces/${namespace}/configmaps`,
      dryRunConfigMap(CANARY_NAME, namespace, { [CANARY]: 'true' }, { challenge }),
    );
    return data?.['answer'] === canaryAnswer(challenge, leaf.fingerprint)
      ? undefined
      : `API server ${address} does not call the canary as it is configured now`;
  } catch (error) {
    return `API server ${address} did not bring the canary back: ${explainError(error)}`;
  }
}

interface Review {
  readonly request?: { readonly uid?: unknown; readonly object?: { readonly data?: { readonly challenge?: unknown } } };
}

const parse = (bytes: Buffer): Review | undefined => {
  try {
    const parsed = JSON.parse(bytes.toString('utf8')) as unknown;
    return typeof parsed === 'object' && parsed !== null ? parsed : undefined;
  } catch {
    return undefined;
  }
};

/** What an API server calls on the canary's port. */
export function canaryApp(): Express {
  const routes = (app: Express): unknown =>
    app.post('/canary', (request, response) =>
      readBody(request, MAX_BODY, (body) => {
        if (!body.ok) return replyText(response, body.status, body.because);
        const review = parse(body.bytes);
        const uid = review?.request?.uid;
        const challenge = review?.request?.object?.data?.challenge;
        if (typeof uid !== 'string' || typeof challenge !== 'string')
          return replyText(response, 400, 'send the AdmissionReview of a ConfigMap with data.challenge');
        const served: { readonly fingerprint256?: string } | null = (request.socket as TLSSocket).getCertificate();
        const operations = [
          { op: 'add', path: '/data/answer', value: canaryAnswer(challenge, served?.fingerprint256 ?? '') },
        ];
        const patch = Buffer.from(JSON.stringify(operations)).toString('base64');
        reply(
          response,
          200,
          'application/json',
          JSON.stringify({
            apiVersion: 'admission.k8s.io/v1',
            kind: 'AdmissionReview',
            response: { uid, allowed: true, patchType: 'JSONPatch', patch },
          }),
        );
      }),
    );
  return expressApp(routes, 'gpu-gate serves POST /canary here');
}
