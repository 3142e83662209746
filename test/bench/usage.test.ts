import { expect, it } from 'vitest';
import { read, usageOf } from '../../bench/reports/usage.ts';

const BENCHES = new Map([
  ['speed', { about: 'how fast', options: { '--nodes N': 'how many', '--long': 'longer' } }],
  ['size', { about: 'how large', options: {} }],
]);

it('the usage names every measurement and option', () => {
  const usage = usageOf(BENCHES);
  for (const part of ['speed', 'how fast', '--nodes N', 'how many', '--long', 'size', '--json FILE'])
    expect(usage).toContain(part);
});

it.each([
  ['nothing: all of them', [], { names: ['speed', 'size'], args: [], json: undefined }],
  ['a name', ['size'], { names: ['size'], args: [], json: undefined }],
  [
    'a name with its options',
    ['speed', '--nodes', '3', '--long', '--json', 'file'],
    { names: ['speed'], args: ['--nodes', '3', '--long', '--json', 'file'], json: 'file' },
  ],
])('%s', (_, words, asked) => expect(read(words, BENCHES)).toEqual(asked));

it.each([
  ['an unknown measurement', ['sped'], 'sped: there is no such measurement'],
  ['an option of another measurement', ['size', '--nodes', '3'], '--nodes'],
  ['an option that none has', ['--nodes', '3'], '--nodes'],
  ['an option without its value', ['speed', '--nodes'], '--nodes'],
  ['a second name', ['speed', 'size'], 'size'],
])('%s is refused', (_, words, because) => expect(() => read(words, BENCHES)).toThrow(because));
