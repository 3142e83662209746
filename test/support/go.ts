import { spawnSync } from 'node:child_process';

/** Is Go there to build the tests' own small programs? */
export const hasGo = (): boolean => spawnSync('go', ['version']).status === 0;
