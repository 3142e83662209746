import { describe, expect, it } from 'vitest';
import { ALL_REASONS, nodeClosed, notValidated, stackFailed } from '../../gate/reasons.ts';

describe('reasons', () => {
  it('have sentences of their own, which the scheduler counts by', () =>
    expect(new Set(ALL_REASONS.map(({ sentence }) => sentence)).size).toBe(ALL_REASONS.length));
  it('are made once, not once per node', () => {
    expect(notValidated('driver')).toBe(notValidated('driver'));
    expect(stackFailed('driver')).toBe(stackFailed('driver'));
  });
  it.each([
    [notValidated('driver'), 'GPU stack not validated: driver'],
    [notValidated('removing'), 'GPU stack not validated: removing'],
    [notValidated('validated'), 'GPU stack not validated: walk not started'],
    [notValidated(undefined), 'GPU stack not validated: walk not started'],
    [stackFailed('device-plugin'), 'GPU stack failed: device-plugin'],
    [stackFailed(undefined), 'GPU stack failed: see node condition GPUValidated'],
  ])('%j', (reason, sentence) => expect([reason.sentence, reason.label]).toEqual([sentence, sentence]));
  it('have few labels, whatever a node says of itself', () => {
    expect(nodeClosed('ticket 4711')).toMatchObject({
      sentence: 'GPU node closed: ticket 4711',
      label: 'GPU node closed',
    });
    expect(nodeClosed('ticket 4712').label).toBe(nodeClosed('ticket 4711').label);
  });
});
