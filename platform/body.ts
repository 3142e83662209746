// Reads a request's body whole, up to a limit, and answers with a length, so that clients keep the
// connection. Both count towards the server's intake.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { placeOf } from './intake.ts';
import { turns } from './turns.ts';

export type Body =
  | { readonly ok: true; readonly bytes: Buffer }
  | { readonly ok: false; readonly status: 413 | 400 | 503; readonly because: string };

/** Bodies above this size are large: answering one takes milliseconds. */
const LARGE = 256 * 1024;
/** Of all servers, because all share the event loop. */
const inTurn = turns();

/**
 * Calls `done` once with the body's bytes, or with why there are none. A body over the limit is not
 * read to its end. Callback instead of a promise: the extra turns of the event loop would delay
 * every concurrent request. Large bodies take turns, between which small ones are answered.
 */
export function readBody(request: IncomingMessage, limit: number, done: (body: Body) => void): void {
  const place = placeOf(request);
  const chunks: Buffer[] = [];
  let over = false;
  const end = (body: Body): void => {
    if (over) return;
    over = true;
    if (!body.ok) place?.hold(0);
    place?.onGivenUp(() => void request.socket.destroy());
    done(body);
  };
  const stop = (status: 413 | 503, because: string): void => {
    chunks.length = 0;
    request.pause();
    end({ ok: false, status, because });
  };
  if (Number(request.headers['content-length'] ?? 0) > limit) return stop(413, tooLarge(limit));
  place?.onGivenUp(() => stop(503, TOO_BUSY));
  let size = 0;
  request.on('data', (chunk: Buffer) => {
    if (over) return;
    size += chunk.length;
    if (size > limit) return stop(413, tooLarge(limit));
    chunks.push(chunk);
    place?.hold(size);
  });
  const whole = (): void => {
    if (over) return;
    end({ ok: true, bytes: chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks) });
  };
  request.on('end', () => (size > LARGE ? inTurn(whole) : whole()));
  const early = (): void => end({ ok: false, status: 400, because: 'the body ended early' });
  request.on('error', early);
  request.on('aborted', early);
}

const tooLarge = (limit: number): string => `the body is larger than ${limit} bytes`;
export const TOO_BUSY = 'gpu-gate has as many calls in flight as its memory allows: try again in a few seconds';

/** Sends a whole answer with its length. */
export function reply(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  if (response.headersSent || response.destroyed) return;
  const length = Buffer.byteLength(body);
  placeOf(response.req)?.hold(length);
  response.writeHead(status, { 'content-type': type, 'content-length': length });
  response.end(body);
}

/**
 * One sentence in plain text. After a body that is not read to its end the connection is of no more
 * use.
 */
export function replyText(response: ServerResponse, status: number, sentence: string): void {
  if (status === 415 || response.req.isPaused()) response.setHeader('connection', 'close');
  reply(response, status, 'text/plain; charset=utf-8', `${sentence}\n`);
}
