// Reading with a user's own rights: what may not be read is named, and the rest is shown.
import { isForbidden, isNotFound } from './kube.ts';

interface Unread {
  readonly what: string;
  readonly because: string;
}

/**
 * What is read. Without the right, or where it is not there, `otherwise`, and a line in `unread`;
 * other errors are thrown.
 */
export async function attempt<T>(what: string, unread: Unread[], read: () => Promise<T>, otherwise: T): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!isForbidden(error) && !isNotFound(error)) throw error;
    unread.push({ what, because: isForbidden(error) ? 'you have no right to read them' : 'not found' });
    return otherwise;
  }
}
