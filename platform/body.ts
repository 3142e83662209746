// Reads a request's body whole, up to a limit; and answers with a length, so that clients keep the connection.
import type { IncomingMessage, ServerResponse } from 'node:http';

export type Body =
  | { readonly ok: true; readonly bytes: Buffer }
  | { readonly ok: false; readonly status: 413 | 400; readonly because: string };

/**
 * Hands over the body's bytes, or why there are none: once, from the event that decides it. A body over the limit is not read to its
 * end. No promise: on the request path its turns of the loop would be waited for by everybody.
 */
export function readBody(request: IncomingMessage, limit: number, done: (body: Body) => void): void {
  let over = false;
  const end = (body: Body): void => {
    if (over) return;
    over = true;
    done(body);
  };
  const tooLarge: Body = { ok: false, status: 413, because: `the body is larger than ${limit} bytes` };
  if (Number(request.headers['content-length'] ?? 0) > limit) return end(tooLarge);
  const chunks: Buffer[] = [];
  let size = 0;
  request.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > limit) {
      chunks.length = 0;
      request.pause();
      end(tooLarge);
    } else chunks.push(chunk);
  });
  request.on('end', () =>
    end({ ok: true, bytes: chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks) }),
  );
  const early = (): void => end({ ok: false, status: 400, because: 'the body ended early' });
  request.on('error', early);
  request.on('aborted', early);
}

/** Sends a whole answer with its length. */
export function reply(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

/** One sentence in plain text. After a body that was not read the connection is of no more use. */
export function replyText(response: ServerResponse, status: number, sentence: string): void {
  if (status === 413 || status === 415) response.setHeader('connection', 'close');
  reply(response, status, 'text/plain; charset=utf-8', `${sentence}\n`);
}
