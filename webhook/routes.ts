// POST /mutate: bytes → decode → decide → encode → bytes. From memory only; logs nothing that a metric counts.
import type { RequestListener } from 'node:http';
import express from 'express';
import { readBody, reply, replyText } from '../platform/body.ts';
import { routed } from '../platform/http.ts';
import { explainError, type Log } from '../platform/log.ts';
import { decide, type Admission, type Facts } from './inject.ts';
import type { WebhookMetrics } from './metrics.ts';
import { assertApplies } from './patch.ts';
import { decode, encode, type Review } from './review.ts';

/** An AdmissionReview holds an object of at most 3 MiB; controller-runtime's limit. */
const MAX_BODY = 7 * 1024 * 1024;

export interface WebhookDeps {
  /** Facts for a pod of that namespace; undefined while caches are not synced. */
  readonly facts: (namespace: string) => Facts | undefined;
  readonly metrics: WebhookMetrics;
  readonly log: Log;
}

const UNSYNCED: Admission = {
  kind: 'leave',
  reason: 'not-ready',
  warnings: ['gpu-gate: not ready yet, the pod was left as it is'],
};

/** The webhook's listener. */
export function webhookApp(deps: WebhookDeps): RequestListener {
  const { metrics } = deps;
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.use((_, response) => replyText(response, 404, 'gpu-gate serves POST /mutate here'));
  const mutating: RequestListener = (request, response) => {
    if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
      metrics.calls.inc({ outcome: 'malformed', reason: 'content-type' });
      return replyText(response, 415, 'send application/json');
    }
    const began = performance.now();
    metrics.inFlight.inc();
    readBody(request, MAX_BODY, (body) => {
      if (!body.ok) {
        metrics.calls.inc({ outcome: 'malformed', reason: 'body' });
        replyText(response, body.status, body.because);
      } else {
        const answer = mutate(body.bytes, deps);
        if (answer.ok) reply(response, 200, 'application/json', answer.body);
        else replyText(response, 400, answer.because);
        metrics.calls.inc(answer.counts);
        metrics.size.observe(body.bytes.length);
        metrics.duration.observe((performance.now() - began) / 1000);
      }
      metrics.inFlight.dec();
    });
  };
  return routed(new Map([['/mutate', mutating]]), app);
}

/** `counts`: labels of the metric of calls. */
type Answer = { readonly counts: { readonly outcome: string; readonly reason: string } } & (
  | { readonly ok: true; readonly body: string }
  | { readonly ok: false; readonly because: string }
);

const malformed = (reason: 'json' | 'review', because: string): Answer => ({
  ok: false,
  because,
  counts: { outcome: 'malformed', reason },
});

function mutate(bytes: Buffer, deps: WebhookDeps): Answer {
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString('utf8'));
  } catch {
    return malformed('json', 'the body is not JSON');
  }
  const decoded = decode(parsed);
  if (!decoded.ok) return malformed('review', decoded.because);
  const { review } = decoded;
  const admission = checked(review, deps);
  return {
    ok: true,
    body: encode(review.uid, admission),
    counts: { outcome: OUTCOME[admission.kind], reason: admission.kind === 'inject' ? '' : admission.reason },
  };
}

const OUTCOME = { inject: 'injected', leave: 'left', refuse: 'refused' } as const satisfies Record<
  Admission['kind'],
  string
>;

/** A pod so odd that we fail on it is left alone rather than lost; the log says on what. */
function checked({ pod, namespace }: Review, deps: WebhookDeps): Admission {
  try {
    const facts = deps.facts(namespace);
    if (facts === undefined) return UNSYNCED;
    const admission = decide(pod, facts);
    if (admission.kind === 'inject') assertApplies(pod, admission.operations);
    return admission;
  } catch (error) {
    deps.log.error('pod left alone: injecting it failed', { error: explainError(error), namespace });
    return {
      kind: 'leave',
      reason: 'internal-error',
      warnings: ['gpu-gate: this pod could not be injected and was left as it is'],
    };
  }
}
