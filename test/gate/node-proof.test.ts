import { describe, expect, it } from 'vitest';
import { CLOSED, HOLD, MANAGED, PROOF, STARTUP_TAINT, STATE, WALK } from '../../core/keys.ts';
import {
  isMisspelt,
  isOurs,
  newestProof,
  open,
  parseProof,
  serving,
  sinceOf,
  strayOf,
  walkOf,
} from '../../gate/node-proof.ts';
import { nodeClosed, REASONS } from '../../gate/reasons.ts';
import { aNode } from '../builders/objects.ts';

const because = (answer: ReturnType<typeof open>): string => (answer.yes ? 'yes' : answer.because.sentence);

describe('a node with a proof', () => {
  it.each([
    ['is open when all holds', aNode(), 'yes', 'yes'],
    [
      'neither serves nor is open after a reboot',
      aNode({ boot: 'boot-2' }),
      'node rebooted since validation',
      'node rebooted since validation',
    ],
    [
      'neither serves nor is open before the boot ID is known',
      aNode({ boot: '' }),
      'node rebooted since validation',
      'node rebooted since validation',
    ],
    ['does not serve when the node is not Ready', aNode({ ready: false }), 'node not Ready', 'node not Ready'],
    [
      'does not serve when the condition is not True',
      aNode({ validated: false }),
      'GPU stack not validated: walk not started',
      'GPU stack not validated: walk not started',
    ],
    [
      'serves but is not open while closed',
      aNode({ annotations: { [CLOSED]: 'opting out' } }),
      'yes',
      'GPU node closed: opting out',
    ],
    [
      'serves but is not open while held',
      aNode({ annotations: { [HOLD]: '' } }),
      'yes',
      'GPU node held by an operator',
    ],
    ['serves but is not open while cordoned', aNode({ cordoned: true }), 'yes', 'node cordoned'],
    [
      'proves nothing with another node’s proof',
      aNode({ annotations: { [PROOF]: '{"node":"other","boot":"boot-1","at":"2026-11-24T09:00:00Z"}' } }),
      'GPU proof is of another node object',
      'GPU proof is of another node object',
    ],
    [
      'proves nothing with a corrupted proof',
      aNode({ annotations: { [PROOF]: '{"node":' } }),
      'GPU stack not validated: walk not started',
      'GPU stack not validated: walk not started',
    ],
  ])('%s', (_, node, servingSays, openSays) => {
    expect(because(serving(node))).toBe(servingSays);
    expect(because(open(node))).toBe(openSays);
  });

  it('is ours until its tear-down has ended', () => {
    const optedOut = aNode({ labels: { [MANAGED]: 'false' } });
    expect(isOurs(optedOut)).toBe(true);
    const gone = { ...optedOut, metadata: { ...optedOut.metadata, labels: {} } };
    expect(isOurs(gone)).toBe(false);
    expect(because(serving(gone))).toBe('node not opted in to gpu-gate');
  });

  const failed = (walk?: object): string =>
    because(
      open(
        aNode({
          labels: { [STATE]: 'failed' },
          validated: false,
          annotations: { [PROOF]: '', ...(walk === undefined ? {} : { [WALK]: JSON.stringify(walk) }) },
        }),
      ),
    );
  const WALKING = { node: 'uid-node-a', boot: 'boot-1', stage: 'driver', since: '2026-11-24T08:00:00Z' };
  it.each([
    [{ ...WALKING, failed: { stage: 'device-plugin-validation' } }, 'device-plugin-validation'],
    [{ ...WALKING, failed: { stage: 'nonsense' } }, 'see node condition GPUValidated'],
    [{ ...WALKING, failed: null }, 'see node condition GPUValidated'],
    [{ ...WALKING, node: 'another', failed: { stage: 'driver' } }, 'see node condition GPUValidated'],
    [undefined, 'see node condition GPUValidated'],
  ])('names the stage that failed as the walk %j has it', (walk, stage) =>
    expect(failed(walk)).toBe(`GPU stack failed: ${stage}`),
  );
  it.each([
    ['', undefined],
    ['{', undefined],
    ['null', undefined],
    ['[]', undefined],
    [JSON.stringify({ ...WALKING, stage: 'x' }), undefined],
    [
      JSON.stringify({ ...WALKING, stage: 'done', since: 7, said: { at: 'x' } }),
      { stage: 'done', since: undefined, failed: undefined, said: undefined, devices: {} },
    ],
    [
      JSON.stringify({ ...WALKING, said: { text: 't', at: 'a', retryAt: 7, command: 'c' } }),
      {
        stage: 'driver',
        since: WALKING.since,
        failed: undefined,
        said: { text: 't', at: 'a', command: 'c' },
        devices: {},
      },
    ],
  ])('reads the walk %j as %j', (text, expected) =>
    expect(walkOf(aNode({ annotations: { [WALK]: text } }))).toEqual(expected),
  );
  it('says since when only where the node does', () => {
    const walking = aNode({ annotations: { [WALK]: JSON.stringify(WALKING) } });
    expect(sinceOf(walking, undefined)).toBe('2026-11-24T09:00:00Z');
    expect(sinceOf(walking, nodeClosed('x'))).toBe(WALKING.since);
    expect(sinceOf(aNode(), nodeClosed('x'))).toBe('');
    expect(sinceOf(walking, REASONS.held)).toBe('');
    expect(sinceOf({ ...aNode(), status: {} }, REASONS.notReady)).toBe('');
    expect(sinceOf(aNode({ annotations: { [PROOF]: '' } }), REASONS.driverOld)).toBe('');
  });

  it.each([
    '',
    'null',
    '[]',
    '7',
    '{}',
    '{"node":1,"boot":"b","at":"c"}',
    ...[
      { driver: 595 },
      { driver: null },
      { cuda: 13.1 },
      { components: null },
      { components: [] },
      { components: 'driver' },
      { components: { driver: null } },
      { components: { driver: 'r' } },
      { components: { driver: { revision: 'r', pod: 'p' } } },
      { components: { driver: { revision: 'r', pod: 'p', started: 7 } } },
    ].map((more) => JSON.stringify({ node: 'n', boot: 'b', at: 'c', ...more })),
  ])('takes %j for no proof', (text) => expect(parseProof(text)).toBeUndefined());
  it('reads what the reconciler writes', () => {
    const proof = {
      node: 'n',
      boot: 'b',
      at: '2026-11-24T09:00:00Z',
      level: 'driver',
      driverAt: '2026-11-24T09:30:00Z',
      driver: '595.91.07',
      components: { driver: { revision: 'r', pod: 'p', started: '2026-11-24T08:00:00Z' } },
    };
    expect(parseProof(JSON.stringify(proof))).toEqual(proof);
    const { level: _, ...old } = proof;
    expect(parseProof(JSON.stringify(old))).toEqual({ ...proof, level: 'full' });
    expect(parseProof(JSON.stringify({ ...proof, level: 'gold' }))).toBeUndefined();
  });
});

describe('a label that is meant to opt a node in', () => {
  const misspelt = (value: string): boolean => isMisspelt(aNode({ labels: { 'gpu-gate.dev/managed': value } }));
  it.each(['True', 'TRUE', 'yes', 'Y', 't', 'on', '1', 'enable', 'Enabled'])('%s is misspelt', (value) =>
    expect(misspelt(value)).toBe(true),
  );
  it.each(['true', 'false', 'no', '', 'off', '0', 'disabled', 'true-ish', 'untrue', 'enabler', '10'])(
    '%j is not',
    (value) => expect(misspelt(value)).toBe(false),
  );
});

describe('the newest of several proofs', () => {
  const proven = (at: string) =>
    aNode({ annotations: { [PROOF]: JSON.stringify({ node: 'uid-node-a', boot: 'boot-1', at, components: {} }) } });
  const [EARLY, LATE] = ['2026-11-24T09:00:00Z', '2026-11-24T11:00:00Z'];
  it.each([
    ['is none of no node', [], 0],
    ['is none where no node has one', [aNode({ annotations: { [PROOF]: '' } })], 0],
    ['is that of the one that has one', [aNode({ annotations: { [PROOF]: '' } }), proven(EARLY)], Date.parse(EARLY)],
    ['is the latest, in whatever order', [proven(EARLY), proven(LATE), proven(EARLY)], Date.parse(LATE)],
    ['is not one whose time cannot be read', [proven('yesterday'), proven(EARLY)], Date.parse(EARLY)],
  ])('%s', (_, nodes, at) => expect(newestProof(nodes)).toBe(at));
});

describe('what shows that a node is meant to be opted in', () => {
  const tainted = (...keys: readonly string[]) => ({
    metadata: { name: 'n', uid: 'u', labels: {}, annotations: {} },
    spec: { taints: keys.map((key) => ({ key, effect: 'NoSchedule' })) },
  });
  it.each([
    ['the startup taint, among others', tainted('other', STARTUP_TAINT), 'taint'],
    ['nothing, with the taints of others', tainted('other'), undefined],
    ['nothing, with no taint', tainted(), undefined],
    ['nothing, with no list of taints', { metadata: { name: 'n', uid: 'u' } }, undefined],
    ['nothing, where it is opted in', { ...tainted(STARTUP_TAINT), ...aNode() }, undefined],
  ])('%s', (_, node, stray) => expect(strayOf(node)).toBe(stray));
});

it('a node without a status has no proof that holds', () => {
  const { metadata } = aNode();
  expect(because(serving({ metadata }))).toBe('node rebooted since validation');
  expect(because(serving({ metadata, status: { nodeInfo: { bootID: 'boot-1' } } }))).toContain('not validated');
});
