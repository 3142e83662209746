// Which pods ask for a GPU: every shape, by the one function that knows them.
import { describe, expect, it } from 'vitest';
import { claimFacts, classFacts, mappedResources, templateFacts, wantedClaims } from '../../gate/devices.ts';
import { askedOf, gpuKindsOf, indicesOf, requestOf, type RawPod } from '../../gate/gpu-request.ts';
import { claiming, devices, DEVICES, rawClaim } from '../builders/devices.ts';
import { aPod, aPolicy } from '../builders/objects.ts';

const asked = (pod: RawPod, spec: object = {}, known = DEVICES) =>
  askedOf(requestOf(pod, 'team'), gpuKindsOf(aPolicy(spec)), known);
const resource = (name: string, amount: unknown = '1'): RawPod =>
  aPod({ container: { resources: { limits: { [name]: amount } } } });
const claims = (how: object, status: object = {}): RawPod => ({ ...aPod({ spec: claiming(how) }), status });
const firstAvailable = (...classes: readonly string[]): object => ({
  spec: {
    devices: { requests: [{ name: 'r', firstAvailable: classes.map((deviceClassName) => ({ deviceClassName })) }] },
  },
});

const inGroup = (pod: RawPod): RawPod =>
  ({ ...pod, spec: { ...pod.spec, schedulingGroup: { podGroupName: 'train' } } }) as RawPod;

describe('a pod asks for a GPU', () => {
  it.each<[string, RawPod, ReturnType<typeof asked>['kind']]>([
    ['by a claim of a class of the policy', claims({ resourceClaimName: 'gpu' }), 'gpus'],
    ['by a template of such a class', claims({ resourceClaimTemplateName: 'gpu' }), 'gpus'],
    [
      'by the claim that was made from a template that is gone',
      claims(
        { resourceClaimTemplateName: 'gone' },
        { resourceClaimStatuses: [{ name: 'device', resourceClaimName: 'gpu' }] },
      ),
      'gpus',
    ],
    [
      'by a template while its claim is not known yet',
      claims(
        { resourceClaimTemplateName: 'gpu' },
        { resourceClaimStatuses: [{ name: 'device', resourceClaimName: 'gpu-x7' }] },
      ),
      'gpus',
    ],
    [
      'by the claim that was made for its PodGroup',
      inGroup(
        claims(
          { resourceClaimTemplateName: 'gone' },
          { resourceClaimStatuses: [{ name: 'device', resourceClaimName: 'gpu' }] },
        ),
      ),
      'gpus',
    ],
    ['not by a claim of another class', claims({ resourceClaimName: 'fpga' }), 'nothing'],
    ['by a claim whose devices are of a driver of the policy', claims({ resourceClaimName: 'own-class' }), 'gpus'],
    ['it is not known, for a claim that is not known', claims({ resourceClaimName: 'late' }), 'unknown'],
    ['it is not known, for a template that is not known', claims({ resourceClaimTemplateName: 'late' }), 'unknown'],
    ['by a resource that a class of the policy maps', resource('example.com/gpu'), 'gpus'],
    ['not by a resource that another class maps', resource('example.com/fpga'), 'nothing'],
    ['by the implicit resource of a class', resource('deviceclass.resource.kubernetes.io/gpu.nvidia.com'), 'gpus'],
    ['by that of a class for a driver of the policy', resource('deviceclass.resource.kubernetes.io/by-driver'), 'gpus'],
    ['not by that of another class', resource('deviceclass.resource.kubernetes.io/fpga'), 'nothing'],
    ['not by an amount of zero', resource('deviceclass.resource.kubernetes.io/gpu.nvidia.com', '0'), 'nothing'],
    ['by a resource of a device plugin', resource('nvidia.com/gpu'), 'gpus'],
    ['not by a claim in another namespace', { ...claims({ resourceClaimName: 'elsewhere' }) }, 'unknown'],
    [
      'by a claim that no container uses',
      aPod({ spec: { resourceClaims: [{ name: 'd', resourceClaimName: 'gpu' }] } }),
      'gpus',
    ],
    ['not with an empty list of claims', aPod({ spec: { resourceClaims: [] } }), 'nothing'],
  ])('%s', (_, pod, kind) => expect(asked(pod).kind).toBe(kind));

  it('by one of several alternatives', () => {
    const known = devices({
      claims: { 'team/a': firstAvailable('fpga', 'mig.nvidia.com'), 'team/b': firstAvailable('fpga') },
    });
    expect(asked(claims({ resourceClaimName: 'a' }), {}, known).kind).toBe('gpus');
    expect(asked(claims({ resourceClaimName: 'b' }), {}, known).kind).toBe('nothing');
  });
  it('as the policy lists classes and drivers', () => {
    expect(asked(claims({ resourceClaimName: 'fpga' }), { deviceClasses: ['fpga'] }).kind).toBe('gpus');
    expect(asked(claims({ resourceClaimName: 'gpu' }), { deviceClasses: [], deviceDrivers: [] }).kind).toBe('nothing');
    expect(asked(claims({ resourceClaimName: 'here' }), { deviceClasses: [] }).kind).toBe('gpus');
  });
  it('in the containers that use the claim or the resource', () => {
    const answer = asked(
      aPod({
        spec: {
          resourceClaims: [
            { name: 'gpu', resourceClaimTemplateName: 'gpu' },
            { name: 'fpga', resourceClaimTemplateName: 'fpga' },
          ],
          initContainers: [{ resources: { claims: [{ name: 'gpu' }] } }],
          containers: [
            { resources: { claims: [{ name: 'fpga' }] } },
            { resources: { limits: { 'nvidia.com/gpu': 1 } } },
            { resources: { claims: [{ name: 'gpu', request: 'x' }] } },
            {},
          ],
        },
      }),
    );
    if (answer.kind !== 'gpus') throw new Error(answer.kind);
    expect(indicesOf(answer.containers)).toEqual({ containers: [1, 2], initContainers: [0] });
    expect(indicesOf(answer.byResource)).toEqual({ containers: [1], initContainers: [] });
    expect(answer.claims.map(({ wanted }) => wanted.template)).toEqual(['gpu']);
  });
  it('by the claim that the scheduler made for an extended resource', () =>
    expect(
      asked({ ...aPod(), status: { extendedResourceClaimStatus: { resourceClaimName: 'here', requestMappings: [] } } })
        .kind,
    ).toBe('gpus'));
});

describe('what is kept of a claim', () => {
  it('its classes, its devices, and the only node that can use them', () =>
    expect(claimFacts(rawClaim('gpu.nvidia.com', 'node-a'))).toEqual({
      classes: ['gpu.nvidia.com'],
      drivers: ['gpu.nvidia.com'],
      devices: [{ driver: 'gpu.nvidia.com', pool: 'node-a', device: 'gpu-3' }],
      node: 'node-a',
    }));
  it.each([
    [
      'several nodes',
      { nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['a', 'b'] }] }] },
    ],
    ['a label', { nodeSelectorTerms: [{ matchExpressions: [{ key: 'zone', operator: 'In', values: ['a'] }] }] }],
    ['all nodes', undefined],
  ])('no node, where %s can use them', (_, nodeSelector) =>
    expect(claimFacts({ status: { allocation: { devices: { results: [] }, nodeSelector } } }).node).toBeUndefined(),
  );
  it.each([
    null,
    7,
    {},
    { spec: { devices: { requests: [null, { exactly: 7 }, { firstAvailable: 'x' }], config: 'x' } } },
  ])('nothing of %j, and no reader throws', (raw) => {
    const nothing = { classes: [], drivers: [], devices: [], node: undefined };
    expect(claimFacts(raw)).toEqual(nothing);
    expect(templateFacts({ spec: raw })).toEqual(nothing);
    expect(classFacts(raw)).toEqual({ resource: '', drivers: [] });
    expect(wantedClaims(raw, raw)).toEqual([]);
  });
});

it('extended resources that classes of the policy map, and no others', () => {
  const kinds = gpuKindsOf(aPolicy());
  expect(mappedResources(kinds, DEVICES)).toEqual(['example.com/gpu']);
  expect(mappedResources(kinds, devices({}))).toEqual([]);
});

describe('the node that a claim is allocated on', () => {
  const name = (key: string, operator: string, values: readonly string[]) => ({ key, operator, values });
  const onlyHere = { matchFields: [name('metadata.name', 'In', ['node-a'])] };
  const nodeOf = (...nodeSelectorTerms: readonly object[]) =>
    claimFacts({ spec: {}, status: { allocation: { nodeSelector: { nodeSelectorTerms } } } }).node;
  it.each<[string, object[], string | undefined]>([
    ['is the one that is named', [onlyHere], 'node-a'],
    ['is not known where there are two terms', [onlyHere, onlyHere], undefined],
    [
      'is not known where a second field narrows it',
      [{ matchFields: [...onlyHere.matchFields, name('metadata.name', 'NotIn', ['node-b'])] }],
      undefined,
    ],
    ['is not known by another field', [{ matchFields: [name('metadata.uid', 'In', ['node-a'])] }], undefined],
    ['is not the one that is excluded', [{ matchFields: [name('metadata.name', 'NotIn', ['node-a'])] }], undefined],
    ['is not one of two', [{ matchFields: [name('metadata.name', 'In', ['node-a', 'node-b'])] }], undefined],
    ['is not known by labels', [{ matchExpressions: [name('zone', 'In', ['a'])] }], undefined],
  ])('%s', (_, terms, node) => expect(nodeOf(...terms)).toBe(node));
});
