// POST /mutate: bytes → decode → decide → encode → bytes. From memory only; logs nothing that a metric counts.
import express, { type Express } from 'express';
import { readBody, reply, replyText } from '../platform/body.ts';
import { explainError, type Log } from '../platform/log.ts';
import { decide, type Admission, type Facts } from './inject.ts';
import type { WebhookMetrics } from './metrics.ts';
import { assertApplies } from './patch.ts';
import { decode, encode } from './review.ts';

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

/** The webhook's express application. */
export function webhookApp(deps: WebhookDeps): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.post('/mutate', async (request, response) => {
    deps.metrics.inFlight.inc();
    try {
      if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
        deps.metrics.calls.inc({ outcome: 'malformed', reason: 'content-type' });
        return replyText(response, 415, 'send application/json');
      }
      const body = await readBody(request, MAX_BODY);
      if (!body.ok) {
        deps.metrics.calls.inc({ outcome: 'malformed', reason: 'body' });
        return replyText(response, body.status, body.because);
      }
      const began = performance.now();
      deps.metrics.size.observe(body.bytes.length);
      const answer = mutate(body.bytes, deps);
      deps.metrics.duration.observe((performance.now() - began) / 1000);
      if (answer.ok) reply(response, 200, 'application/json', answer.body);
      else replyText(response, 400, answer.because);
    } finally {
      deps.metrics.inFlight.dec();
    }
  });
  app.use((_, response) => replyText(response, 404, 'gpu-gate serves POST /mutate here'));
  return app;
}

type Answer = { readonly ok: true; readonly body: string } | { readonly ok: false; readonly because: string };

function mutate(bytes: Buffer, deps: WebhookDeps): Answer {
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString('utf8'));
  } catch {
    deps.metrics.calls.inc({ outcome: 'malformed', reason: 'json' });
    return { ok: false, because: 'the body is not JSON' };
  }
  const decoded = decode(parsed);
  if (!decoded.ok) {
    deps.metrics.calls.inc({ outcome: 'malformed', reason: 'review' });
    return decoded;
  }
  const { review } = decoded;
  const facts = deps.facts(review.namespace);
  const admission = facts === undefined ? UNSYNCED : checked(review.pod, facts, deps.log);
  deps.metrics.calls.inc({
    outcome: OUTCOME[admission.kind],
    reason: admission.kind === 'inject' ? '' : admission.reason,
  });
  return { ok: true, body: encode(review.uid, admission) };
}

const OUTCOME = { inject: 'injected', leave: 'left', refuse: 'refused' } as const satisfies Record<
  Admission['kind'],
  string
>;

/** A pod so odd that our patch does not fit it is left alone rather than lost. */
function checked(pod: Parameters<typeof decide>[0], facts: Facts, log: Log): Admission {
  try {
    const admission = decide(pod, facts);
    if (admission.kind === 'inject') assertApplies(pod, admission.operations);
    return admission;
  } catch (error) {
    log.error('pod left alone: the patch does not fit it', { error: explainError(error), namespace: facts.namespace });
    return {
      kind: 'leave',
      reason: 'not-ready',
      warnings: ['gpu-gate: this pod could not be injected and was left as it is'],
    };
  }
}
