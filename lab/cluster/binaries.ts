// Finds or builds the programs of the test cluster: a folder named by GPU_GATE_TEST_BIN, else a cache outside the
// checkout, else `go build` from the modules pinned in binaries/ (minutes on the first run, then never again).
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** The versions of Kubernetes that can be built, each with the file that pins its modules; the first is the default. */
const KUBERNETES = new Map([
  ['1.37.2', 'go.mod'],
  ['1.36.3', '1.36.3.mod'],
]);
const DEFAULT_KUBERNETES = '1.37.2';

interface Module {
  /** The folder under binaries/, and what is built there. */
  readonly folder: string;
  readonly packages: readonly {
    /** What `go build` builds. */
    readonly path: string;
    /** The names that it is called by; it does what its name says. */
    readonly programs: readonly string[];
  }[];
  /** Built anew for each version of Kubernetes. */
  readonly ofKubernetes: boolean;
  /** Rough time of a cold build on two cores, for the progress line. */
  readonly minutes: number;
}

const MODULES = {
  'control-plane': {
    folder: 'kubernetes',
    packages: [
      {
        path: './control-plane',
        programs: ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl'],
      },
    ],
    ofKubernetes: true,
    minutes: 7,
  },
  // Packages that they share with the control plane are compiled once.
  tools: {
    folder: 'kubernetes',
    packages: [{ path: './tools', programs: ['kwok', 'helm'] }],
    ofKubernetes: false,
    minutes: 1,
  },
  node: {
    folder: 'kubernetes',
    packages: [{ path: './node', programs: ['kubelet', 'kube-proxy'] }],
    ofKubernetes: true,
    minutes: 1,
  },
  containerd: {
    folder: 'containerd',
    packages: ['containerd', 'containerd-shim-runc-v2', 'ctr'].map((name) => ({
      path: `github.com/containerd/containerd/v2/cmd/${name}`,
      programs: [name],
    })),
    ofKubernetes: false,
    minutes: 1,
  },
} as const satisfies Record<string, Module>;

export type ModuleName = keyof typeof MODULES;

/** What a simulated cluster runs, in the order in which it needs it. */
export const CONTROL_PLANE: readonly ModuleName[] = ['control-plane', 'tools'];
/** What a real node needs beside it. */
export const REAL_NODE: readonly ModuleName[] = ['node', 'containerd'];

/** The programs of a cluster: the absolute path of each by its name, such as `kube-apiserver`. */
export interface Binaries {
  (program: string): string;
  /** The version of Kubernetes, such as `1.37.2`. */
  readonly kubernetes: string;
}

export interface BinariesOptions {
  readonly modules: readonly ModuleName[];
  /** The version of Kubernetes (GPU_GATE_TEST_KUBERNETES); default the newest. */
  readonly kubernetes?: string | undefined;
  /** GPU_GATE_TEST_BIN: a folder that holds every program; nothing is built then. */
  readonly folder?: string | undefined;
  /** XDG_CACHE_HOME. */
  readonly cacheHome?: string | undefined;
  /** PATH in which `go` is looked up. */
  readonly path?: string | undefined;
  readonly say: (line: string) => void;
}

/** The options that the environment gives. */
export const fromEnvironment = (): Omit<BinariesOptions, 'modules' | 'say'> => ({
  kubernetes: process.env['GPU_GATE_TEST_KUBERNETES'],
  folder: process.env['GPU_GATE_TEST_BIN'],
  cacheHome: process.env['XDG_CACHE_HOME'],
  path: process.env['PATH'],
});

const here = join(import.meta.dirname, 'binaries');

/** Where everything that was built is. */
export const cacheFolder = (cacheHome: string | undefined): string =>
  join(cacheHome ?? join(homedir(), '.cache'), 'gpu-gate');

/** What a folder holds, such as `212 MB`; undefined where it is not there. */
export function sizeOf(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  const bytes = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
  return `${Math.round(bytes / 1e6)} MB`;
}

/** The compiler's own debugging tables, which the linker would drop again, are a tenth of a build's time. */
const COMPILER_FLAGS = '-dwarf=false';

const linkerFlags = (version: string): string => {
  const [major, minor] = version.split('.');
  return [
    '-s -w',
    `-X k8s.io/component-base/version.gitVersion=v${version}`,
    `-X k8s.io/component-base/version.gitMajor=${major}`,
    `-X k8s.io/component-base/version.gitMinor=${minor}`,
    `-X k8s.io/client-go/pkg/version.gitVersion=v${version}`,
  ].join(' ');
};

/** One module for one version: where its sources and its programs are, and how it is built. */
function buildOf(name: ModuleName, kubernetes: string, cacheHome: string | undefined) {
  const module: Module = MODULES[name];
  const version = module.ofKubernetes ? kubernetes : DEFAULT_KUBERNETES;
  const modFile = module.folder === 'kubernetes' ? (KUBERNETES.get(version) ?? '') : 'go.mod';
  const source = join(here, module.folder);
  const flags = [
    ...(modFile === 'go.mod' ? [] : [`-modfile=${modFile}`]),
    '-trimpath',
    `-gcflags=all=${COMPILER_FLAGS}`,
    `-ldflags=${linkerFlags(version)}`,
  ];
  const hash = createHash('sha256')
    .update(JSON.stringify(flags))
    .update(readFileSync(join(source, modFile)));
  for (const { path } of module.packages)
    if (path.startsWith('./')) hash.update(readFileSync(join(source, path, 'main.go')));
  const folder = [name, ...(module.ofKubernetes ? [version] : []), hash.digest('hex').slice(0, 12)].join('-');
  return { name, module, source, flags, folder: join(cacheFolder(cacheHome), folder, 'bin') };
}
type Build = ReturnType<typeof buildOf>;

/** One of our own small Go programs (a fixture, a benchmark's reference), built once per content of its folder. Returns its path. */
export async function ensureOwnProgram(
  folder: string,
  name: string,
  options: Pick<BinariesOptions, 'cacheHome' | 'path' | 'say'>,
): Promise<string> {
  const hash = createHash('sha256');
  for (const file of readdirSync(folder).toSorted()) hash.update(file).update(readFileSync(join(folder, file)));
  const program = join(cacheFolder(options.cacheHome), `${name}-${hash.digest('hex').slice(0, 12)}`, name);
  if (existsSync(program)) return program;
  const env = goEnvironment(options.path);
  requireGo(env, name);
  options.say(`building ${name} (once)`);
  mkdirSync(dirname(program), { recursive: true });
  const partial = `${program}.partial-${process.pid}`;
  await go(['build', '-trimpath', '-ldflags', '-s -w', '-o', partial, '.'], folder, env);
  renameSync(partial, program);
  return program;
}

/** Paths of all programs of the modules asked for, built first where they are missing. Throws one sentence where they cannot be had. */
export async function ensureBinaries(options: BinariesOptions): Promise<Binaries> {
  const kubernetes = options.kubernetes ?? DEFAULT_KUBERNETES;
  if (options.folder === undefined && !KUBERNETES.has(kubernetes))
    throw new TypeError(
      `Kubernetes ${kubernetes} cannot be built here: write one of ${[...KUBERNETES.keys()].join(', ')}, or set GPU_GATE_TEST_BIN to a folder that has its programs`,
    );
  const found = new Map<string, string>();
  for (const name of options.modules) {
    const programs = MODULES[name].packages.flatMap((built) => built.programs);
    const from = (folder: string): readonly string[] =>
      programs.filter((program) => !existsSync(join(folder, program)));
    let folder = options.folder;
    if (folder === undefined) {
      const build = buildOf(name, kubernetes, options.cacheHome);
      ({ folder } = build);
      if (from(folder).length > 0) await compile(build, options);
    } else if (from(folder).length > 0) {
      throw new Error(
        `GPU_GATE_TEST_BIN=${folder} lacks ${from(folder).join(', ')}: put them there, or unset it and install Go to have them built`,
      );
    }
    for (const program of programs) found.set(program, join(folder, program));
  }
  const binaries = (program: string): string => {
    const path = found.get(program);
    if (path === undefined)
      throw new Error(`${program} belongs to no module asked for (${options.modules.join(', ')})`);
    return path;
  };
  return Object.assign(binaries, { kubernetes });
}

const goEnvironment = (path: string | undefined): NodeJS.ProcessEnv => ({
  ...process.env,
  PATH: path ?? process.env['PATH'],
  CGO_ENABLED: '0',
  GOFLAGS: '',
  GOWORK: 'off',
  // A compiler process lives for a second: collecting its garbage costs time, and frees what its end frees anyway.
  GOGC: 'off',
  GOMEMLIMIT: '3GiB',
});

function requireGo(env: NodeJS.ProcessEnv, wanted: string): void {
  if (spawnSync('go', ['version'], { env }).status === 0) return;
  throw new Error(
    `cannot run the test cluster: ${wanted} not found and Go is not on PATH; install Go 1.26 or newer to build them, or set GPU_GATE_TEST_BIN to a folder that has them`,
  );
}

/** Go keeps what it has compiled: a build that was interrupted goes on where it was. */
async function compile(build: Build, options: BinariesOptions): Promise<void> {
  const { module, folder, source } = build;
  const programs = module.packages.flatMap((built) => built.programs).join(', ');
  const env = goEnvironment(options.path);
  requireGo(env, programs);
  options.say(`building ${programs} (about ${module.minutes} min on 2 cores, once)`);
  const started = Date.now();
  const seconds = (): number => Math.round((Date.now() - started) / 1000);
  let compiled = 0;
  const tick = setInterval(
    () => options.say(`  still building ${build.name}: ${seconds()} s, ${compiled} packages compiled`),
    20_000,
  );
  // Built beside and renamed at the end, so that an interrupted build leaves no half program in the cache.
  const partial = `${folder}.partial-${process.pid}`;
  mkdirSync(partial, { recursive: true });
  try {
    for (const { path, programs: names } of module.packages) {
      const file = names.length === 1 ? (names[0] ?? '') : basename(path);
      await go(['build', '-v', ...build.flags, '-o', join(partial, file), path], source, env, () => (compiled += 1));
      mkdirSync(folder, { recursive: true });
      renameSync(join(partial, file), join(folder, file));
      for (const name of names) {
        if (name === file) continue;
        rmSync(join(folder, name), { force: true });
        symlinkSync(file, join(folder, name));
      }
    }
  } finally {
    clearInterval(tick);
    rmSync(partial, { recursive: true, force: true });
  }
  const root = cacheFolder(options.cacheHome);
  options.say(
    `built ${programs} in ${seconds()} s; ${root} holds ${sizeOf(root) ?? 'nothing'} (npm run clean removes it)`,
  );
}

/** Runs `go`; `line` is called for each line that it writes. It ends with this process. */
const go = (
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
  line: () => void = () => undefined,
): Promise<void> =>
  new Promise((resolve, reject) => {
    const child: ChildProcess = spawn('go', args, { cwd, env, stdio: ['ignore', 'ignore', 'pipe'] });
    const end = (): void => void child.kill();
    process.once('exit', end);
    let tail = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      const text = chunk.toString();
      tail = (tail + text).slice(-4000);
      for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) line();
    });
    child.on('error', reject);
    child.on('close', (code) => {
      process.off('exit', end);
      if (code === 0) resolve();
      else reject(new Error(`go ${args.join(' ')} in ${cwd} ended with ${code}:\n${tail}`));
    });
  });
