// Who we are to the API server, and where it is: read by the library in a program that ends (credentials-reader.ts), kept here,
// and read anew when one of the files behind it changes.
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { text } from 'node:stream/consumers';

/** The pod's own, where there is no kubeconfig. */
export const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
/** How long credentials that the library makes by a program or a provider are used, ms. */
const FLEETING_MS = 60_000;
/** A credential program that waits for somebody would otherwise be waited for for ever. */
const ASKING_MS = 20_000;
/** For what comes before it: 0.4 s of work, which a starved machine makes many times longer. */
const READING_MS = 60_000;

export interface Source {
  /** Paths, merged as kubectl does: the first that sets a thing wins. Empty: the pod's ServiceAccount. */
  readonly kubeconfigs: readonly string[];
  readonly context?: string | undefined;
  /** What a credential program or provider may take, ms; default 20 s. */
  readonly withinMs?: number | undefined;
}

export interface Access {
  readonly server: string;
  /** The context's. */
  readonly namespace: string;
  /** As node:https takes them; PEM. */
  readonly https: {
    readonly ca?: string | undefined;
    readonly cert?: string | undefined;
    readonly key?: string | undefined;
    readonly servername?: string | undefined;
    readonly rejectUnauthorized?: boolean | undefined;
    readonly auth?: string | undefined;
    readonly headers?: Readonly<Record<string, string>>;
  };
  /** Every file that this was read from, as it was just before. */
  readonly files: Readonly<Record<string, string>>;
  /** Made by a program or a provider: may end without a file changing. */
  readonly fleeting: boolean;
}
/** The reader's lines: at most one that says what it asks, then one with what came of it. */
export type Answer =
  | { readonly asking: string }
  | { readonly access: Access }
  | { readonly error: string; readonly cause?: string | undefined };

interface Known {
  /** ms of the monotonic clock. */
  readonly at: number;
  readonly access: Promise<Access>;
}
const known = new Map<string, Known>();

/** Differs once a file was written or replaced. */
export const stampOf = (path: string): string => {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return `${ino} ${size} ${mtimeMs}`;
  } catch {
    return '';
  }
};

const holds = ({ files, fleeting }: Access, at: number): boolean =>
  Object.entries(files).every(([path, stamp]) => stampOf(path) === stamp) &&
  (!fleeting || performance.now() - at < FLEETING_MS);

/** The access that a source gives now; many callers share one reading. Rejects with one sentence where there is none. */
export async function accessOf(source: Source): Promise<Access> {
  const key = JSON.stringify(source);
  const before = known.get(key);
  if (before !== undefined) {
    const access = await before.access;
    if (holds(access, before.at)) return access;
  }
  // Somebody else may have begun while this one waited.
  const now = known.get(key);
  if (now !== undefined && now !== before) return now.access;
  const access = read(source);
  known.set(key, { at: performance.now(), access });
  access.catch(() => known.delete(key));
  return access;
}

/** Beside this file: TypeScript in a checkout and in the image, JavaScript in the kubectl plugin. */
const READER = join(import.meta.dirname, `credentials-reader${extname(import.meta.filename)}`);

async function read(source: Source): Promise<Access> {
  // A process group of its own, so that a credential program that hangs goes with its reader.
  const child = spawn(process.execPath, [READER], { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
  let written = '';
  let given = READING_MS;
  let late = false;
  const stop = (): void => {
    late = true;
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It ended by itself just now.
    }
  };
  let limit = setTimeout(stop, given);
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const first = written === '';
    written += chunk;
    if (!first) return;
    clearTimeout(limit);
    given = source.withinMs ?? ASKING_MS;
    limit = setTimeout(stop, given);
  });
  try {
    // Where the reader ended without reading, what it wrote tells why.
    child.stdin.on('error', () => undefined).end(JSON.stringify(source));
    const ended = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', () => resolve());
    });
    const [complaint] = await Promise.all([text(child.stderr), ended]);
    const last = written.split('\n').slice(0, -1).at(-1);
    const answer = last === undefined ? undefined : (JSON.parse(last) as Answer);
    if (answer !== undefined && 'access' in answer) return answer.access;
    if (late) {
      const asked = answer !== undefined && 'asking' in answer ? answer.asking : `reading ${nameOf(source)}`;
      throw new Error(`${asked} was stopped: it gave no credentials within ${given / 1000} s`);
    }
    if (answer === undefined || 'asking' in answer)
      throw new Error(`the credentials could not be read: ${complaint.trim().split('\n')[0] ?? ''}`);
    throw answer.cause === undefined
      ? new Error(answer.error)
      : new Error(answer.error, { cause: new Error(answer.cause) });
  } finally {
    clearTimeout(limit);
  }
}

/** A source in a sentence. */
export const nameOf = ({ kubeconfigs }: Source): string =>
  kubeconfigs.length === 0 ? 'the ServiceAccount of the pod' : `kubeconfig ${kubeconfigs.join(':')}`;
