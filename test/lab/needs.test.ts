// What is missing on a machine, and the one command that brings it.
import { expect, it } from 'vitest';
import { installCommand, missingOf, NEEDS, REAL_NODE_NEEDS } from '../../lab/needs.ts';

it('a program is missing where no folder has it', () => {
  const nowhere = { program: 'no-such-program', debian: 'none' };
  const shell = { program: 'sh', debian: 'dash' };
  const path = { program: '/no/such/file', debian: 'none' };
  expect(missingOf([nowhere, shell, path])).toEqual([nowhere, path]);
});
it('one command brings all, each package once', () => {
  const needs = [
    { program: 'mount', debian: 'mount' },
    { program: 'umount', debian: 'mount' },
    { program: 'promtool', debian: 'prometheus' },
  ];
  expect(installCommand(needs, true)).toBe(
    'apt-get update && apt-get install -y --no-install-recommends mount prometheus',
  );
  expect(installCommand(needs, false)).toBe(
    'sudo sh -c "apt-get update && apt-get install -y --no-install-recommends mount prometheus"',
  );
});
it('what a real node needs is part of what all tests need', () =>
  expect(NEEDS).toEqual(expect.arrayContaining([...REAL_NODE_NEEDS])));
