// An express application as every server of ours has it: no headers that name it, plain sentences
// for what is not served, and nothing of a request in an answer or on stderr.
import express, { type Express, type ErrorRequestHandler } from 'express';
import { replyText } from './body.ts';

/**
 * `routes` adds the routes; `otherwise` answers every other call with 404. express by itself would
 * write the text of an error, which may quote the request, to stderr and into its answer.
 */
export function expressApp(routes: (app: Express) => unknown, otherwise: string): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  routes(app);
  app.use((_, response) => replyText(response, 404, otherwise));
  // express recognises a handler of errors by its four parameters.
  const failed: ErrorRequestHandler = (error: { readonly status?: unknown } | null | undefined, _, response, __) =>
    replyText(response, error?.status === 400 ? 400 : 500, 'this call cannot be answered');
  app.use(failed);
  return app;
}
