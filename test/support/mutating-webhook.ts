// A mutating webhook of another product: small, real, over HTTPS with a CA of its own, called for
// every pod of one namespace.
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { readBody, reply } from '../../platform/body.ts';
import { startServer } from '../../platform/http.ts';
import type { Kube } from '../../platform/kube.ts';

export interface ForeignReview {
  readonly request: { readonly uid: string; readonly object: { readonly spec: Readonly<Record<string, unknown>> } };
}

export interface ForeignWebhook {
  readonly calls: () => number;
  remove(): Promise<void>;
}

/**
 * Serves and registers it. The API server calls webhooks in the order of their configurations'
 * names: one below `gpu-gate` comes before ours, one above it after.
 */
export async function foreignWebhook(
  kube: Kube,
  name: string,
  namespace: string,
  patchOf: (review: ForeignReview) => readonly object[],
): Promise<ForeignWebhook> {
  const now = Date.now();
  const ca = await issueCa(name, 3_600_000, now);
  const leaf = await issueLeaf(ca, { name, sans: ['127.0.0.1'], usage: 'server', life: 3_600_000 }, now);
  let calls = 0;
  const server = await startServer({
    port: 0,
    host: '127.0.0.1',
    portOption: 'webhook-port',
    tls: { material: leaf },
    handler: (message, response) =>
      readBody(message, 7 * 1024 * 1024, (body) => {
        if (!body.ok) return reply(response, body.status, 'text/plain', body.because);
        calls += 1;
        const review = JSON.parse(body.bytes.toString()) as ForeignReview;
        const patch = Buffer.from(JSON.stringify(patchOf(review))).toString('base64');
        return reply(
          response,
          200,
          'application/json',
          JSON.stringify({
            apiVersion: 'admission.k8s.io/v1',
            kind: 'AdmissionReview',
            response: { uid: review.request.uid, allowed: true, patchType: 'JSONPatch', patch },
          }),
        );
      }),
  });
  const configurations = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
  await kube.request('POST', configurations, {
    body: {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata: { name },
      webhooks: [
        {
          name: `${name}.example.com`,
          admissionReviewVersions: ['v1'],
          sideEffects: 'None',
          failurePolicy: 'Fail',
          reinvocationPolicy: 'Never',
          clientConfig: {
            url: `https://127.0.0.1:${server.port}/`,
            caBundle: Buffer.from(ca.cert).toString('base64'),
          },
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
          rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
        },
      ],
    },
  });
  return {
    calls: () => calls,
    async remove() {
      await kube.request('DELETE', `${configurations}/${name}`);
      await server.close(1000);
    },
  };
}
