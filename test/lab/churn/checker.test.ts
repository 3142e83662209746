// The judge of the churn sees claims that get a device which a DeviceTaintRule kept off.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Judgements } from '../../../lab/churn/churn.ts';

const CHECKER = join(import.meta.dirname, '../../../lab/churn/checker.ts');
const BEGIN = Date.parse('2026-11-28T12:00:00Z');
const at = (seconds: number): string => new Date(BEGIN + seconds * 1000).toISOString();

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gpu-gate-checker-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A write that took 10 ms. */
const wrote = (seconds: number, verb: string, objectRef: object, responseObject?: object): object => ({
  stage: 'ResponseComplete',
  verb,
  requestReceivedTimestamp: at(seconds),
  stageTimestamp: at(seconds + 0.01),
  objectRef,
  responseStatus: { code: 200 },
  responseObject,
});
const OPEN = wrote(
  0,
  'patch',
  { resource: 'nodes', name: 'gpu-0' },
  {
    metadata: {
      name: 'gpu-0',
      uid: 'u',
      resourceVersion: '1',
      labels: { 'gpu-gate.dev/managed': 'true' },
      annotations: { 'gpu-gate.dev/proof': '{"node":"u","boot":"b"}' },
    },
    status: {
      nodeInfo: { bootID: 'b' },
      conditions: ['Ready', 'GPUValidated'].map((type) => ({ type, status: 'True' })),
    },
  },
);
const rule = (seconds: number, verb: string, device?: string): object =>
  wrote(
    seconds,
    verb,
    { resource: 'devicetaintrules', name: 'gpu-gate.gpu-0.gpu.nvidia.com' },
    { spec: { deviceSelector: { driver: 'gpu.nvidia.com', pool: 'gpu-0', device } } },
  );
const allocated = (seconds: number, device: string): object =>
  wrote(
    seconds,
    'patch',
    { resource: 'resourceclaims', subresource: 'status', namespace: 'default', name: 'c' },
    {
      metadata: { uid: 'c' },
      status: {
        allocation: { devices: { results: [{ pool: 'gpu-0', device }] } },
        reservedFor: [{ resource: 'pods', name: 'p' }],
      },
    },
  );

/** What the checker says where the scheduler began to look for a node at that second. */
function judged(began: number, ...audit: readonly object[]) {
  const file = (name: string, lines: readonly object[]): string => {
    const path = join(dir, name);
    writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    return path;
  };
  const attempt = {
    ts: BEGIN + began * 1000,
    msg: 'Attempting to schedule pod',
    pod: { namespace: 'default', name: 'p' },
  };
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [CHECKER, file('audit', [OPEN, ...audit]), file('probes', []), file('scheduler', [attempt])],
    { encoding: 'utf8' },
  );
  expect(stderr).toBe('');
  const { namespaces } = JSON.parse(stdout) as Judgements;
  return { status, report: namespaces['default'] };
}

it.each<[string, string | undefined]>([
  ['a rule for that device', 'gpu-3'],
  ['a rule for all devices', undefined],
])('a device that %s keeps off', (_, device) => {
  const { status, report } = judged(10, rule(5, 'create', device), allocated(11, 'gpu-3'));
  expect(report?.violations).toEqual([
    expect.objectContaining({ kind: 'device', pod: 'p', node: 'gpu-0', closedForMs: 5990 }),
  ]);
  expect(status).toBe(1);
});

it.each<[string, number, readonly object[]]>([
  ['another device', 10, [rule(5, 'create', 'gpu-4'), allocated(11, 'gpu-3')]],
  ['a rule that the scheduler may not have seen', 10, [rule(9, 'create', 'gpu-3'), allocated(11, 'gpu-3')]],
  ['a rule that was gone', 10, [rule(5, 'create', 'gpu-3'), rule(9, 'delete'), allocated(11, 'gpu-3')]],
  ['a rule that came afterwards', 10, [allocated(11, 'gpu-3'), rule(12, 'create', 'gpu-3')]],
])('%s is not held against anyone', (_, began, audit) => {
  const { status, report } = judged(began, ...audit);
  expect(report).toMatchObject({ allocations: 1, toOpen: 1, violations: [], deviceRules: 1 });
  expect(status).toBe(0);
});
