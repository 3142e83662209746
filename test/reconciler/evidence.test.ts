// Which pods of other installers are kept, and when all pods are to be listed again for it.
import { describe, expect, it } from 'vitest';
import type { GpuPolicy, Selector } from '../../core/gpu-policy.ts';
import { WALK } from '../../core/keys.ts';
import { evidence } from '../../reconciler/evidence.ts';
import { fleet } from '../../reconciler/fleet.ts';
import { trimPod, type NodeObject } from '../../reconciler/model.ts';
import { newWalk } from '../../reconciler/walk.ts';
import { aNode, aPolicy, NOW } from '../builders/objects.ts';

const selector = (app: string, more: Partial<Selector> = {}): Selector => ({
  namespace: 'theirs',
  matchLabels: { app },
  ...more,
});
const naming = (driver: object): GpuPolicy => aPolicy({ components: { driver } });
const external = (app: string): GpuPolicy => naming({ mode: 'external', podSelector: selector(app) });
/** A node whose walk has that driver as its target. */
const running = (name: string, driver: unknown): NodeObject => {
  const walk = { ...newWalk(`uid-${name}`, 'boot-1', NOW), target: { driver } };
  return aNode({ name, annotations: { [WALK]: JSON.stringify(walk) } });
};

class Watched {
  policies: GpuPolicy[] = [];
  readonly fleet = fleet();
  readonly all = evidence({ policies: () => this.policies, remembered: () => this.fleet.remembered() });
  /** Whether that asks for a list. */
  node(name: string, node: NodeObject | undefined): boolean {
    return this.fleet.update(name, node).has('remembers') && this.all.refresh();
  }
  policy(...policies: GpuPolicy[]): boolean {
    this.policies = policies;
    return this.all.refresh();
  }
  selects = (app: string, namespace = 'theirs'): boolean => this.all.selects(namespace, { app, more: 'x' });
}

describe('pods of other installers', () => {
  it('are evidence while a policy or any node names them, and no longer', () => {
    const watched = new Watched();
    expect([watched.policy(external('a')), watched.selects('a')]).toEqual([true, true]);
    expect(watched.node('x', running('x', { external: selector('a') }))).toBe(false);
    expect(watched.node('y', running('y', { external: selector('a') }))).toBe(false);
    expect([watched.policy(naming({ mode: 'managed' })), watched.selects('a')]).toEqual([false, true]);
    watched.policy();
    expect(watched.selects('a')).toBe(true);
    expect([watched.node('x', running('x', { revision: 'r' })), watched.selects('a')]).toEqual([false, true]);
    expect([watched.node('y', undefined), watched.selects('a')]).toEqual([true, false]);
  });
  it('are those of the namespace, with all labels', () => {
    const watched = new Watched();
    watched.node('x', running('x', { external: selector('a', { matchLabels: { app: 'a', tier: 'b' } }) }));
    expect(watched.selects('a')).toBe(false);
    expect(watched.all.selects('theirs', { tier: 'b', app: 'a' })).toBe(true);
    expect(watched.all.selects('team', { tier: 'b', app: 'a' })).toBe(false);
  });
  it('an order of labels, or who owns the pods, is not another selector', () => {
    const watched = new Watched();
    const labels = { app: 'a', tier: 'b' };
    watched.policy(naming({ mode: 'external', podSelector: selector('', { matchLabels: labels }) }));
    const turned = selector('', { matchLabels: { tier: 'b', app: 'a' }, ownerKind: 'DaemonSet' });
    expect(watched.node('x', running('x', { external: turned }))).toBe(false);
  });
  it('a node that takes another selector drops the previous selector', () => {
    const watched = new Watched();
    watched.node('x', running('x', { external: selector('a') }));
    expect(watched.node('x', running('x', { external: selector('b') }))).toBe(true);
    expect([watched.selects('a'), watched.selects('b')]).toEqual([false, true]);
    expect(watched.node('x', running('x', { external: 'unwatched' }))).toBe(true);
    expect(watched.selects('b')).toBe(false);
  });
  it('a memory of another Node object of that name names nothing', () => {
    const watched = new Watched();
    const { metadata, ...rest } = running('x', { external: selector('a') });
    expect(watched.node('x', { ...rest, metadata: { ...metadata, uid: 'other' } })).toBe(false);
  });
});

describe('what is named since a moment ago', () => {
  it('is watched when it was listed', () => {
    const watched = new Watched();
    watched.policy(external('a'));
    expect(watched.all.isWatched(selector('a'))).toBe(false);
    watched.all.listed();
    expect(watched.all.isWatched(selector('a', { ownerKind: 'DaemonSet' }))).toBe(true);
  });
  it('is not, if it was dropped and named again before a list', () => {
    const watched = new Watched();
    watched.policy(external('a'));
    watched.all.listed();
    watched.policy();
    expect(watched.node('x', running('x', { external: selector('a') }))).toBe(true);
    expect(watched.all.isWatched(selector('a'))).toBe(false);
  });
  it('other driver paths ask for a list too', () => {
    const watched = new Watched();
    watched.policy(aPolicy());
    expect(watched.policy(aPolicy({ hostPaths: { driverRoot: '/opt/driver' } }))).toBe(true);
    expect(watched.policy(aPolicy({ hostPaths: { driverRoot: '/opt/driver' } }))).toBe(false);
  });
});

it('a pod that only a node names is kept with its labels', () => {
  const watched = new Watched();
  const raw = {
    metadata: { name: 'd', namespace: 'theirs', uid: 'd', labels: { app: 'a' } },
    spec: { nodeName: 'x', containers: [{ name: 'c' }] },
  };
  const kept = () => trimPod(raw, 'operands', (...pod) => watched.all.selects(...pod), watched.all.driverPaths());
  expect(kept()).toBeUndefined();
  watched.node('x', running('x', { external: selector('a') }));
  expect(kept()?.labels).toEqual({ app: 'a' });
});
