// AdmissionReview v1: request body → the pod to decide on, decision → response body. Pure.
import { isObject } from '../core/raw.ts';
import type { RawPod } from '../gate/gpu-request.ts';
import type { Admission } from './inject.ts';
import { misshapen } from './shape.ts';

/** An API server's is a UUID. The answer repeats it. */
const MAX_UID = 128;

export interface Review {
  readonly uid: string;
  readonly namespace: string;
  readonly pod: RawPod;
}

export type Decoded = { readonly ok: true; readonly review: Review } | { readonly ok: false; readonly because: string };

const wrong = (because: string): Decoded => ({ ok: false, because });

/**
 * Parsed JSON → the pod to decide on, or one sentence on what is wrong. The sentence repeats
 * nothing of the body.
 */
export function decode(body: unknown): Decoded {
  if (!isObject(body) || body['kind'] !== 'AdmissionReview')
    return wrong('the body is not an AdmissionReview: only a Kubernetes API server should call /mutate');
  if (body['apiVersion'] !== 'admission.k8s.io/v1')
    return wrong('this version of AdmissionReview is not served: set admissionReviewVersions to [v1]');
  const request = body['request'];
  if (!isObject(request) || typeof request['uid'] !== 'string' || request['uid'] === '')
    return wrong('the AdmissionReview has no request.uid');
  if (request['uid'].length > MAX_UID) return wrong('the request.uid of the AdmissionReview is too long');
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
  const fault = misshapen(pod);
  if (fault !== undefined) return wrong(`${fault} in the Pod: only a Kubernetes API server should call /mutate`);
  const inPod = typeof metadata['namespace'] === 'string' ? metadata['namespace'] : '';
  const namespace =
    typeof request['namespace'] === 'string' && request['namespace'] !== '' ? request['namespace'] : inPod;
  return { ok: true, review: { uid: request['uid'], namespace, pod } };
}

/**
 * Key of the audit annotation. A second call for the same pod needs another key, because the API
 * server keeps the first value of a key and logs a warning of its own.
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
