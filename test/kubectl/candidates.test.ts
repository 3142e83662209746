// What Tab offers after `kubectl gpu-gate`.
import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../kubectl/args.ts';
import { candidatesFor, completionText } from '../../kubectl/candidates.ts';

describe('after kubectl gpu-gate', () => {
  it.each<[typed: string, words: unknown, also?: string]>([
    ['', COMMANDS.map(({ name }) => name)],
    ['no', ['nodes', 'node']],
    ['nonsense x', []],
    ['node ', [], 'nodes'],
    ['explain tr', [], 'pods'],
    ['completion z', ['zsh']],
    ['status x', []],
    ['prove gpu-0 --lev', ['--level']],
    ['prove gpu-0 --level ', ['driver', 'full']],
    ['status -o js', ['json']],
    ['status --namespace x', []],
    ['status -', expect.arrayContaining(['--watch', '--output', '--help'])],
  ])('%j', (typed, words, also) =>
    expect(candidatesFor(typed.split(' '))).toEqual(also === undefined ? { words } : { words, also }),
  );
  it('nothing at all is every command', () => expect(candidatesFor([]).words).toHaveLength(COMMANDS.length));
  it('a command with a flag of its own name offers it once', () =>
    expect(candidatesFor(['support', '--output']).words).toEqual(['--output']));
});

it('is printed as kubectl reads it', () => expect(completionText(['a', 'b'])).toBe('a\nb\n:4\n'));
