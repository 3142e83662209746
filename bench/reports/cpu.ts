// CPU time of the processes that are measured, as the kernel counts it.
import { readFileSync } from 'node:fs';

/** User and system time of a process so far, ms (Linux: clock ticks of 10 ms). */
export const cpuMs = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
};
