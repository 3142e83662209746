import { describe, expect, it } from 'vitest';
import { isEnforcing, policyFor } from '../../core/gpu-policy.ts';
import { aPolicy } from '../builders/objects.ts';

describe('a GPUPolicy', () => {
  it('enforces when it has begun to, unless suspended', () => {
    expect(isEnforcing(aPolicy())).toBe(true);
    expect(isEnforcing(aPolicy({ suspend: true }))).toBe(false);
    expect(isEnforcing(aPolicy({}, { status: {} }))).toBe(false);
  });
  it('of two that select a node the older has it', () => {
    const older = aPolicy({}, { metadata: { name: 'b', creationTimestamp: '2026-01-01T00:00:00Z' } });
    const younger = aPolicy(
      { nodeSelector: { pool: 'x' } },
      { metadata: { name: 'a', creationTimestamp: '2026-02-01T00:00:00Z' } },
    );
    expect(policyFor({ pool: 'x' }, [younger, older])?.name).toBe('b');
    expect(policyFor({}, [younger])).toBeUndefined();
  });
});
