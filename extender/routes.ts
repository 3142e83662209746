// POST /filter, /prioritize and /preempt, answered from memory.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { readBody, reply, replyText } from '../platform/body.ts';
import { expressApp } from '../platform/express.ts';
import { routed } from '../platform/http.ts';
import { errorPlace, type Log } from '../platform/log.ts';
import { byNameWay } from './by-name/way.ts';
import { VERBS, type ExtenderMetrics, type Result, type Verb } from './metrics.ts';
import { plain } from './plain.ts';
import type { Answered, TableView, Tally } from './way.ts';
import { encodeError, encodePreemption } from './wire.ts';

/**
 * Names of 15,000 nodes are 1 MB. Whole nodes (`nodeCacheCapable: false`) are some 20 kB each, so
 * that 800 of them fit. Reading and returning them took 350 MB of the 512 MB that the chart gives a
 * replica. Larger clusters send names, as the chart's configurations do.
 */
export const MAX_BODY = 16 * 1024 * 1024;

export interface ExtenderDeps {
  /** What is known, or one sentence on why no verdict may be given from it. */
  readonly view: () => TableView | { readonly because: string };
  readonly metrics: ExtenderMetrics;
  readonly now: () => number;
  readonly log: Log;
}

interface Answer {
  readonly body: string | Buffer;
  readonly result: Result;
  /**
   * Closes the connection: the scheduler keeps it otherwise and would never ask another replica.
   */
  readonly giveUp?: true;
  /** Counted after the answer is sent. */
  readonly tally?: Tally | undefined;
}

/**
 * An answer in error as the scheduler understands it: an Error that it shows, no scores, no node
 * worth an eviction.
 */
const inError = (verb: Verb, sentence: string, result: Answer['result']): Answer => ({
  body: verb === 'filter' ? encodeError(sentence) : verb === 'prioritize' ? '[]' : encodePreemption(new Map()),
  result,
});

const TOO_LARGE = `the call is larger than ${MAX_BODY} bytes; set nodeCacheCapable: true for this extender, so that the scheduler sends names instead of whole nodes`;

/** The extender's listener. */
export function extenderApp(deps: ExtenderDeps): RequestListener {
  const { metrics, now } = deps;
  const byName = byNameWay();
  const answers: Readonly<Record<Verb, (body: Buffer, view: TableView) => Answered>> = {
    filter: (body, view) => byName.filter(body, view) ?? plain.filter(body, view),
    prioritize(body, view) {
      const at = now();
      return byName.prioritize(body, view, at) ?? plain.prioritize(body, view, at);
    },
    preempt: (body, view) => plain.preempt(body, view),
  };
  const answerTo = (verb: Verb, body: Buffer): Answer => {
    try {
      const view = deps.view();
      if ('because' in view) return { ...inError(verb, view.because, 'error'), giveUp: true };
      const answered = answers[verb](body, view);
      return answered.ok
        ? { body: answered.body, result: 'ok', tally: answered.tally }
        : inError(verb, answered.because, answered.withheld === true ? 'error' : 'malformed');
    } catch (error) {
      deps.log.error('a call of the scheduler was not answered', { verb, error: errorPlace(error) });
      return inError(verb, "gpu-gate's extender failed and logged why; the pod is retried", 'error');
    }
  };
  const serve = (verb: Verb): RequestListener => {
    const observed = { bytes: metrics.bytes.labels(verb), duration: metrics.duration.labels(verb) };
    return (request, response) =>
      readBody(request, MAX_BODY, (body) => {
        if (!body.ok && body.status !== 413) return replyText(response, body.status, body.because);
        if (!body.ok) {
          const tooLarge: Answer = { ...inError(verb, TOO_LARGE, 'malformed'), giveUp: true };
          metrics.calls.inc({ verb, result: tooLarge.result });
          return afterRest(request, () => send(response, tooLarge));
        }
        const began = performance.now();
        const answer = answerTo(verb, body.bytes);
        send(response, answer);
        const took = performance.now() - began;
        if (answer.tally !== undefined) count(metrics, answer.tally);
        metrics.calls.labels(verb, answer.result).inc();
        observed.bytes.observe(body.bytes.length);
        observed.duration.observe(took / 1000);
      });
  };
  const app = expressApp(() => undefined, 'gpu-gate serves POST /filter, /prioritize and /preempt here');
  return routed(new Map(VERBS.map((verb) => [`/${verb}`, serve(verb)])), app);
}

function send(response: ServerResponse, { body, giveUp }: Answer): void {
  if (giveUp === true) response.setHeader('connection', 'close');
  reply(response, 200, 'application/json', body);
}

function count(metrics: ExtenderMetrics, { ask, nodes, passed, refused, wouldRefuse }: Tally): void {
  metrics.nodes.observe(nodes);
  if (passed > 0) metrics.verdicts.inc({ verdict: 'pass', reason: ask.kind === 'pass' ? ask.because : '' }, passed);
  for (const [reason, times] of refused) metrics.verdicts.inc({ verdict: 'refuse', reason }, times);
  if (wouldRefuse > 0) metrics.wouldRefuse.inc(wouldRefuse);
}

/**
 * Waits until the client has finished sending the oversized body. Closing earlier would surface as
 * a broken pipe instead of our error. A body without a length is not waited for.
 */
function afterRest(request: IncomingMessage, done: () => void): void {
  if (request.headers['content-length'] === undefined) return done();
  request.once('end', done);
  request.resume();
}
