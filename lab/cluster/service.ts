// systemd's part: a process that comes back when it ends, until it is not wanted any more.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Lifetime, Running } from './lifetime.ts';

export interface Service {
  start(): void;
  /** Ends the process; what is wanted comes back. */
  end(graceMs: number): Promise<void>;
  stop(graceMs: number): Promise<void>;
}

/**
 * A supervised process of that lifetime, not started yet. The stop of the lifetime is the stop of
 * the service.
 */
export function service(
  lifetime: Lifetime,
  name: string,
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Service {
  const wanted = { is: false };
  let running: Running | undefined;
  const supervise = async (): Promise<void> => {
    // A process started during the lifetime's stop would not be on its list, and outlive it.
    while (wanted.is && !lifetime.isStopping()) {
      running = lifetime.start(name, command, args, env);
      while (running.exitCode() === undefined) await sleep(50);
      await sleep(200);
    }
  };
  return {
    start() {
      wanted.is = true;
      void supervise();
    },
    end: async (graceMs) => running?.stop(graceMs),
    async stop(graceMs) {
      wanted.is = false;
      await running?.stop(graceMs);
    },
  };
}
