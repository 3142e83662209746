import { describe, expect, it } from 'vitest';
import type { Action } from '../../../reconciler/actions.ts';
import type { Outcome } from '../../../reconciler/apply.ts';
import { carryOut } from '../../../reconciler/node/writes.ts';
import { aNode } from '../../builders/objects.ts';

const base = { node: 'node-a', uid: 'uid-node-a' };
const marks: Action = { kind: 'patch-node', ...base, labels: {}, annotations: {} };
const condition: Action = { kind: 'set-node-condition', ...base, type: 'GPUValidated', condition: undefined };
const taints: Action = { kind: 'set-taints', ...base, resourceVersion: '1', taints: [] };
const create: Action = { kind: 'create-pod', manifest: { metadata: { name: 'p', namespace: 'o' } } } as Action;
const event: Action = {
  kind: 'event',
  about: { kind: 'Node', name: 'node-a', uid: 'uid-node-a' },
  type: 'Normal',
  reason: 'R',
  message: 'm',
};
const done: Outcome = { kind: 'done', resourceVersion: '7', taints: [] };
const stale: Outcome = { kind: 'stale' };

/**
 * Carries out the list on an API server that gives the listed answers. Returns what was reported
 * and how it ended.
 */
async function outcomeOf(
  actions: readonly Action[],
  answers: Partial<Record<Action['kind'], Outcome | Error>>,
): Promise<readonly [readonly string[], string]> {
  const through: string[] = [];
  const apply = async (action: Action, at?: string): Promise<Outcome> => {
    const answer = answers[action.kind] ?? done;
    if (answer instanceof Error) throw answer;
    const what = action.kind === 'patch-node' && action.status !== undefined ? 'marks with condition' : action.kind;
    if (answer.kind === 'done') through.push(/node|taints/.test(action.kind) ? `${what}@${at}` : what);
    return answer;
  };
  const end = await carryOut(aNode(), actions, { apply: { apply }, wrote: () => undefined }).catch(
    (error: Error) => error.message,
  );
  return [through, end];
}

it.each([
  [
    'marks and condition are one write, guarded by the planned version; the next one is guarded by that of our write',
    {},
    ['marks with condition@1', 'set-taints@7', 'event'],
    'done',
  ],
  [
    'the taints have changed meanwhile: what was written is reported',
    { 'set-taints': stale },
    ['marks with condition@1', 'event'],
    'stale',
  ],
  [
    'a write fails after the marks: the marks are reported',
    { 'set-taints': new Error('no') },
    ['marks with condition@1', 'event'],
    'no',
  ],
  ['the marks were not written: nothing is reported', { 'patch-node': stale }, [], 'stale'],
  ['the marks fail: nothing is reported', { 'patch-node': new Error('no') }, [], 'no'],
  [
    'another writer’s taints came between: they stay, and the marks are reported',
    { 'patch-node': { ...done, taints: [{ key: 'theirs', effect: 'NoSchedule' }] } },
    ['marks with condition@1', 'event'],
    'stale',
  ],
] as const)('%s', async (_, answers, through, end) =>
  expect(await outcomeOf([marks, event, condition, taints], answers)).toEqual([through, end]),
);

it('marks that come last take the condition with them', async () =>
  expect(await outcomeOf([condition, taints, marks], {})).toEqual([
    ['set-taints@1', 'marks with condition@7'],
    'done',
  ]));

it('marks without a condition take the taints that come next with them', async () => {
  const sent: Action[] = [];
  const apply = (action: Action): Promise<Outcome> => {
    sent.push(action);
    return Promise.resolve(done);
  };
  const taint = { key: 'ours', effect: 'NoSchedule' };
  await carryOut(aNode(), [marks, { ...taints, taints: [taint] }, create], {
    apply: { apply },
    wrote: () => undefined,
  });
  expect(sent).toEqual([{ ...marks, taints: [taint] }, create]);
  expect(await outcomeOf([taints, marks], {})).toEqual([['set-taints@1', 'patch-node@7'], 'done']);
});

it('a list without marks is reported once all of it is written', async () => {
  expect(await outcomeOf([condition, event], {})).toEqual([['set-node-condition@1', 'event'], 'done']);
  expect(await outcomeOf([condition, event], { 'set-node-condition': stale })).toEqual([[], 'stale']);
});

const remove: Action = { kind: 'delete-pod', namespace: 'o', name: 'q', uid: 'u', because: 'b' };

it('a pod that is there, or gone, ends no writes', async () => {
  const answers = { 'create-pod': stale, 'delete-pod': stale };
  expect(await outcomeOf([remove, create, condition, event], answers)).toEqual([
    ['set-node-condition@1', 'event'],
    'done',
  ]);
});

it('a write to a pod says nothing of the Node’s version', async () => {
  const wrote: string[] = [];
  const versions: (string | undefined)[] = [];
  const apply = (action: Action, at?: string): Promise<Outcome> => {
    versions.push(at);
    return Promise.resolve(action.kind === 'create-pod' ? { kind: 'done', resourceVersion: '99' } : done);
  };
  await carryOut(aNode(), [marks, create, condition, taints], {
    apply: { apply },
    wrote: (action, version) => wrote.push(`${action.kind}@${version}`),
  });
  expect(versions).toEqual(['1', '7', '7']);
  expect(wrote).toEqual(['patch-node@7', 'set-taints@7']);
});

it('an answer without a version leaves the guard as it was', async () => {
  const versions: (string | undefined)[] = [];
  const wrote: string[] = [];
  const apply = (action: Action, at?: string): Promise<Outcome> => {
    versions.push(at);
    return Promise.resolve(action.kind === 'patch-node' ? { kind: 'done' } : done);
  };
  await carryOut(aNode(), [marks, condition, taints], {
    apply: { apply },
    wrote: (action, version) => wrote.push(`${action.kind}@${version}`),
  });
  expect([versions, wrote]).toEqual([['1', '1'], ['set-taints@7']]);
});

it('a Node without a list of taints has none', async () => {
  const { spec: _, ...node } = aNode();
  const apply = (): Promise<Outcome> => Promise.resolve({ kind: 'done', resourceVersion: '7' });
  expect(await carryOut(node, [marks, condition, taints], { apply: { apply }, wrote: () => undefined })).toBe('done');
});

describe('what the API server refuses', () => {
  const evict: Action = { kind: 'evict-pod', namespace: 'team', name: 'user', uid: 'u', because: 'b' };
  const because = 'PodSecurity';
  const carried = async (actions: readonly Action[], answers: Partial<Record<Action['kind'], Outcome>>) => {
    const heard: string[] = [];
    const apply = (action: Action): Promise<Outcome> => {
      heard.push(action.kind);
      return Promise.resolve(answers[action.kind] ?? done);
    };
    const end = await carryOut(aNode(), actions, {
      apply: { apply },
      wrote: (action) => heard.push(`wrote ${action.kind}`),
      refused: (action, words) => heard.push(`refused ${action.kind}: ${words}`),
      evicted: (action) => Promise.resolve(void heard.push(`evicted ${action.name}`)),
    });
    return [heard, end];
  };
  it('a pod: it is heard of, and the other writes go on', async () =>
    expect(await carried([create, marks], { 'create-pod': { kind: 'refused', because } })).toEqual([
      ['create-pod', 'refused create-pod: PodSecurity', 'patch-node', 'wrote patch-node'],
      'done',
    ]));
  it('an eviction: it is heard of, and does not count as one', async () =>
    expect(await carried([evict, condition], { 'evict-pod': { kind: 'refused', because } })).toEqual([
      ['evict-pod', 'refused evict-pod: PodSecurity', 'set-node-condition', 'wrote set-node-condition'],
      'done',
    ]));
  it('and an eviction that it takes is one', async () =>
    expect(await carried([evict], {})).toEqual([['evict-pod', 'evicted user'], 'done']));
  it('while a pod that has gone meanwhile is none, and ends no writes', async () =>
    expect(await carried([evict, condition], { 'evict-pod': stale })).toEqual([
      ['evict-pod', 'set-node-condition', 'wrote set-node-condition'],
      'done',
    ]));
  it('nobody has to listen', async () => {
    const apply = ({ kind }: Action): Promise<Outcome> =>
      Promise.resolve(kind === 'create-pod' ? { kind: 'refused', because } : done);
    expect(await carryOut(aNode(), [create, evict], { apply: { apply }, wrote: () => undefined })).toBe('done');
  });
});

it('other writes than that of the taints are not held up by another writer’s taints', async () => {
  const theirs: Outcome = { ...done, taints: [{ key: 'theirs', effect: 'NoSchedule' }] };
  expect(await outcomeOf([marks, remove], { 'patch-node': theirs })).toEqual([['patch-node@1', 'delete-pod'], 'done']);
});
