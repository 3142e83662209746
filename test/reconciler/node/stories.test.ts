// What a node says in the course of each story is what its golden file holds
// (GPU_GATE_TEST_UPDATE=1 rewrites it).
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { STORIES } from './stories.ts';

const fileOf = (name: string): string => join(import.meta.dirname, '../../golden/node', `${name}.txt`);
/** Story → its text, as the golden file has it. */
const goldenOf = (name: string): ReadonlyMap<string, string> =>
  new Map(
    readFileSync(fileOf(name), 'utf8')
      .split(/^# /m)
      .slice(1)
      .map((part): [string, string] => {
        const end = part.indexOf('\n');
        return [part.slice(0, end), part.slice(end + 1).trim()];
      }),
  );

for (const [name, stories] of Object.entries(STORIES)) {
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1')
    writeFileSync(
      fileOf(name),
      Object.entries(stories)
        .map(([title, tell]) => `# ${title}\n\n${tell().text}`)
        .join('\n'),
    );
  describe(`${name} (GPU_GATE_TEST_UPDATE=1 rewrites its golden file)`, () => {
    const golden = goldenOf(name);
    it.each(Object.entries(stories))('%s', (title, tell) => expect(tell().text.trim()).toBe(golden.get(title)));
    it('its golden file has no other story', () => expect([...golden.keys()]).toEqual(Object.keys(stories)));
  });
}
