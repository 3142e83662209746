// Finding and building the cluster's programs, with a stand-in for `go` that links on command: what
// exists at each moment, and what is left.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { beginBinaries, CONTROL_PLANE, ensureBinaries, sizeOf } from '../../../lab/cluster/binaries.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gpu-gate-binaries-'));
  mkdirSync(join(dir, 'path'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/**
 * Notes its arguments, links each package when a file of its name is there, and ends with what the
 * file `end` holds.
 */
const GO = `#!/bin/sh
[ "$1" = version ] && exit 0
printf '%s\\n' "$@" > "$HERE/arguments"
echo some/package >&2
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out="$2"; shift ;;
    ./*) packages="$packages \${1#./}" ;;
  esac
  shift
done
mkdir -p "$out"
for package in $packages; do
  until [ -e "$HERE/link-$package" ] || [ -e "$HERE/end" ]; do sleep 0.05; done
  [ -e "$HERE/link-$package" ] && echo program > "$GOTMPDIR/$package" && mv "$GOTMPDIR/$package" "$out/$package"
done
until [ -e "$HERE/end" ]; do sleep 0.05; done
exit $(cat "$HERE/end")
`;
const lines: string[] = [];
const options = (kubernetes?: string) => {
  // The script finds its folder in its own text: the environment is the caller's.
  writeFileSync(join(dir, 'path', 'go'), GO.replaceAll('$HERE', dir), { mode: 0o755 });
  return {
    modules: CONTROL_PLANE,
    kubernetes,
    cacheHome: dir,
    path: `${join(dir, 'path')}:${process.env['PATH'] ?? ''}`,
    say: (line: string) => void lines.push(line),
  };
};
const say = (file: string, text = ''): void => writeFileSync(join(dir, file), text);
const kept = (): readonly string[] =>
  readdirSync(join(dir, 'gpu-gate')).map((name) => name.replace(/-[0-9a-f]{12}$/, ''));

describe('a build', () => {
  it('gives the control plane as soon as it is linked, while the tools are still built', async () => {
    const binaries = beginBinaries(options());
    say('link-control-plane');
    await binaries.ready('control-plane');
    expect(readFileSync(binaries('kube-apiserver'), 'utf8')).toBe('program\n');
    expect(readlinkSync(binaries('etcd'))).toBe('control-plane');
    expect(existsSync(binaries('helm'))).toBe(false);
    say('link-tools');
    say('end', '0');
    await binaries.ready(...CONTROL_PLANE);
    expect(readlinkSync(binaries('helm'))).toBe('tools');
    expect(readFileSync(join(dir, 'arguments'), 'utf8').trim().split('\n').slice(-2)).toEqual([
      './control-plane',
      './tools',
    ]);
  });

  it('that fails rejects what it has not linked, and leaves no half program', async () => {
    const binaries = beginBinaries(options());
    say('link-control-plane');
    await binaries.ready('control-plane');
    say('end', '1');
    await expect(binaries.ready('tools')).rejects.toThrow(/ended with 1:\nsome\/package/);
    await binaries.ready('control-plane');
    expect(kept()).toEqual(['control-plane-1.37.2']);
  });

  it('is not repeated: what is there needs no Go', async () => {
    say('link-control-plane');
    say('link-tools');
    say('end', '0');
    await ensureBinaries(options());
    const again = await ensureBinaries({ ...options(), path: join(dir, 'nowhere') });
    expect(readFileSync(again('kwok'), 'utf8')).toBe('program\n');
    expect(sizeOf(join(dir, 'gpu-gate'))).toBe('0 MB');
  });

  it('goes on where only a part is there', async () => {
    say('link-control-plane');
    say('end', '1');
    await expect(ensureBinaries(options())).rejects.toThrow('ended with 1');
    say('link-tools');
    say('end', '0');
    await ensureBinaries(options());
    expect(readFileSync(join(dir, 'arguments'), 'utf8').trim().split('\n').at(-2)).toMatch(/bin\/$/);
  });

  it('removes what a killed one left, and nothing of one that runs', async () => {
    mkdirSync(join(dir, 'gpu-gate', 'partial-99999999-control-plane'), { recursive: true });
    mkdirSync(join(dir, 'gpu-gate', `partial-${process.ppid}-tools`));
    say('link-control-plane');
    say('link-tools');
    say('end', '0');
    await ensureBinaries(options());
    // Its own folder goes last, after the programs are there.
    await expect
      .poll(() => kept().toSorted())
      .toEqual(['control-plane-1.37.2', `partial-${process.ppid}-tools`, 'tools']);
  });
});

describe('another version of Kubernetes', () => {
  it('is built from its own pins; helm and kwok stay those of the newest', async () => {
    say('link-control-plane');
    say('link-tools');
    say('end', '0');
    const newest = await ensureBinaries(options());
    const older = await ensureBinaries(options('1.36.3'));
    expect([newest.kubernetes, older.kubernetes]).toEqual(['1.37.2', '1.36.3']);
    expect(readFileSync(join(dir, 'arguments'), 'utf8')).toMatch(/-modfile=1\.36\.3\.mod[\s\S]*gitVersion=v1\.36\.3/);
    expect(older('helm')).toBe(newest('helm'));
    expect(older('etcd')).not.toBe(newest('etcd'));
  });
  it('that nobody has pinned: which ones there are', async () => {
    await expect(ensureBinaries(options('1.2.3'))).rejects.toThrow(/Kubernetes 1\.2\.3 .* one of 1\.37\.2, 1\.36\.3/);
  });
});
