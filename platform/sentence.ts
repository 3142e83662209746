// An error of the API as one sentence for the person at a terminal, with the next step. It may hold
// what others wrote.
import { isForbidden, NotReached } from './kube.ts';
import { explainError } from './log.ts';

export function sentenceOf(error: unknown): string {
  const words = explainError(error);
  if (isForbidden(error)) return `${words}; ask a cluster administrator for that right`;
  if (error instanceof NotReached) return `${words}; check with kubectl cluster-info that this is the cluster you mean`;
  return words;
}
