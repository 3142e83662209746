// POST /filter, /prioritize and /preempt, answered from memory.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { readBody, reply, replyText } from '../platform/body.ts';
import { nestsDeeper } from '../platform/json-depth.ts';
import { expressApp } from '../platform/express.ts';
import { routed } from '../platform/http.ts';
import { errorPlace, type Log } from '../platform/log.ts';
import { NameAnswers } from './by-name/answer.ts';
import { askIn, filter, preempt, prioritize, type View } from './verbs.ts';
import type { ExtenderMetrics } from './metrics.ts';
import { NameScanner } from './by-name/scan.ts';
import type { NodeTable } from './by-name/table.ts';
import type { Ask } from '../gate/verdict.ts';
import {
  decodeArgs,
  decodePreemption,
  encodeError,
  encodeFilter,
  encodePreemption,
  type Decoded,
  type ExtenderArgs,
} from './wire.ts';

/**
 * Names of 15,000 nodes are 1 MB. Whole nodes (`nodeCacheCapable: false`) are some 20 kB each, so
 * that 800 of them fit. Reading and returning them took 350 MB of the 512 MB that the chart gives a
 * replica. Larger clusters send names, as the chart's configurations do.
 */
export const MAX_BODY = 16 * 1024 * 1024;

/** Pods and nodes nest some 20 deep. */
const DEEPEST = 1000;

export interface ExtenderDeps {
  /** What is known, or one sentence on why no verdict may be given from it. */
  readonly view: () => View | { readonly because: string };
  /** The nodes of the view. */
  readonly nodes: NodeTable;
  readonly metrics: ExtenderMetrics;
  readonly now: () => number;
  readonly log: Log;
}

type Verb = 'filter' | 'prioritize' | 'preempt';
interface Answer {
  readonly body: string | Buffer;
  readonly result: 'ok' | 'error' | 'malformed';
  /**
   * Closes the connection: the scheduler keeps it otherwise and would never ask another replica.
   */
  readonly giveUp?: true;
  /** Counts, after the answer is sent. */
  readonly count?: () => void;
}

/**
 * An answer in error as the scheduler understands it: an Error that it shows, no scores, no node
 * worth an eviction.
 */
const inError = (verb: Verb, sentence: string, result: Answer['result']): Answer => ({
  body: verb === 'filter' ? encodeError(sentence) : verb === 'prioritize' ? '[]' : encodePreemption(new Map()),
  result,
});

/** The extender's listener. */
export function extenderApp(deps: ExtenderDeps): RequestListener {
  const { metrics } = deps;
  const scanner = new NameScanner();
  const answers = new NameAnswers(deps.nodes);

  const filterAnswer = (body: Buffer, view: View): Answer => {
    const call = scanner.scan(body);
    if (call !== undefined) {
      const ask = askIn(view, call.pod);
      const answer = answers.filter(call, ask);
      if (answer !== undefined) {
        const { passed, refused, wouldRefuse, bytes } = answer;
        return { body: bytes, result: 'ok', count: () => count(call.count, ask, passed, refused, wouldRefuse) };
      }
    }
    return plainly('filter', body, (args) => {
      const { ask, result } = filter(args, view);
      const labels = new Map<string, number>();
      for (const { label } of result.refused.values()) labels.set(label, (labels.get(label) ?? 0) + 1);
      count(args.names.length, ask, result.passed.length, labels, result.wouldRefuse);
      return encodeFilter(result, args.nodes);
    });
  };
  const prioritizeAnswer = (body: Buffer, view: View): Answer => {
    const call = scanner.scan(body);
    const ask = call && askIn(view, call.pod);
    const list = call && ask && answers.prioritize(call, ask, deps.now());
    return list === undefined
      ? plainly('prioritize', body, (args) => JSON.stringify(prioritize(args, view, deps.now())))
      : { body: list, result: 'ok' };
  };
  const preemptAnswer = (body: Buffer, view: View): Answer => {
    const decoded = parsed(body, decodePreemption);
    return decoded.ok
      ? { body: encodePreemption(preempt(decoded.args, view)), result: 'ok' }
      : inError('preempt', decoded.because, 'malformed');
  };
  const plainly = (verb: Verb, body: Buffer, answer: (args: ExtenderArgs) => string): Answer => {
    const decoded = parsed(body, decodeArgs);
    return decoded.ok ? { body: answer(decoded.args), result: 'ok' } : inError(verb, decoded.because, 'malformed');
  };
  const count = (
    nodes: number,
    ask: Ask,
    passed: number,
    refused: ReadonlyMap<string, number>,
    wouldRefuse: number,
  ): void => {
    metrics.nodes.observe(nodes);
    if (passed > 0) metrics.verdicts.inc({ verdict: 'pass', reason: ask.kind === 'pass' ? ask.because : '' }, passed);
    for (const [reason, times] of refused) metrics.verdicts.inc({ verdict: 'refuse', reason }, times);
    if (wouldRefuse > 0) metrics.wouldRefuse.inc(wouldRefuse);
  };

  const answerTo = (verb: Verb, answer: (body: Buffer, view: View) => Answer, body: Buffer): Answer => {
    try {
      const view = deps.view();
      return 'because' in view ? { ...inError(verb, view.because, 'error'), giveUp: true } : answer(body, view);
    } catch (error) {
      deps.log.error('a call of the scheduler was not answered', { verb, error: errorPlace(error) });
      return inError(verb, "gpu-gate's extender failed and logged why; the pod is retried", 'error');
    }
  };
  const send = (response: ServerResponse, { body, giveUp }: Answer): void => {
    if (giveUp === true) response.setHeader('connection', 'close');
    reply(response, 200, 'application/json', body);
  };
  const serve = (verb: Verb, answer: (body: Buffer, view: View) => Answer): RequestListener => {
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
        const answered = answerTo(verb, answer, body.bytes);
        send(response, answered);
        const took = performance.now() - began;
        answered.count?.();
        metrics.calls.labels(verb, answered.result).inc();
        observed.bytes.observe(body.bytes.length);
        observed.duration.observe(took / 1000);
      });
  };
  const app = expressApp(() => undefined, 'gpu-gate serves POST /filter, /prioritize and /preempt here');
  return routed(
    new Map([
      ['/filter', serve('filter', filterAnswer)],
      ['/prioritize', serve('prioritize', prioritizeAnswer)],
      ['/preempt', serve('preempt', preemptAnswer)],
    ]),
    app,
  );
}

const TOO_LARGE = `the call is larger than ${MAX_BODY} bytes; set nodeCacheCapable: true for this extender, so that the scheduler sends names instead of whole nodes`;

/**
 * Waits until the client has finished sending the oversized body. Closing earlier would surface as
 * a broken pipe instead of our error. A body without a length is not waited for.
 */
function afterRest(request: IncomingMessage, done: () => void): void {
  if (request.headers['content-length'] === undefined) return done();
  request.once('end', done);
  request.resume();
}

const parsed = <T>(body: Buffer, decode: (value: unknown) => Decoded<T>): Decoded<T> => {
  if (nestsDeeper([body], DEEPEST)) return { ok: false, because: `the body nests deeper than ${DEEPEST}` };
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    return { ok: false, because: 'the body is not JSON: only a kube-scheduler should call this' };
  }
  return decode(value);
};
