// Builds the Dockerfile for real, with no registry: Debian's buildah, and base images of the names
// that the Dockerfile has, made of this machine's own files. Called by the image's test and by a
// dry run of a release.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const NEEDED = ['buildah', 'busybox', 'strip', 'npm', 'ldd', 'setpriv'] as const;

/** Why the image cannot be built here; `undefined` if it can. */
export function whyNoImage(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can';
  const missing = NEEDED.filter((program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0);
  return missing.length === 0 ? undefined : `missing here: ${missing.join(', ')} (npm test -- --install brings them)`;
}

function run(command: string, ...args: string[]): string {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.status !== 0)
    throw new Error(
      `${command} ${args.join(' ')} ended with ${result.status}: ${result.error?.message ?? ''}${result.stderr.slice(-4000)}`,
    );
  return result.stdout.trim();
}

/** Copies a program with every library that it is linked with. */
function copyProgram(program: string, tree: string, to: string): void {
  mkdirSync(dirname(join(tree, to)), { recursive: true });
  cpSync(realpathSync(program), join(tree, to));
  // A static program has none, and ldd ends with an error.
  const libraries = spawnSync('ldd', [realpathSync(program)], { encoding: 'utf8' }).stdout;
  for (const [, path] of libraries.matchAll(/(?:^|=>)\s*(\/\S+)/gm)) {
    if (path === undefined || existsSync(join(tree, path))) continue;
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    cpSync(realpathSync(path), join(tree, path));
  }
}

/** The files of what the Dockerfile's last stage starts from: C and C++ libraries, no shell. */
function runtimeTree(tree: string): void {
  for (const folder of ['tmp', 'proc', 'dev', 'sys', 'etc', 'run', 'var'])
    mkdirSync(join(tree, folder), { recursive: true });
  writeFileSync(
    join(tree, 'etc/passwd'),
    'root:x:0:0::/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n',
  );
  copyProgram(process.execPath, tree, 'node');
  rmSync(join(tree, 'node'));
}

/** The files of a Node.js image with a shell, npm and binutils. */
function buildTree(tree: string): void {
  runtimeTree(tree);
  copyProgram(process.execPath, tree, 'usr/local/bin/node');
  copyProgram('/usr/bin/strip', tree, 'usr/bin/strip');
  mkdirSync(join(tree, 'bin'), { recursive: true });
  copyProgram(run('sh', '-c', 'command -v busybox'), tree, 'bin/busybox');
  for (const applet of ['sh', 'env']) symlinkSync('busybox', join(tree, 'bin', applet));
  symlinkSync('/bin/env', join(tree, 'usr/bin/env'));
  cpSync(join(dirname(realpathSync(run('sh', '-c', 'command -v npm'))), '..'), join(tree, 'usr/local/lib/npm'), {
    recursive: true,
  });
  symlinkSync('../lib/npm/bin/npm-cli.js', join(tree, 'usr/local/bin/npm'));
}

export interface Built {
  /** Digest of its manifest. */
  readonly digest: string;
  readonly config: {
    readonly Entrypoint: readonly string[];
    readonly Cmd: readonly string[];
    readonly User: string;
    readonly Env: readonly string[];
    readonly WorkingDir: string;
    readonly Labels: Readonly<Record<string, string>>;
  };
  /** Bytes that the Dockerfile adds to its base. */
  readonly bytes: number;
  /** The image's files, for as long as the builder lives. */
  readonly files: string;
  /**
   * Writes it as an OCI archive, which `docker load`, `podman load` and `ctr images import` read.
   */
  archive(file: string): void;
}

export interface Builder {
  /** With these build arguments of the Dockerfile, such as `{ VERSION: '0.1.0' }`. */
  build(args?: Readonly<Record<string, string>>): Built;
  close(): void;
}

/** The base that a build argument of the Dockerfile names by default. */
function baseOf(argument: string): string {
  const defaults = new Map(
    [...readFileSync(join(ROOT, 'Dockerfile'), 'utf8').matchAll(/^ARG (\w+)=(.+)$/gm)].map(
      ([, name = '', value = '']) => [name, value],
    ),
  );
  return (defaults.get(argument) ?? '').replaceAll(/\$\{(\w+)\}/g, (_, name: string) => defaults.get(name) ?? '');
}

export function imageBuilder(): Builder {
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-buildah-'));
  const store = ['--root', join(dir, 'root'), '--runroot', join(dir, 'run'), '--storage-driver', 'vfs'];
  const buildah = (...args: string[]): string => run('buildah', ...store, ...args);
  const base = (name: string, tree: string): void => {
    const container = buildah('from', 'scratch');
    buildah('copy', '--quiet', container, tree, '/');
    buildah('config', '--env', 'PATH=/usr/local/bin:/usr/bin:/bin', container);
    buildah('commit', '--quiet', '--rm', container, name);
  };
  for (const [argument, lay] of [
    ['BUILD_BASE', buildTree],
    ['RUNTIME_BASE', runtimeTree],
  ] as const) {
    const tree = join(dir, argument);
    mkdirSync(tree);
    lay(tree);
    base(baseOf(argument), tree);
    rmSync(tree, { recursive: true });
  }
  // How npm reaches its registry is this machine's own matter.
  const npmrc = join(dir, 'npmrc');
  const own = run('npm', 'config', 'get', 'userconfig');
  writeFileSync(
    npmrc,
    `${existsSync(own) ? readFileSync(own, 'utf8') : ''}\ncafile=/etc/ssl/certs/ca-certificates.crt\nfetch-retries=1\n`,
  );
  let count = 0;
  return {
    build(args = {}) {
      const tag = `gpu-gate-test:${(count += 1)}`;
      buildah(
        'build',
        '--isolation=chroot',
        '--network=host',
        '--pull=never',
        '--no-cache',
        '--timestamp=0',
        '--layers=false',
        `--volume=${npmrc}:/root/.npmrc:ro`,
        '--volume=/etc/ssl/certs:/etc/ssl/certs:ro',
        ...Object.entries(args).map(([name, value]) => `--build-arg=${name}=${value}`),
        `--tag=${tag}`,
        ROOT,
      );
      const inspected = JSON.parse(buildah('inspect', '--type=image', tag)) as {
        FromImageDigest: string;
        OCIv1: { config: Built['config'] };
      };
      const container = buildah('from', '--pull=never', tag);
      const files = buildah('mount', container);
      const size = (path: string): number => Number(run('du', '-sb', join(files, path)).split('\t')[0]);
      return {
        digest: inspected.FromImageDigest,
        config: inspected.OCIv1.config,
        bytes: size('app') + size('usr/local'),
        files,
        archive(file) {
          buildah('push', '--quiet', tag, `oci-archive:${file}`);
        },
      };
    },
    close() {
      spawnSync('buildah', [...store, 'umount', '--all']);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/**
 * The command that runs a program in the image's files as a container does: that folder as its
 * root, read only, as that user.
 */
export const inImage = (files: string, user: string, mounts: Readonly<Record<string, string>>): readonly string[] => [
  'unshare',
  '--mount',
  'sh',
  '-ec',
  [
    'mount --bind "$0" "$0"',
    'mount -t proc proc "$0/proc"',
    ...Object.entries(mounts).map(([from, to]) => `mkdir -p "$0${to}"; mount --bind "${from}" "$0${to}"`),
    'mount -o remount,bind,ro "$0"',
    `exec setpriv --no-new-privs chroot --userspec=${user} --groups= "$0" "$@"`,
  ].join('\n'),
  files,
];
