// Which measurements there are: every module of bench/ itself but rows.ts; what only helps them
// stands in folders below.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Bench } from '../rows.ts';

const FOLDER = join(import.meta.dirname, '..');

/** Their names, as `npm run bench -- NAME` takes them. */
export const measurements = (): string[] =>
  readdirSync(FOLDER)
    .filter((file) => file.endsWith('.ts') && file !== 'rows.ts')
    .map((file) => file.slice(0, -3));

export const load = async (name: string): Promise<Bench> => (await import(join(FOLDER, `${name}.ts`))) as Bench;
