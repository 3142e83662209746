// POST /mutate: bytes → decode → decide → encode → bytes, from memory only. Nothing of a body
// reaches the log, because a pod carries secrets in its variables and a caller may not be an API
// server.
import type { RequestListener } from 'node:http';
import type { RawPod } from '../gate/gpu-request.ts';
import { readBody, reply, replyText } from '../platform/body.ts';
import { nestsDeeper } from '../core/json-depth.ts';
import { expressApp } from '../platform/express.ts';
import { errorPlace, type Log } from '../platform/log.ts';
import { parseReview } from './managed-fields.ts';
import { decide, type Admission, type Facts } from './inject.ts';
import type { Counts, WebhookMetrics } from './metrics.ts';
import { assertApplies } from './patch.ts';
import { decode, encode } from './review.ts';

/** An AdmissionReview holds an object of at most 3 MiB; controller-runtime's limit. */
const MAX_BODY = 7 * 1024 * 1024;

/** Pods nest some 20 deep. */
const DEEPEST = 1000;

export interface WebhookDeps {
  /** Facts for a pod of that namespace; `undefined` while caches are not synced. */
  readonly facts: (namespace: string) => Facts | undefined;
  readonly metrics: WebhookMetrics;
  readonly log: Log;
}

/** The webhook's listener. */
export function webhookApp(deps: WebhookDeps): RequestListener {
  const { metrics } = deps;
  const mutating: RequestListener = (request, response) => {
    if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
      metrics.calls.inc({ outcome: 'malformed', reason: 'content-type' } satisfies Counts);
      return replyText(response, 415, 'send application/json');
    }
    const began = performance.now();
    metrics.inFlight.inc();
    readBody(request, MAX_BODY, (body) => {
      // Nothing above this catches, so an exception here would end the process and every call in
      // flight.
      try {
        if (!body.ok) {
          const counts: Counts = body.status === 503 ? TOO_BUSY : { outcome: 'malformed', reason: 'body' };
          metrics.calls.inc(counts);
          return replyText(response, body.status, body.because);
        }
        const answer = mutate(body.bytes, deps);
        if (answer.status === 200) reply(response, 200, 'application/json', answer.text);
        else replyText(response, answer.status, answer.text);
        metrics.calls.inc(answer.counts);
        metrics.size.observe(body.bytes.length);
        metrics.duration.observe((performance.now() - began) / 1000);
      } catch (error) {
        metrics.calls.inc({ outcome: 'failed', reason: 'internal-error' } satisfies Counts);
        deps.log.error('an admission call failed', { error: errorPlace(error) });
        replyText(response, 500, 'gpu-gate failed on this call; its log says where');
      } finally {
        metrics.inFlight.dec();
      }
    });
  };
  return expressApp((app) => app.post('/mutate', mutating), 'gpu-gate serves POST /mutate here');
}

interface Answer {
  readonly status: 200 | 400 | 503;
  /** JSON with status 200, else one sentence. */
  readonly text: string;
  /** Labels of the metric of calls. */
  readonly counts: Counts;
}

const malformed = (reason: 'json' | 'review', text: string): Answer => ({
  status: 400,
  text,
  counts: { outcome: 'malformed', reason },
});

const TOO_BUSY: Counts = { outcome: 'failed', reason: 'too-busy' };

/** No verdict, so that `failurePolicy` decides; a pod that it lets through is counted as missed. */
const NOT_READY: Answer = {
  status: 503,
  text: 'gpu-gate has not loaded its policies yet: try again in a few seconds',
  counts: { outcome: 'failed', reason: 'not-ready' },
};

function mutate(bytes: Buffer, deps: WebhookDeps): Answer {
  const parsed = parseReview(bytes, (parts) => nestsDeeper(parts, DEEPEST));
  if (parsed === 'too-deep') return malformed('json', `the body nests deeper than ${DEEPEST}`);
  if (parsed === 'not-json')
    return malformed('json', 'the body is not JSON: only a Kubernetes API server should call /mutate');
  const decoded = decode(parsed.value);
  if (!decoded.ok) return malformed('review', decoded.because);
  const { uid, namespace, pod } = decoded.review;
  const facts = deps.facts(namespace);
  if (facts === undefined) return NOT_READY;
  const admission = checked(pod, facts, deps.log);
  return {
    status: 200,
    text: encode(uid, admission),
    counts: countsOf(admission),
  };
}

function countsOf(admission: Admission): Counts {
  switch (admission.kind) {
    case 'inject':
      return { outcome: 'injected', reason: '' };
    case 'leave':
      return { outcome: 'left', reason: admission.reason };
    case 'refuse':
      return { outcome: 'refused', reason: admission.reason };
  }
}

/**
 * A pod on which the rules fail is left alone rather than rejected; the log says where in the
 * rules.
 */
function checked(pod: RawPod, facts: Facts, log: Log): Admission {
  try {
    const admission = decide(pod, facts);
    if (admission.kind === 'inject') assertApplies(pod, admission.operations);
    return admission;
  } catch (error) {
    log.error('pod left alone: injecting it failed', { error: errorPlace(error) });
    return {
      kind: 'leave',
      reason: 'internal-error',
      warnings: ["gpu-gate: this pod could not be injected and was left as it is; gpu-gate's log says why"],
    };
  }
}
