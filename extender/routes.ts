// POST /filter, /prioritize, /preempt: bytes → decode → verdicts → bytes. From memory only.
import express, { type Express, type Request, type Response } from 'express';
import { readBody, reply, replyText } from '../platform/body.ts';
import { filter, preempt, prioritize, type View } from './filter.ts';
import { reasonLabel, type ExtenderMetrics } from './metrics.ts';
import { decodeArgs, decodePreemption, encodeError, encodeFilter, encodePreemption } from './wire.ts';

/** 5,000 whole nodes are about 100 MB; names of 15,000 are 1 MB. Whole nodes of a mid-sized cluster fit. */
const MAX_BODY = 64 * 1024 * 1024;

export interface ExtenderDeps {
  /** undefined while caches are not synced. */
  readonly view: () => View | undefined;
  readonly metrics: ExtenderMetrics;
  readonly now: () => number;
}

type Verb = 'filter' | 'prioritize' | 'preempt';
interface Answer {
  readonly body: string;
  readonly result: 'ok' | 'error';
}

/** The extender's express application. */
export function extenderApp(deps: ExtenderDeps): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  const serve =
    (verb: Verb, answer: (body: unknown, view: View) => Answer) => async (request: Request, response: Response) => {
      const body = await readBody(request, MAX_BODY);
      if (!body.ok) return replyText(response, body.status, body.because);
      const began = performance.now();
      let parsed: unknown;
      try {
        parsed = JSON.parse(body.bytes.toString('utf8'));
      } catch {
        deps.metrics.calls.inc({ verb, result: 'malformed' });
        return replyText(response, 400, 'the body is not JSON');
      }
      const view = deps.view();
      const { body: text, result } =
        view === undefined
          ? { body: encodeError('node states are not loaded yet, the pod is tried again'), result: 'error' as const }
          : answer(parsed, view);
      deps.metrics.calls.inc({ verb, result });
      reply(response, 200, 'application/json', text);
      deps.metrics.duration.observe({ verb }, (performance.now() - began) / 1000);
    };
  app.post(
    '/filter',
    serve('filter', (body, view) => answerFilter(body, view, deps.metrics)),
  );
  app.post(
    '/prioritize',
    serve('prioritize', (body, view) => {
      const decoded = decodeArgs(body);
      return decoded.ok
        ? { body: JSON.stringify(prioritize(decoded.args, view, deps.now())), result: 'ok' }
        : { body: '[]', result: 'error' };
    }),
  );
  app.post(
    '/preempt',
    serve('preempt', (body, view) => {
      const decoded = decodePreemption(body);
      return decoded.ok
        ? { body: encodePreemption(preempt(decoded.args, view)), result: 'ok' }
        : { body: encodePreemption(new Map()), result: 'error' };
    }),
  );
  app.use((_, response) => replyText(response, 404, 'gpu-gate serves POST /filter, /prioritize and /preempt here'));
  return app;
}

function answerFilter(body: unknown, view: View, metrics: ExtenderMetrics): Answer {
  const decoded = decodeArgs(body);
  if (!decoded.ok) return { body: encodeError(decoded.because), result: 'error' };
  const { ask, result } = filter(decoded.args, view);
  metrics.nodes.observe(decoded.args.names.length);
  if (result.passed.length > 0)
    metrics.verdicts.inc({ verdict: 'pass', reason: ask.kind === 'pass' ? ask.because : '' }, result.passed.length);
  const counts = new Map<string, number>();
  for (const reason of result.refused.values()) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  for (const [reason, count] of counts) metrics.verdicts.inc({ verdict: 'refuse', reason: reasonLabel(reason) }, count);
  if (ask.kind === 'pass' && ask.because === 'auditing') {
    metrics.wouldRefuse.inc(decoded.args.names.filter((name) => view.node(name)?.closed !== undefined).length);
  }
  return { body: encodeFilter(result, decoded.args.nodes), result: 'ok' };
}
