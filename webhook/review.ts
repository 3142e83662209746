// AdmissionReview v1: request body → what it asks, decision → response body. Pure.
import { isObject } from '../core/raw.ts';
import type { RawPod } from '../gate/gpu-request.ts';
import type { Admission } from './inject.ts';

export interface Review {
  readonly uid: string;
  readonly namespace: string;
  readonly pod: RawPod;
  readonly dryRun: boolean;
}

export type Decoded = { readonly ok: true; readonly review: Review } | { readonly ok: false; readonly because: string };

const wrong = (because: string): Decoded => ({ ok: false, because });
/** What a sentence repeats of a body must be small and plain: to write out a value nested without end would overflow the stack. */
const echo = (value: unknown): string =>
  typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : 'of no version';

/** Parsed JSON → the pod to decide on, or one sentence on what is wrong with it. */
export function decode(body: unknown): Decoded {
  if (!isObject(body) || body['kind'] !== 'AdmissionReview')
    return wrong('the body is no AdmissionReview: only a Kubernetes API server should call /mutate');
  if (body['apiVersion'] !== 'admission.k8s.io/v1')
    return wrong(`AdmissionReview ${echo(body['apiVersion'])} is not served: set admissionReviewVersions to [v1]`);
  const request = body['request'];
  if (!isObject(request) || typeof request['uid'] !== 'string' || request['uid'] === '')
    return wrong('the AdmissionReview has no request.uid');
  const kind = request['kind'];
  if (!isObject(kind) || kind['kind'] !== 'Pod' || kind['group'] !== '')
    return wrong('the AdmissionReview is not about a Pod: the webhook configuration must name pods only');
  const pod = request['object'];
  if (!isObject(pod) || !isObject(pod['spec']))
    return wrong(
      'the AdmissionReview carries no Pod object with a spec: the webhook configuration must name CREATE only',
    );
  const metadata = pod['metadata'];
  if (!isObject(metadata)) return wrong('the Pod has no metadata: only a Kubernetes API server should call /mutate');
  const inPod = typeof metadata['namespace'] === 'string' ? metadata['namespace'] : '';
  const namespace =
    typeof request['namespace'] === 'string' && request['namespace'] !== '' ? request['namespace'] : inPod;
  return {
    ok: true,
    review: { uid: request['uid'], namespace, pod: pod, dryRun: request['dryRun'] === true },
  };
}

/**
 * Key of the audit annotation. A second call for the same pod needs one of its own: the API server keeps the first value of a key and
 * writes a warning into its own log.
 */
const keyOf = (admission: Admission): string =>
  (admission.kind === 'inject' && admission.again) ||
  (admission.kind === 'leave' && admission.reason === 'already-injected')
    ? 'decision-again'
    : 'decision';

const decisionOf = (admission: Admission): string => {
  switch (admission.kind) {
    case 'refuse':
      return `refused: ${admission.reason}`;
    case 'leave':
      return `left alone: ${admission.reason}`;
    case 'inject':
      return `injected by ${admission.policy}: ${admission.injected.join(', ') || 'its record'}`;
  }
};

/** Decision → AdmissionReview response, as JSON text. */
export function encode(uid: string, admission: Admission): string {
  const response: Record<string, unknown> = { uid, allowed: admission.kind !== 'refuse' };
  if (admission.kind === 'refuse') {
    response['status'] = { code: 403, reason: 'Forbidden', message: admission.because };
  } else {
    if (admission.warnings.length > 0) response['warnings'] = admission.warnings;
    if (admission.kind === 'inject') {
      response['patchType'] = 'JSONPatch';
      response['patch'] = Buffer.from(JSON.stringify(admission.operations)).toString('base64');
    }
  }
  response['auditAnnotations'] = { [keyOf(admission)]: decisionOf(admission) };
  return JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response });
}
