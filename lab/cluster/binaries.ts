// Finds or builds the programs of the test cluster: a folder named by GPU_GATE_TEST_BIN, else a
// cache outside the checkout, else `go build` from the modules pinned in binaries/ (minutes on the
// first run, then never again).
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { homedir, totalmem } from 'node:os';
import { basename, dirname, join } from 'node:path';

/**
 * The versions of Kubernetes that can be built, each with the file that pins its modules; the first
 * is the default.
 */
const KUBERNETES = new Map([
  ['1.37.2', 'go.mod'],
  ['1.36.3', '1.36.3.mod'],
]);
const DEFAULT_KUBERNETES = '1.37.2';
/** All that can be built, the default first. */
export const VERSIONS: readonly string[] = [...KUBERNETES.keys()];

interface Module {
  /** The folder under binaries/, and what is built there. */
  readonly folder: string;
  readonly packages: readonly {
    /** What `go build` builds. */
    readonly path: string;
    /** The names that it is called by; it does what its name says. */
    readonly programs: readonly string[];
  }[];
  /** Built once for each version of Kubernetes. */
  readonly ofKubernetes: boolean;
  /** The file that pins its modules, where it is not the one of its folder. */
  readonly modFile?: string;
  /** Further variables that the linker sets, as its release does. */
  readonly variables?: readonly string[];
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
  // Of the same versions as helm 4, so that most of it is compiled already.
  helm3: {
    folder: 'kubernetes',
    packages: [{ path: 'helm.sh/helm/v3/cmd/helm', programs: ['helm3'] }],
    ofKubernetes: false,
    modFile: 'helm3.mod',
    // What it takes for the cluster's version where there is no cluster.
    variables: ['k8sVersionMajor=1', 'k8sVersionMinor=37'].map((one) => `helm.sh/helm/v3/pkg/chartutil.${one}`),
    minutes: 1,
  },
  node: {
    folder: 'kubernetes',
    packages: [{ path: './node', programs: ['kubelet', 'kube-proxy'] }],
    ofKubernetes: true,
    minutes: 1,
  },
  // Plays NVIDIA's DRA driver. All that it imports is compiled for the programs above.
  'dra-driver': {
    folder: 'kubernetes',
    packages: [{ path: './dra-driver', programs: ['dra-driver'] }],
    ofKubernetes: false,
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
export const REAL_NODE: readonly ModuleName[] = ['node', 'dra-driver', 'containerd'];

/** The programs of a cluster: the absolute path of each by its name, such as `kube-apiserver`. */
export interface Binaries {
  (program: string): string;
  /** The version of Kubernetes, such as `1.37.2`. */
  readonly kubernetes: string;
}

/** Programs that may still be built. */
interface ToCome {
  /** Resolves when the programs of these modules are there. */
  ready(...modules: readonly ModuleName[]): Promise<void>;
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

const programsOf = (module: Module): readonly string[] => module.packages.flatMap(({ programs }) => programs);

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

/**
 * Packages whose speed is felt in a cluster: they are compiled with inlining. Of the rest most is
 * compiled and hardly ever run.
 */
const HOT = [
  'std',
  ...['api', 'apimachinery', 'apiserver', 'client-go/rest', 'client-go/tools', 'client-go/util', 'kube-scheduler'].map(
    (path) => `k8s.io/${path}/...`,
  ),
  'k8s.io/kubernetes/pkg/scheduler/...',
  'k8s.io/utils/...',
  'sigs.k8s.io/json/...',
  'sigs.k8s.io/structured-merge-diff/...',
  'go.etcd.io/...',
  'go.uber.org/...',
  'golang.org/x/...',
  'google.golang.org/...',
  ...['fxamacker', 'gogo', 'google/cel-go', 'json-iterator', 'modern-go', 'prometheus/client_golang'].map(
    (path) => `github.com/${path}/...`,
  ),
];

/**
 * Compiling is what a first run waits for. Without debugging tables, which the linker drops anyway,
 * and without inlining outside of what is hot it takes about half the time.
 */
const COMPILER_FLAGS = ['-gcflags=all=-dwarf=false -l', ...HOT.map((pattern) => `-gcflags=${pattern}=-dwarf=false`)];

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
  const modFile = module.modFile ?? (module.folder === 'kubernetes' ? (KUBERNETES.get(version) ?? '') : 'go.mod');
  const source = join(here, module.folder);
  const flags = [
    ...(modFile === 'go.mod' ? [] : [`-modfile=${modFile}`]),
    '-trimpath',
    ...COMPILER_FLAGS,
    `-ldflags=${[linkerFlags(version), ...(module.variables ?? []).map((one) => `-X ${one}`)].join(' ')}`,
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

/**
 * One of our own small Go programs (a fixture, a benchmark's reference), built once per content of
 * its folder. Returns its path.
 */
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

/**
 * The programs of the modules asked for, built where they are missing; what is built together is
 * compiled once, and each module is ready as soon as its own programs are there. Throws one
 * sentence where they cannot be had.
 */
export function beginBinaries(options: BinariesOptions): Binaries & ToCome {
  const kubernetes = options.kubernetes ?? DEFAULT_KUBERNETES;
  if (options.folder === undefined && !KUBERNETES.has(kubernetes))
    throw new TypeError(
      `Kubernetes ${kubernetes} cannot be built here: write one of ${[...KUBERNETES.keys()].join(', ')}, or set GPU_GATE_TEST_BIN to a folder that has its programs`,
    );
  const found = new Map<string, string>();
  const builds: Build[] = [];
  for (const name of options.modules) {
    const programs = programsOf(MODULES[name]);
    const missing = (folder: string): readonly string[] =>
      programs.filter((program) => !existsSync(join(folder, program)));
    let { folder } = options;
    if (folder === undefined) {
      const build = buildOf(name, kubernetes, options.cacheHome);
      ({ folder } = build);
      if (missing(folder).length > 0) builds.push(build);
    } else if (missing(folder).length > 0) {
      throw new Error(
        `GPU_GATE_TEST_BIN=${folder} lacks ${missing(folder).join(', ')}: put them there, or unset it and install Go to have them built`,
      );
    }
    for (const program of programs) found.set(program, join(folder, program));
  }
  const ready = compileAll(builds, options);
  const binaries = (program: string): string => {
    const path = found.get(program);
    if (path === undefined)
      throw new Error(`${program} belongs to no module asked for (${options.modules.join(', ')})`);
    return path;
  };
  return Object.assign(binaries, {
    kubernetes,
    ready: async (...modules: readonly ModuleName[]) =>
      void (await Promise.all(modules.map((name) => ready.get(name) ?? Promise.resolve()))),
  });
}

/** As beginBinaries; resolves when all of them are there. */
export async function ensureBinaries(options: BinariesOptions): Promise<Binaries> {
  const binaries = beginBinaries(options);
  await binaries.ready(...options.modules);
  return binaries;
}

const goEnvironment = (path: string | undefined): NodeJS.ProcessEnv => ({
  ...process.env,
  PATH: path ?? process.env['PATH'],
  CGO_ENABLED: '0',
  GOFLAGS: '',
  GOWORK: 'off',
  // A compiler process lives for a second: collecting its garbage takes a fifth of its time, and
  // frees what its end frees anyway.
  GOGC: 'off',
  GOMEMLIMIT: String(Math.min(3 * 2 ** 30, Math.round(totalmem() / 8))),
});

function requireGo(env: NodeJS.ProcessEnv, wanted: string): void {
  if (spawnSync('go', ['version'], { env }).status === 0) return;
  throw new Error(
    `cannot run the test cluster: ${wanted} not found and Go is not on PATH; install Go 1.26 or newer to build them, or set GPU_GATE_TEST_BIN to a folder that has them`,
  );
}

/** When the programs of each of these modules are there. */
function compileAll(builds: readonly Build[], options: BinariesOptions): ReadonlyMap<ModuleName, Promise<void>> {
  if (builds.length === 0) return new Map();
  const env = goEnvironment(options.path);
  requireGo(env, builds.flatMap(({ module }) => programsOf(module)).join(', '));
  const ready = new Map(builds.map(({ name }) => [name, Promise.withResolvers<void>()]));
  // A caller that awaits one of these promises gets its error. Promises that no caller awaits must
  // not become unhandled rejections.
  for (const { promise } of ready.values()) promise.catch(() => undefined);
  const together = Map.groupBy(builds, ({ source, flags }) => JSON.stringify([source, flags]));
  void (async () => {
    for (const group of together.values()) {
      try {
        await compile(group, env, options, (name) => ready.get(name)?.resolve());
      } catch (error) {
        for (const { name } of group) ready.get(name)?.reject(error);
      }
    }
  })();
  return new Map([...ready].map(([name, { promise }]) => [name, promise]));
}

/**
 * Builds modules of one source in one go. Go keeps what it has compiled: a build that was
 * interrupted goes on where it was.
 */
async function compile(
  builds: readonly Build[],
  env: NodeJS.ProcessEnv,
  options: BinariesOptions,
  ready: (name: ModuleName) => void,
): Promise<void> {
  const [first] = builds;
  if (first === undefined) return;
  const minutes = builds.reduce((sum, { module }) => sum + module.minutes, 0);
  options.say(
    `building ${builds.flatMap(({ module }) => programsOf(module)).join(', ')} (about ${minutes} min on 2 cores, once)`,
  );
  const started = Date.now();
  const seconds = (): number => Math.round((Date.now() - started) / 1000);
  let compiled = 0;
  const tick = setInterval(
    () => options.say(`  still building: ${seconds()} s, ${compiled} packages compiled`),
    20_000,
  );
  // Built beside, and renamed when a program is whole: an interrupted build leaves no half program
  // in the cache.
  const root = cacheFolder(options.cacheHome);
  const partial = join(root, `partial-${process.pid}-${first.name}`);
  removeLeft(root);
  mkdirSync(join(partial, 'work'), { recursive: true });
  const waiting = new Set(builds);
  const take = (): void => {
    for (const build of waiting) {
      const files = build.module.packages.map(({ path }) => basename(path));
      if (!files.every((file) => existsSync(join(partial, 'bin', file)))) continue;
      waiting.delete(build);
      mkdirSync(build.folder, { recursive: true });
      for (const { path, programs } of build.module.packages) {
        const file = basename(path);
        renameSync(join(partial, 'bin', file), join(build.folder, file));
        for (const program of programs.filter((name) => name !== file)) {
          rmSync(join(build.folder, program), { force: true });
          symlinkSync(file, join(build.folder, program));
        }
      }
      options.say(`built ${programsOf(build.module).join(', ')} after ${seconds()} s`);
      ready(build.name);
    }
  };
  const watch = setInterval(take, 500);
  try {
    const paths = builds.flatMap(({ module }) => module.packages.map(({ path }) => path));
    // Go renames a program from its working folder: on one file system it is there at once and
    // whole.
    const goEnv = { ...env, GOTMPDIR: join(partial, 'work') };
    await go(
      ['build', '-v', ...first.flags, '-o', `${join(partial, 'bin')}/`, ...paths],
      first.source,
      goEnv,
      () => (compiled += 1),
    );
    take();
    options.say(`${root} holds ${sizeOf(root) ?? 'nothing'} (npm run clean removes it)`);
  } finally {
    clearInterval(tick);
    clearInterval(watch);
    take(); // Also of a build that failed later.
    rmSync(partial, { recursive: true, force: true });
  }
}

/** Removes what builds left that were killed. */
function removeLeft(root: string): void {
  for (const name of existsSync(root) ? readdirSync(root) : []) {
    const pid = /^partial-(\d+)-/.exec(name)?.[1];
    if (pid === undefined) continue;
    try {
      process.kill(Number(pid), 0);
    } catch {
      rmSync(join(root, name), { recursive: true, force: true });
    }
  }
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
