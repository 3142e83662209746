import { afterAll, describe, expect } from 'vitest';
import { story } from './story.ts';

// Also shuffled, and each alone: every chapter is played once, after those before it.
describe('a story', () => {
  const played: number[] = [];
  const chapter = story();
  for (const number of [1, 2, 3, 4])
    chapter(`chapter ${number}`, () => {
      played.push(number);
      expect(played).toEqual([1, 2, 3, 4].slice(0, number));
    });
  afterAll(() => expect(new Set(played).size).toBe(played.length));
});
