// Finds or builds the programs of the test cluster: a folder named by GPU_GATE_TEST_BIN, else a cache outside the
// checkout, else `go build` from the modules pinned in binaries/*/go.mod (minutes on the first run, then never again).
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

const KUBERNETES = 'v1.36.3';

const versionFlags = (version: string): string =>
  [
    `-X k8s.io/component-base/version.gitVersion=${version}`,
    '-X k8s.io/component-base/version.gitMajor=1',
    '-X k8s.io/component-base/version.gitMinor=36',
    `-X k8s.io/client-go/pkg/version.gitVersion=${version}`,
  ].join(' ');

interface Module {
  readonly packages: Readonly<Record<string, string>>;
  readonly ldflags: string;
  /** Rough time of a cold build on two cores, for the progress line. */
  readonly minutes: number;
}

const k8s = (name: string): string => `k8s.io/kubernetes/cmd/${name}`;
const MODULES = {
  etcd: { packages: { etcd: 'go.etcd.io/etcd/server/v3' }, ldflags: '', minutes: 1 },
  kubernetes: {
    packages: Object.fromEntries(
      ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl', 'kubelet', 'kube-proxy'].map(
        (name) => [name, k8s(name)],
      ),
    ),
    ldflags: versionFlags(KUBERNETES),
    minutes: 8,
  },
  kwok: { packages: { kwok: 'sigs.k8s.io/kwok/cmd/kwok' }, ldflags: '', minutes: 2 },
  helm: { packages: { helm: 'helm.sh/helm/v4/cmd/helm' }, ldflags: '', minutes: 2 },
  containerd: {
    packages: Object.fromEntries(
      ['containerd', 'containerd-shim-runc-v2', 'ctr'].map((name) => [
        name,
        `github.com/containerd/containerd/v2/cmd/${name}`,
      ]),
    ),
    ldflags: '',
    minutes: 2,
  },
} as const satisfies Record<string, Module>;

export type ModuleName = keyof typeof MODULES;

/** What a simulated cluster runs. The real node adds containerd. */
export const CONTROL_PLANE: readonly ModuleName[] = ['etcd', 'kubernetes', 'kwok', 'helm'];

/** Absolute path of a program by its name, such as `kube-apiserver`. */
export type Binaries = (program: string) => string;

export interface BinariesOptions {
  readonly modules: readonly ModuleName[];
  /** GPU_GATE_TEST_BIN: a folder that holds every program; nothing is built then. */
  readonly folder?: string | undefined;
  /** XDG_CACHE_HOME. */
  readonly cacheHome?: string | undefined;
  /** PATH in which `go` is looked up. */
  readonly path?: string | undefined;
  readonly say: (line: string) => void;
}

const here = import.meta.dirname;

const cacheRoot = (cacheHome: string | undefined): string => join(cacheHome ?? join(homedir(), '.cache'), 'gpu-gate');

const cacheFolder = (name: ModuleName, cacheHome: string | undefined): string => {
  const goMod = readFileSync(join(here, 'binaries', name, 'go.mod'));
  const hash = createHash('sha256').update(goMod).update(MODULES[name].ldflags).digest('hex').slice(0, 12);
  return join(cacheRoot(cacheHome), `${name}-${hash}`, 'bin');
};

/** One of our own small Go programs (a fixture, a benchmark's reference), built once per content of its folder. Returns its path. */
export async function ensureOwnProgram(
  folder: string,
  name: string,
  options: Pick<BinariesOptions, 'cacheHome' | 'path' | 'say'>,
): Promise<string> {
  const hash = createHash('sha256');
  for (const file of readdirSync(folder).toSorted()) hash.update(file).update(readFileSync(join(folder, file)));
  const program = join(cacheRoot(options.cacheHome), `${name}-${hash.digest('hex').slice(0, 12)}`, name);
  if (existsSync(program)) return program;
  const env = goEnvironment(options.path);
  requireGo(env, name);
  options.say(`building ${name} (once)`);
  mkdirSync(dirname(program), { recursive: true });
  const partial = `${program}.partial-${process.pid}`;
  await run('go', ['build', '-trimpath', '-ldflags', '-s -w', '-o', partial, '.'], folder, env);
  renameSync(partial, program);
  return program;
}

/** Paths of all programs of the modules asked for, built first where they are missing. Throws one sentence where they cannot be had. */
export async function ensureBinaries(options: BinariesOptions): Promise<Binaries> {
  const found = new Map<string, string>();
  for (const name of options.modules) {
    const programs = Object.keys(MODULES[name].packages);
    const folder = options.folder ?? cacheFolder(name, options.cacheHome);
    const missing = programs.filter((program) => !existsSync(join(folder, program)));
    if (missing.length > 0) {
      if (options.folder !== undefined) {
        throw new Error(
          `GPU_GATE_TEST_BIN=${options.folder} lacks ${missing.join(', ')}: put them there, or unset it and install Go to have them built`,
        );
      }
      await build(name, folder, missing, options);
    }
    for (const program of programs) found.set(program, join(folder, program));
  }
  return (program) => {
    const path = found.get(program);
    if (path === undefined)
      throw new Error(`${program} belongs to no module asked for (${options.modules.join(', ')})`);
    return path;
  };
}

const goEnvironment = (path: string | undefined): NodeJS.ProcessEnv => ({
  ...process.env,
  PATH: path ?? process.env['PATH'],
  CGO_ENABLED: '0',
  GOFLAGS: '',
  GOWORK: 'off',
});

function requireGo(env: NodeJS.ProcessEnv, wanted: string): void {
  if (spawnSync('go', ['version'], { env }).status === 0) return;
  throw new Error(
    `cannot run the test cluster: ${wanted} not found and Go is not on PATH; install Go 1.26 or newer to build them, or set GPU_GATE_TEST_BIN to a folder that has them`,
  );
}

async function build(
  name: ModuleName,
  folder: string,
  programs: readonly string[],
  options: BinariesOptions,
): Promise<void> {
  const env = goEnvironment(options.path);
  requireGo(env, programs.join(', '));
  const module: Module = MODULES[name];
  options.say(`building ${programs.join(', ')} (about ${module.minutes} min on 2 cores, once)`);
  const started = Date.now();
  const tick = setInterval(
    () => options.say(`  still building ${name}: ${Math.round((Date.now() - started) / 1000)} s`),
    20_000,
  );
  // Built beside and renamed at the end, so that an interrupted build leaves no half program in the cache.
  const partial = `${folder}.partial-${process.pid}`;
  mkdirSync(partial, { recursive: true });
  try {
    for (const program of programs) {
      const args = [
        'build',
        '-trimpath',
        '-ldflags',
        `-s -w ${module.ldflags}`,
        '-o',
        join(partial, program),
        module.packages[program] ?? '',
      ];
      await run('go', args, join(here, 'binaries', name), env);
      mkdirSync(folder, { recursive: true });
      renameSync(join(partial, program), join(folder, program));
    }
  } finally {
    clearInterval(tick);
    rmSync(partial, { recursive: true, force: true });
  }
  options.say(`built ${programs.join(', ')} in ${Math.round((Date.now() - started) / 1000)} s`);
}

const run = (command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'ignore', 'pipe'] });
    let tail = '';
    child.stderr.on('data', (chunk: Buffer) => (tail = (tail + chunk.toString()).slice(-4000)));
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`go ${args.join(' ')} in ${cwd} ended with ${code}:\n${tail}`)),
    );
  });
