// Image tars without an engine or a registry: a folder becomes one layer, and one layer may serve
// several images that differ in entrypoint only. The form is what `ctr images import` and `docker
// load` take.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..', '..');

interface ImageConfig {
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Env?: readonly string[];
  readonly User?: string;
  readonly WorkingDir?: string;
}

const run = (command: string, ...args: string[]): string => {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr.trim()}`);
  return result.stdout;
};

/** Packs the files of `tree` into `file` as one layer with an image of each name. */
function packImages(tree: string, file: string, images: Readonly<Record<string, ImageConfig>>): void {
  const dir = `${file}.parts`;
  mkdirSync(dir, { recursive: true });
  const layer = join(dir, 'layer.tar');
  run('tar', '--numeric-owner', '--owner=0', '--group=0', '-C', tree, '-cf', layer, '.');
  const digest = createHash('sha256').update(readFileSync(layer)).digest('hex');
  const manifest = Object.entries(images).map(([name, config], i) => {
    const json = `config-${i}.json`;
    const text = JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], ...config },
      rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
    });
    writeFileSync(join(dir, json), text);
    return { Config: json, RepoTags: [name], Layers: ['layer.tar'] };
  });
  writeFileSync(join(dir, 'manifest.json'), JSON.stringify(manifest));
  run('tar', '-C', dir, '-cf', file, '.');
}

/**
 * NVIDIA's images as our stand-in plays them, and the sandbox's: what the GPUPolicy names in place
 * of the real ones.
 */
export const STACK_IMAGES = {
  toolkit: 'gpu-gate.test/container-toolkit:1',
  driver: 'gpu-gate.test/driver',
  manager: 'gpu-gate.test/k8s-driver-manager:1',
  devicePlugin: 'gpu-gate.test/k8s-device-plugin:1',
  draDriver: 'gpu-gate.test/dra-driver-nvidia-gpu:1',
  dcgmExporter: 'gpu-gate.test/dcgm-exporter:1',
  validation: 'gpu-gate.test/cuda-sample:1',
  app: 'gpu-gate.test/gpu-app:1',
  pause: 'gpu-gate.test/pause:1',
} as const;

/**
 * Lays out the stand-in under the names of NVIDIA's programs, with a shell, as their images have
 * one.
 */
export function packStack(program: string, dir: string): string {
  const tree = join(dir, 'stack');
  for (const folder of ['usr/bin', 'bin', 'cuda-samples', 'tmp', 'dev', 'proc', 'sys', 'run', 'driver'])
    mkdirSync(join(tree, folder), { recursive: true });
  const first = join(tree, 'usr/bin/nvidia-toolkit');
  cpSync(program, first);
  for (const name of [
    'driver-manager',
    'nvidia-driver',
    'nvidia-smi',
    'nvidia-device-plugin',
    'dcgm-exporter',
    'gpu-app',
    'pause',
  ])
    linkSync(first, join(tree, 'usr/bin', name));
  linkSync(first, join(tree, 'cuda-samples/vectorAdd'));
  cpSync(realpathSync('/usr/bin/busybox'), join(tree, 'bin/busybox'));
  for (const applet of [
    'sh',
    'sed',
    'tail',
    'tr',
    'cat',
    'grep',
    'mkdir',
    'printf',
    'rm',
    'sleep',
    'test',
    'ls',
    'chroot',
  ])
    symlinkSync('busybox', join(tree, 'bin', applet));
  const file = join(dir, 'stack.tar');
  const entry = (name: string): ImageConfig => ({ Entrypoint: [`/usr/bin/${name}`] });
  packImages(tree, file, {
    [STACK_IMAGES.toolkit]: entry('nvidia-toolkit'),
    [`${STACK_IMAGES.driver}:595.91.07-ubuntu24.04`]: {},
    [STACK_IMAGES.manager]: {},
    [STACK_IMAGES.devicePlugin]: entry('nvidia-device-plugin'),
    [STACK_IMAGES.dcgmExporter]: entry('dcgm-exporter'),
    [STACK_IMAGES.validation]: {},
    [STACK_IMAGES.app]: entry('gpu-app'),
    [STACK_IMAGES.pause]: entry('pause'),
  });
  return file;
}

/** As much of NVIDIA's script as its stand-in needs: it waits for the driver root's libraries. */
const PRESTART = `root=/driver-root-parent/\${NVIDIA_DRIVER_ROOT##*/}
until [ -e "$root/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1" ]; do sleep 0.2; done
`;

/** Lays out the DRA driver's stand-in under the names that NVIDIA's image has. */
export function packDraDriver(program: string, dir: string): string {
  const tree = join(dir, 'dra-driver');
  for (const folder of ['usr/bin', 'bin', 'tmp']) mkdirSync(join(tree, folder), { recursive: true });
  cpSync(program, join(tree, 'usr/bin/gpu-kubelet-plugin'));
  writeFileSync(join(tree, 'usr/bin/kubelet-plugin-prestart.sh'), PRESTART);
  cpSync(realpathSync('/usr/bin/busybox'), join(tree, 'bin/busybox'));
  for (const applet of ['sh', 'sleep']) symlinkSync('busybox', join(tree, 'bin', applet));
  writeFileSync(join(tree, 'bin/bash'), '#!/bin/sh\nexec sh "$@"\n', { mode: 0o755 });
  const file = join(dir, 'dra-driver.tar');
  packImages(tree, file, { [STACK_IMAGES.draDriver]: {} });
  return file;
}

/**
 * How gpu-gate's image starts: the last lines of the Dockerfile (test/platform/dockerfile.test.ts
 * compares).
 */
export const GATE_CONFIG = {
  Entrypoint: ['/usr/local/bin/node', '--single-threaded-gc', '/app/main.ts'],
  Cmd: ['run'],
  User: '65532:65532',
  WorkingDir: '/app',
  Env: ['NODE_COMPILE_CACHE=/app/.compile-cache', 'NODE_COMPILE_CACHE_PORTABLE=1'],
} as const satisfies ImageConfig;

/**
 * gpu-gate's image from the tree that the Dockerfile lays out too, on the libraries that its base
 * image has.
 */
export function packGate(dir: string, name: string): string {
  const tree = join(dir, 'gate');
  run(process.execPath, join(ROOT, 'scripts/image-tree.mjs'), tree);
  for (const library of librariesOf(process.execPath)) {
    mkdirSync(join(tree, dirname(library)), { recursive: true });
    cpSync(realpathSync(library), join(tree, library));
  }
  const file = join(dir, 'gate.tar');
  packImages(tree, file, { [name]: GATE_CONFIG });
  return file;
}

/** Paths that the dynamic loader finds for a program, itself included. */
function librariesOf(program: string): readonly string[] {
  return run('ldd', program)
    .split('\n')
    .flatMap((line) => /(\/\S+)\s+\(0x/.exec(line)?.[1] ?? []);
}

/** One static program as an image of its own. */
export function packProgram(program: string, dir: string, name: string): string {
  const tree = join(dir, basename(program));
  mkdirSync(join(tree, 'usr/local/bin'), { recursive: true });
  // One program may have several names: the image has the program itself under this one.
  copyFileSync(program, join(tree, 'usr/local/bin', basename(program)));
  const file = join(dir, `${basename(program)}.tar`);
  packImages(tree, file, { [name]: {} });
  return file;
}
