// POST /canary: what an API server calls on the canary's port. It writes into the dry-run ConfigMap which certificate this very
// connection was served: an answer over a connection that was kept from before shows the certificate of before.
import type { TLSSocket } from 'node:tls';
import type { Express } from 'express';
import { readBody, reply, replyText } from '../platform/body.ts';
import { expressApp } from '../platform/express.ts';
import { canaryAnswer } from './probe.ts';

const MAX_BODY = 64 * 1024;

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

/** The canary's express application; decides nothing and stores nothing. */
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
