// Processes and folders of a test that must not outlive it, whatever ends it: stopped in reverse
// order by the test itself, or killed by a watchdog when the test's process is gone, be it by
// SIGKILL.
import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheFolder } from './binaries.ts';

export interface Running {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  /** undefined while it runs. */
  exitCode(): number | string | undefined;
  /** SIGTERM, then SIGKILL after `graceMs`. */
  stop(graceMs?: number): Promise<void>;
}

/**
 * How long anything is waited for. A state that comes at all comes within seconds; this is for a
 * machine that does much else: with a load of 20 on two cores an API server took two minutes to
 * start. It is below five minutes, after which the scheduler looks at every waiting pod again,
 * whether anything woke it or not.
 */
export const PATIENCE_MS = 240_000;

/** Processes of gpu-gate start with what earlier ones compiled, as in the image. */
const NODE_COMPILE_CACHE = join(cacheFolder(process.env['XDG_CACHE_HOME']), 'compiled');

export interface Lifetime {
  readonly dir: string;
  /**
   * `graceMs`: how long it may take to end at the lifetime's stop; 0: it is killed, with no data to
   * save.
   */
  start(
    name: string,
    command: string,
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
    graceMs?: number,
  ): Running;
  /** Something else to undo at the end, in reverse order with the processes. */
  onStop(undo: () => Promise<void>): void;
  stop(): Promise<void>;
  /** What ends from here on ends for good. */
  isStopping(): boolean;
}

/** The last lines of a log file, for the sentence on why something did not start. */
export const tailOf = (file: string, lines = 15): string => {
  try {
    return readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-lines)
      .map((line) => `    ${line}`)
      .join('\n');
  } catch {
    return '    (no log)';
  }
};

/**
 * A fresh folder, and a watchdog that removes it and kills what was started should this process
 * die.
 */
export function openLifetime(prefix: string): Lifetime {
  const dir = mkdtempSync(join(tmpdir(), `gpu-gate-${prefix}-`));
  const pids = join(dir, 'pids');
  writeFileSync(pids, '');
  const script = `trap "" INT TERM HUP; cat >/dev/null; [ -f "${pids}" ] && kill -9 $(cat "${pids}") 2>/dev/null; sleep 0.2; rm -rf "${dir}"`;
  const watchdog = spawn('sh', ['-c', script], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  watchdog.unref();
  (watchdog.stdin as unknown as { unref(): void }).unref();
  const undo: (() => Promise<void>)[] = [];
  let stopping: Promise<void> | undefined;

  const start = (
    name: string,
    command: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    graceMs = 5000,
  ): Running => {
    const logFile = join(dir, `${name}.log`);
    const log = openSync(logFile, 'a');
    // Its own process group: Ctrl-C in a terminal must reach only us, who stop things in order.
    const child: ChildProcess = spawn(command, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { PATH: process.env['PATH'] ?? '', HOME: dir, NODE_COMPILE_CACHE, ...env },
    });
    closeSync(log);
    let code: number | string | undefined;
    const ended = new Promise<void>((resolve) => {
      child.on('exit', (exit, signal) => {
        code = exit ?? signal ?? 'unknown';
        resolve();
      });
      child.on('error', (error) => {
        code = error.message;
        resolve();
      });
    });
    const pid = child.pid ?? 0;
    if (pid > 0) appendFileSync(pids, `${pid}\n`);
    const running: Running = {
      name,
      pid,
      logFile,
      exitCode: () => code,
      async stop(graceMs = 5000) {
        if (code !== undefined) return;
        if (graceMs === 0) child.kill('SIGKILL');
        else child.kill('SIGTERM');
        const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
        await ended;
        clearTimeout(timer);
      },
    };
    undo.push(() => running.stop(graceMs));
    return running;
  };

  return {
    dir,
    start,
    onStop: (action) => void undo.push(action),
    isStopping: () => stopping !== undefined,
    stop() {
      stopping ??= (async () => {
        for (const action of undo.toReversed()) await action();
        rmSync(dir, { recursive: true, force: true });
        watchdog.stdin?.end();
        // The watchdog's own end is awaited, so that a stopped test leaves no process at all.
        const ended = new AbortController();
        const late = sleep(PATIENCE_MS, undefined, { signal: ended.signal }).catch(() => undefined);
        await Promise.race([new Promise((resolve) => watchdog.once('exit', resolve)), late]);
        ended.abort();
      })();
      return stopping;
    },
  };
}

/**
 * Waits until `check` holds; rejects with one sentence and the log's tail where the process ends or
 * time runs out.
 */
export async function untilReady(
  process_: Running,
  check: () => Promise<boolean>,
  timeoutMs = PATIENCE_MS,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (Date.now() < end) {
    const code = process_.exitCode();
    if (code !== undefined)
      throw new Error(`${process_.name} ended at once (${code}); the end of its log:\n${tailOf(process_.logFile)}`);
    if (await check().catch(() => false)) return;
    await sleep(100);
  }
  throw new Error(
    `${process_.name} was not ready within ${Math.round(timeoutMs / 1000)} s; the end of its log:\n${tailOf(process_.logFile)}`,
  );
}
