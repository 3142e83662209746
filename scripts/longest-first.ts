// The order of test files: those that take long begin first, or the last one would run alone at the
// end. Vitest knows how long a file took where it has run here before; on a fresh clone it begins
// with the largest file, and some short files run a cluster for minutes.
import { createHash } from 'node:crypto';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take longer than their size says, slowest first. */
export const SLOW = [
  'node/rollout',
  'certificates/rotation',
  'scheduling/churn',
  'scheduling/extender-scheduler',
  'node/edges',
  'node/gate',
  'chart/lifecycle',
  'certificates/leader',
  'node/walk',
  'policies/policies',
  'pods/past-the-gate',
  'scheduling/wakeup',
  'platform/demo',
  'admission/rolling',
] as const;

/** Stable: files that are not named stay as they are. */
export const slowFirst = <T>(files: readonly T[], path: (file: T) => string): T[] => {
  const rank = (file: T): number => {
    const at = SLOW.findIndex((name) => path(file).endsWith(`/${name}.test.ts`));
    return at < 0 ? SLOW.length : at;
  };
  return files.toSorted((a, b) => rank(a) - rank(b));
};

/** Another order for each seed, the same one again for the same seed. */
export const shuffled = <T>(files: readonly T[], path: (file: T) => string, seed: number): T[] => {
  const place = (file: T): string =>
    createHash('sha1')
      .update(`${seed} ${path(file)}`)
      .digest('hex');
  return files.toSorted((a, b) => (place(a) < place(b) ? -1 : 1));
};

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { shuffle, seed } = this.ctx.config.sequence;
    const path = ({ moduleId }: TestSpecification): string => moduleId;
    return shuffle === true ? shuffled(files, path, seed) : slowFirst(await super.sort(files), path);
  }
}
