// Who we are to the API server, and where it is: read by the library in a program that ends (credentials-reader.ts), kept here,
// and read anew when the files behind it change.
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

/** The pod's own, where there is no kubeconfig. */
export const TOKEN_FILE = '/var/run/secrets/kubernetes.io/serviceaccount/token';
/** How long credentials that the library makes by a program or a provider are used, ms. */
const FLEETING_MS = 60_000;

export interface Source {
  /** Path; empty: the pod's ServiceAccount. */
  readonly kubeconfig: string;
  readonly context?: string | undefined;
}

export interface Access {
  readonly server: string;
  /** As node:https takes them; PEM. */
  readonly https: {
    readonly ca?: string | undefined;
    readonly cert?: string | undefined;
    readonly key?: string | undefined;
    readonly rejectUnauthorized?: boolean | undefined;
    readonly auth?: string | undefined;
    readonly headers?: Readonly<Record<string, string>>;
  };
  /** Made by a program or a provider, or from a further file: may end without the source's file changing. */
  readonly fleeting: boolean;
}
export type Answer = { readonly access: Access } | { readonly error: string; readonly cause?: string | undefined };

interface Known {
  readonly changed: number;
  /** ms of the monotonic clock. */
  readonly at: number;
  readonly access: Promise<Access>;
}
const known = new Map<string, Known>();

const changedAt = (path: string): number => {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return 0;
  }
};

/** The access that a source gives now; many callers share one reading. Rejects with one sentence where there is none. */
export async function accessOf(source: Source): Promise<Access> {
  const key = `${source.kubeconfig}\n${source.context ?? ''}`;
  const changed = changedAt(source.kubeconfig === '' ? TOKEN_FILE : source.kubeconfig);
  const before = known.get(key);
  if (before?.changed === changed) {
    const access = await before.access;
    if (!access.fleeting || performance.now() - before.at < FLEETING_MS) return access;
  }
  // Somebody else may have begun while this one waited.
  const now = known.get(key);
  if (now !== undefined && now !== before && now.changed === changed) return now.access;
  const access = read(source);
  known.set(key, { changed, at: performance.now(), access });
  access.catch(() => known.delete(key));
  return access;
}

const READER = join(import.meta.dirname, 'credentials-reader.ts');

async function read(source: Source): Promise<Access> {
  const child = spawn(process.execPath, [READER], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.end(JSON.stringify(source));
  const failed = new Promise<never>((_, reject) => child.once('error', reject));
  const [written, complaint] = await Promise.race([Promise.all([text(child.stdout), text(child.stderr)]), failed]);
  if (written === '') throw new Error(`the credentials could not be read: ${complaint.trim().split('\n')[0] ?? ''}`);
  const answer = JSON.parse(written) as Answer;
  if ('access' in answer) return answer.access;
  throw answer.cause === undefined
    ? new Error(answer.error)
    : new Error(answer.error, { cause: new Error(answer.cause) });
}
