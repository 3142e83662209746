// Who we are to the API server, and where it is. In a pod that is read from the ServiceAccount's
// files; kubeconfigs are read by the library in a program that ends (credentials-reader.ts). Both
// are read again when one of the files behind them changes.
import { spawn } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { text } from 'node:stream/consumers';

/** How long credentials that the library gets from a program or a provider are used. */
const FLEETING_MS = 60_000;
/** A credential program may wait for input that never comes. */
const ASKING_MS = 20_000;
/**
 * Limit of what comes before it: 0.4 s of work, which a starved machine makes many times longer.
 */
const READING_MS = 60_000;

/** What a pod knows of its API server. */
export interface PodSource {
  /** Folder of the ServiceAccount's files: `token`, `ca.crt` and `namespace`. */
  readonly folder: string;
  /** Address of the API server; `undefined` outside of a pod. */
  readonly host: string | undefined;
  readonly port: string | undefined;
}

/** This process's own pod. */
const thisPod = (): PodSource => ({
  folder: '/var/run/secrets/kubernetes.io/serviceaccount',
  // oxlint-disable-next-line node/no-process-env -- where Kubernetes itself puts the address
  host: process.env['KUBERNETES_SERVICE_HOST'],
  // oxlint-disable-next-line node/no-process-env -- as above
  port: process.env['KUBERNETES_SERVICE_PORT'],
});

export interface Source {
  /**
   * Paths, merged as kubectl does: the first that sets a thing wins. Empty: the pod's
   * ServiceAccount.
   */
  readonly kubeconfigs: readonly string[];
  readonly context?: string | undefined;
  /** Time that a credential program or provider gets; default 20 s. */
  readonly withinMs?: number | undefined;
  /** The pod to read without kubeconfigs; default: this process's own. */
  readonly pod?: PodSource | undefined;
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
  /** Stamps of every file that this was read from, taken just before. */
  readonly files: Readonly<Record<string, string>>;
  /** True if a program or a provider gave it: it may expire without a change of a file. */
  readonly fleeting: boolean;
}
/** The reader's lines: at most one that names the program it runs, then one with the result. */
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

/**
 * The access that a source gives now; many callers share one reading. Rejects with one sentence if
 * there is none.
 */
export async function accessOf(source: Source): Promise<Access> {
  const key = JSON.stringify(source);
  const before = known.get(key);
  if (before !== undefined) {
    const access = await before.access;
    if (holds(access, before.at)) return access;
  }
  // Another caller may have begun while this one waited.
  const now = known.get(key);
  if (now !== undefined && now !== before) return now.access;
  const access = read(source);
  known.set(key, { at: performance.now(), access });
  access.catch(() => known.delete(key));
  return access;
}

/** The access of a pod's ServiceAccount. */
function readPod({ folder, host, port }: PodSource): Access {
  const [token, ca, space] = ['token', 'ca.crt', 'namespace'].map((name) => join(folder, name));
  const paths = [token ?? '', ca ?? '', space ?? ''];
  // Noted before they are read, so that a change in between is seen as one.
  const files = Object.fromEntries(paths.map((path) => [path, stampOf(path)]));
  try {
    if (host === undefined || host === '' || port === undefined) throw new Error('KUBERNETES_SERVICE_HOST is not set');
    const [bearer = '', authority, namespace = ''] = paths.map((path) => readFileSync(path, 'utf8').trim());
    if (bearer === '') throw new Error(`${token} is empty`);
    return {
      server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
      namespace,
      https: { ca: authority, headers: { Authorization: `Bearer ${bearer}` } },
      files,
      fleeting: false,
    };
  } catch (error) {
    throw new Error('no API server to talk to: give --kubeconfig PATH, or run in a pod with a ServiceAccount token', {
      cause: error,
    });
  }
}

/**
 * Beside this file: TypeScript in a checkout and in the image, JavaScript in the kubectl plugin.
 */
const READER = join(import.meta.dirname, `credentials-reader${extname(import.meta.filename)}`);

async function read(source: Source): Promise<Access> {
  if (source.kubeconfigs.length === 0) return readPod(source.pod ?? thisPod());
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
      // The reader has just ended by itself.
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
    // If the reader ends without reading, its own output says why.
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
