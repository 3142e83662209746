// What the plan of a node depends on outside the node: many silent nodes, pods that its kubelet
// rejects, and why its own pods do not come.
import { describe, expect, it } from 'vitest';
import { POD_COMPONENT } from '../../../core/components.ts';
import { DEPLOY_PREFIX, GPU_VALIDATED } from '../../../core/keys.ts';
import { open } from '../../../gate/node-proof.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { World } from './world.ts';

class Surrounded extends World {
  more: Partial<NodeInput> = {};
  override input(): NodeInput {
    return { ...super.input(), ...this.more };
  }
  /** Steps for so many seconds; the pods that were made. */
  pass(seconds: number): readonly string[] {
    return Array.from({ length: seconds }, () => this.step())
      .flat()
      .flatMap((action) => (action.kind === 'create-pod' ? [action.manifest.metadata.name] : []));
  }
  #isSilent = false;
  silence(is: boolean): void {
    this.#isSilent = is;
    this.ready(is ? 'Unknown' : 'True');
    this.podsReady(!is);
  }
  /** What a silent kubelet published last stays. */
  override reality(): void {
    const { status } = this.node;
    super.reality();
    if (this.#isSilent) this.node = { ...this.node, status: { ...status } };
  }
}
const validated = (): Surrounded => new Surrounded().validated();
const sentence = (actions: readonly Action[]): string | undefined =>
  actions.flatMap((action) => (action.kind === 'set-node-condition' ? [action.condition?.message ?? ''] : []))[0];

describe('a node that is silent among many', () => {
  const silent = (): Surrounded => {
    const world = validated();
    world.more = { isOverloaded: true };
    world.silence(true);
    return world;
  };
  it('is closed with its proof kept, and reopens with it and without a validation', () => {
    const world = silent();
    const { proof } = world;
    expect(world.pass(300)).toEqual([]);
    expect([world.proof, world.trust]).toEqual([proof, [false, false]]);
    expect(world.condition?.message).toContain('many nodes are silent at once');
    world.silence(false);
    expect(world.pass(10)).toEqual([]);
    expect([world.proof, world.trust, world.closed]).toEqual([proof, [true, true], undefined]);
  });
  it('loses its proof if it comes back with another boot', () => {
    const world = silent();
    world.pass(120);
    world.reboot('boot-2');
    world.silence(false);
    world.step();
    expect([world.proof, world.trust]).toEqual([undefined, [false, false]]);
  });
  it('loses its proof if its driver has restarted meanwhile', () => {
    const world = silent();
    world.pass(120);
    world.start('driver');
    world.silence(false);
    world.step();
    expect(world.trust).toEqual([false, false]);
    expect(world.proof).toBeUndefined();
  });
  it('loses its proof if it stays silent when the others are heard again', () => {
    const world = silent();
    world.pass(120);
    world.more = {};
    world.step();
    expect(world.proof).toBeUndefined();
  });
});

describe('a node whose kubelet rejects GPU pods again and again', () => {
  const words = 'Allocate failed: GPU is lost';
  it('is closed with the kubelet’s words, keeps its proof, and a validation begins', () => {
    const world = validated();
    world.validationsFail = true;
    const { proof } = world;
    world.more = { rejection: { count: 5, words, at: world.now } };
    const made = world.pass(1);
    expect(made).toEqual([expect.stringMatching(/^device-plugin-validation/)]);
    expect([world.proof, world.trust]).toEqual([proof, [true, false]]);
    expect(world.condition?.message).toContain(`the kubelet has rejected 5 GPU pods: ${words}`);
    world.pass(3);
    expect(world.trust).toEqual([true, false]);
  });
  it('opens again when the validation passes, and the same rejections close it no more', () => {
    const world = validated();
    world.more = { rejection: { count: 5, words, at: world.now } };
    expect(world.pass(10)).toHaveLength(1);
    expect(open(world.node).yes).toBe(true);
    expect(world.condition?.message).not.toContain(words);
    expect(world.pass(10)).toEqual([]);
    world.more = { rejection: { count: 5, words, at: world.now } };
    expect(world.pass(10)).toHaveLength(1);
  });
  it('is not closed for pods that were rejected before its proof', () => {
    const world = new Surrounded();
    world.more = { rejection: { count: 5, words, at: world.now } };
    world.validated();
    expect([world.pass(5), world.trust]).toEqual([[], [true, true]]);
  });
});

describe('why a pod does not come reaches the condition', () => {
  /** In the driver's state, long enough for another sentence. */
  const atDriver = (): Surrounded => {
    const world = new Surrounded();
    world.broken['driver'] = { containers: [], initContainers: [] };
    while (world.state !== 'driver') world.step();
    world.pass(6);
    return world;
  };
  it('a DaemonSet that may not create it', () => {
    const world = atDriver();
    const { daemonSets, pods } = world.input();
    const name = `driver-${world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`] ?? ''}`;
    const troubles = new Map([[daemonSets.get(name) ?? '', 'FailedCreate: pods are forbidden: exceeded quota']]);
    const others = pods.filter((pod) => !pod.name.startsWith('driver'));
    expect(sentence(planNode({ ...world.input(), pods: others, troubles }).actions)).toContain(
      'waiting for the driver pod to be created; FailedCreate: pods are forbidden: exceeded quota',
    );
  });
  it('a pod that cannot start, until one of its containers has', () => {
    const world = atDriver();
    const uid = world.pods.get('driver-pod')?.uid ?? '';
    const troubles = new Map([[uid, 'FailedMount: host path /run/nvidia is not a directory']]);
    world.more = { troubles };
    world.pass(1);
    expect(world.condition?.message).toContain('; FailedMount: host path /run/nvidia is not a directory');
    const started = { name: 'd', ready: false, restartCount: 0, state: { running: { startedAt: 'x' } } };
    world.broken['driver'] = { containers: [started] };
    world.reality();
    world.pass(1);
    expect(world.condition?.message).not.toContain('FailedMount');
  });
  it('a validation pod that the API server refuses', () => {
    const world = new Surrounded();
    while (world.state !== 'driver') world.step();
    world.step();
    const name = [...world.pods.keys()].find((one) => one.startsWith(POD_COMPONENT['driver-validation'])) ?? '';
    world.pods.delete(name);
    world.now += 6000;
    const troubles = new Map([[name, 'refused by the API server: pods is forbidden: PodSecurity']]);
    const { actions } = planNode({ ...world.input(), troubles });
    expect(sentence(actions)).toContain('; refused by the API server: pods is forbidden: PodSecurity');
    expect(actions.map(({ kind }) => kind)).toContain('create-pod');
    expect(world.node.status?.conditions?.some(({ type }) => type === GPU_VALIDATED)).toBe(true);
  });
});
