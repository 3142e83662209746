// The operator's retry is obeyed in every state, whether it waits or has failed: what hangs there
// is started afresh at once.
import { describe, expect, it } from 'vitest';
import { RETRY } from '../../../core/keys.ts';
import { STAGES, type Stage } from '../../../core/stages.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { aPolicy } from '../../builders/objects.ts';
import { World } from './world.ts';

const OPERANDS: Partial<Record<Stage, string>> = {
  toolkit: 'toolkit-pod',
  driver: 'driver-pod',
  'device-plugin': 'device-plugin-pod',
  'dra-driver': 'dra-driver-pod',
};
const isCheck = (stage: Stage): boolean => stage.endsWith('-validation');

/** A first walk that hangs in this state. */
class Hanging extends World {
  readonly stage: Stage;
  constructor(stage: Stage) {
    super(
      aPolicy({
        allocation: stage.startsWith('dra-') ? 'DRA' : 'DevicePlugin',
        validation: { timeouts: { driver: '60s' } },
      }),
    );
    this.stage = stage;
    if (OPERANDS[stage] !== undefined) this.broken[stage] = {};
    if (stage === 'preflight') this.slotFree = false;
    for (let i = 0; i < 30; i += 1) this.step();
  }
  override step(): readonly Action[] {
    const actions = super.step();
    // Its validation has begun, and does not come to an end.
    for (const [name, pod] of this.pods)
      if (name.startsWith(`${this.stage}-`) && isCheck(this.stage))
        this.pods.set(name, { ...pod, phase: 'Running', containers: [] });
    return actions;
  }
  retry(value: string): readonly string[] {
    this.annotate(RETRY, value);
    const did: string[] = [];
    for (let i = 0; i < 4; i += 1)
      for (const action of this.step()) {
        if (action.kind === 'delete-pod') did.push(`delete ${action.name}`);
        if (action.kind === 'create-pod') did.push('create');
      }
    return did;
  }
}

describe.each(STAGES.filter((stage) => stage !== 'preflight'))('in %s', (stage) => {
  const afresh = (did: readonly string[]): void => {
    if (isCheck(stage)) expect(did).toEqual([expect.stringMatching(`^delete ${stage}-`), 'create']);
    else expect(did).toEqual([`delete ${OPERANDS[stage] ?? ''}`]);
  };
  it('that waits: once for each value, and not when it is taken away', () => {
    const world = new Hanging(stage);
    expect(world.state).toBe(stage);
    afresh(world.retry('1'));
    expect(world.retry('1')).toEqual([]);
    afresh(world.retry('2'));
    const { [RETRY]: _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    for (let i = 0; i < 4; i += 1) expect(world.step().filter(({ kind }) => kind.endsWith('-pod'))).toEqual([]);
    expect(world.state).toBe(stage);
  });
  it('that has failed', () => {
    const world = new Hanging(stage);
    world.now += 3_600_000;
    world.step();
    expect(world.state).toBe('failed');
    afresh(world.retry('1'));
    expect(world.state).toBe(stage);
  });
});

it('in preflight there is nothing to start afresh: what is seen decides', () => {
  const world = new Hanging('preflight');
  expect([world.state, world.retry('1')]).toEqual(['preflight', []]);
  world.slotFree = true;
  world.validated();
});
it('on a node that serves nothing is touched', () => {
  const world = new World().validated();
  world.annotate(RETRY, '1');
  const kinds = Array.from({ length: 5 }, () => world.step())
    .flat()
    .map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind.endsWith('-pod'))).toEqual([]);
  expect(world.trust).toEqual([true, true]);
});
