// What the measurements of servers share: programs that run side by side, files for them, and a
// client that answers a line with a line.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { ensureOwnProgram } from '../../lab/cluster/binaries.ts';

export interface Running {
  readonly child: ChildProcess;
  /** The next line that it prints. */
  readonly next: () => Promise<string>;
}

export interface Programs {
  readonly start: (command: string, args: readonly string[]) => Running;
  /** Writes a file of this name; returns its path. */
  readonly file: (name: string, text: string) => string;
  /** A certificate for `host`, one of a client, their keys and their CA, as files. */
  readonly certificates: (
    host: string,
  ) => Promise<Readonly<Record<'ca' | 'cert' | 'key' | 'clientCert' | 'clientKey', string>>>;
  /** Ends all, and removes the files. */
  readonly end: () => void;
}

/** Common name of the client's certificate. */
export const CLIENT = 'bench-client';

/** The flags with which the image starts Node.js. */
export function imageFlags(): readonly string[] {
  const text = readFileSync(join(import.meta.dirname, '..', '..', 'Dockerfile'), 'utf8');
  const words = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(text)?.[1] ?? '[]') as string[];
  return words.filter((word) => word.startsWith('-'));
}

export function programs(): Programs {
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-bench-'));
  const children: ChildProcess[] = [];
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  return {
    file,
    start(command, args) {
      const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
      children.push(child);
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      return {
        child,
        async next() {
          const { value, done } = await lines.next();
          if (done === true) throw new Error(`a program of the measurement ended early: ${command} ${args.join(' ')}`);
          return value;
        },
      };
    },
    async certificates(host) {
      const now = Date.now();
      const ca = await issueCa('bench', 86_400_000, now);
      const leaf = await issueLeaf(ca, { name: 'bench', sans: [host], usage: 'server', life: 86_400_000 }, now);
      const client = await issueLeaf(ca, { name: CLIENT, sans: [], usage: 'client', life: 86_400_000 }, now);
      return {
        ca: file('ca', ca.cert),
        cert: file('cert', leaf.cert),
        key: file('key', leaf.key),
        clientCert: file('client-cert', client.cert),
        clientKey: file('client-key', client.key),
      };
    },
    end() {
      for (const child of children) child.kill('SIGKILL');
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

const REFERENCE = join(import.meta.dirname, '..', 'reference');

/** The path of a Go program of bench/reference, which is built once. */
export const goProgram = (name: string, say: (line: string) => void): Promise<string> =>
  ensureOwnProgram(join(REFERENCE, name), name, {
    cacheHome: process.env['XDG_CACHE_HOME'],
    path: process.env['PATH'],
    say,
  });

/** The times that a client answers, in µs. */
export const timesIn = (line: string): number[] => line.trim().split(' ').map(Number);
