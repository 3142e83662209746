// A machine of its own for one command: namespaces for processes, mounts, network and cgroups, so
// that a kubelet and containerd there use the very paths that they use in production and nothing of
// it is seen, or left, on this machine. Root on Linux only.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { installCommand, missingOf, REAL_NODE_NEEDS } from '../needs.ts';

/** The folder of the machine, named to what runs in it. */
export const MACHINE = 'GPU_GATE_MACHINE';
/** On the node: names the kernel module that cannot be loaded there. */
export const MISSING_MODULE = '/etc/gpu-gate-missing-module';
const CGROUPS = '/sys/fs/cgroup';
const CGROUP2_MAGIC = 0x63_67_72_70;

/** What a kubelet sets for the whole kernel: no namespace keeps these apart. */
const KERNEL_WIDE = [
  '/proc/sys/vm/overcommit_memory',
  '/proc/sys/vm/panic_on_oom',
  '/proc/sys/kernel/panic',
  '/proc/sys/kernel/panic_on_oops',
  '/proc/sys/kernel/keys/root_maxkeys',
  '/proc/sys/kernel/keys/root_maxbytes',
] as const;

const NAMESPACES = ['--net', '--mount', '--pid', '--fork'] as const;

/** Why no real node can run here, in one sentence; undefined where it can. */
export function whyNoMachine(): string | undefined {
  if (process.platform !== 'linux') return `a real node needs Linux, this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'a real node needs root: run it with sudo';
  const missing = missingOf(REAL_NODE_NEEDS);
  if (missing.length > 0)
    return `a real node needs ${missing.map(({ program }) => program).join(', ')}: ${installCommand(missing, true)}`;
  if (!existsSync(CGROUPS)) return `a real node needs cgroups: nothing is at ${CGROUPS}`;
  if (isCgroup2()) {
    const passedOn = readFileSync(join(CGROUPS, 'cgroup.subtree_control'), 'utf8').trim().split(' ');
    const without = ['cpu', 'memory', 'pids'].filter((controller) => !passedOn.includes(controller));
    if (without.length > 0)
      return `a real node needs the cgroup controllers ${without.join(', ')}, which ${CGROUPS}/cgroup.subtree_control does not pass on here`;
  }
  // An overlay cannot lie on every file system: a temporary folder in a container's own root is on
  // an overlay itself.
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-probe-'));
  try {
    const probe = `mkdir "$1/upper" "$1/work" && mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay "$1"`;
    const tried = spawnSync('unshare', [...NAMESPACES, '--cgroup', 'sh', '-c', probe, 'probe', dir]);
    return tried.status === 0
      ? undefined
      : `a real node needs namespaces, and overlay mounts on ${tmpdir()} (TMPDIR), which this machine refuses: ${tried.stderr.toString().trim()}`;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const isCgroup2 = (): boolean => statfsSync(CGROUPS).type === CGROUP2_MAGIC;

/** The cgroup hierarchies of this machine: one with cgroup v2, one per controller with v1. */
const hierarchies = (): readonly string[] => {
  if (isCgroup2()) return [CGROUPS];
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, path, type]) => (type === 'cgroup' || type === 'cgroup2') && path?.startsWith(CGROUPS) === true)
    .map(([, path]) => path ?? '');
};

/**
 * Child of the machine's cgroup that its own processes are in, with cgroup v2: what passes
 * controllers on may hold no process itself.
 */
const INIT = 'init';

/**
 * A cgroup in every hierarchy, for the machine's processes; a v1 cpuset starts empty and takes
 * nobody before it is filled.
 */
function makeCgroups(name: string): readonly string[] {
  return hierarchies().map((root) => {
    const path = join(root, name);
    mkdirSync(isCgroup2() ? join(path, INIT) : path, { recursive: true });
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      if (existsSync(join(path, file)) && root !== CGROUPS)
        writeFileSync(join(path, file), readFileSync(join(root, file)));
    }
    return path;
  });
}

/** How long the end of a machine is waited for; on a busy disk gigabytes go slowly. */
const REMOVAL_MS = 180_000;

const removeTree = 'find "$1" -depth -type d -exec rmdir {} + 2>/dev/null';

/**
 * Runs a command in a machine of its own to its end and returns its exit code. Whatever ends it
 * (the command itself, Ctrl-C, SIGKILL of this process), its processes, mounts, links, cgroups and
 * files go. `prepare` names a command to run first, outside, with the network and with the
 * machine's folder to write to; it ends with the machine too.
 */
export async function runInMachine(
  command: string,
  args: readonly string[],
  prepare?: (dir: string) => readonly string[],
): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-machine-'));
  mkdirSync(join(dir, 'tmp'));
  const cgroups = makeCgroups(dir.replaceAll('/', '-').slice(1));
  const pidFile = join(dir, 'pid');
  // Reads until this process is gone, then ends what it started and takes away what is left.
  const watchdog = spawn(
    'sh',
    [
      '-c',
      `trap "" INT TERM HUP; cat >/dev/null; [ -f "${pidFile}" ] && kill -9 -$(cat "${pidFile}") 2>/dev/null
      n=0; while [ $n -lt 60 ]; do n=$((n+1))
        left=""; for c in ${cgroups.join(' ')}; do set -- "$c"; [ -d "$c" ] && { ${removeTree}; [ -d "$c" ] && left=1; }; done
        rm -rf "${dir}" 2>/dev/null || left=1
        [ -z "$left" ] && break; sleep 0.3
      done`,
    ],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
  );
  let running: ChildProcess | undefined;
  let interrupted = false;
  const end = (): void => {
    interrupted = true;
    if (running?.pid !== undefined) killGroup(running.pid);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  /** A process group of its own, known to the watchdog, in the machine's folder. */
  const run = (script: string, argv: readonly string[]): Promise<number> => {
    const child = spawn('sh', ['-c', `echo $$ > ${pidFile} && ${script}`, 'machine', ...argv], {
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, [MACHINE]: dir, TMPDIR: join(dir, 'tmp') },
    });
    running = child;
    return new Promise((resolve) => {
      child.on('error', () => resolve(127));
      child.on('close', (exit) => resolve(exit ?? 130));
    });
  };
  const moveTo = (below: string): string =>
    cgroups.map((path) => `echo $$ > ${join(path, below)}/cgroup.procs`).join(' && ');
  const shell = (script: string, ...argv: string[]): string[] => ['sh', '-c', script, 'machine', ...argv];
  // The machine's first process reaps what loses its parent: shims do, by design.
  const first = shell('"$@" & wait $!', command, ...args);
  const unshare = `exec unshare ${NAMESPACES.join(' ')} --kill-child=KILL --mount-proc -- "$@"`;
  const inside = shell(isCgroup2() ? `${moveTo(INIT)} && ${unshare}` : unshare, ...first);
  // The cgroup namespace before all: its root is where the process is at that moment.
  const enter = `${moveTo('.')} && exec unshare --cgroup -- "$@"`;
  let code = prepare === undefined ? 0 : await run('exec "$@"', prepare(dir));
  if (code === 0 && !interrupted) code = await run(enter, inside);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, end);
  const ended = new Promise((resolve) => watchdog.once('exit', resolve));
  rmSync(pidFile, { force: true });
  watchdog.stdin?.end();
  await Promise.race([ended, sleep(REMOVAL_MS, undefined, { ref: false })]);
  return interrupted ? 130 : code;
}

function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

const must = (command: string, ...args: string[]): void => {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr.trim()}`);
};

/** A modprobe that finds every module, but for the one named in a file. */
const MODPROBE = `#!/bin/sh
missing=$(cat ${MISSING_MODULE} 2>/dev/null)
[ "$1" != "$missing" ] && exit 0
echo "modprobe: FATAL: Module $1 not found in directory /lib/modules/$(uname -r)" >&2
exit 1
`;

/**
 * Inside, before anything else: private mounts over the paths that a node writes to, cgroups of its
 * own, an address on `lo`.
 */
export function furnish(dir: string, address: string): void {
  must('mount', '--make-rprivate', '/');
  must('mount', '--make-rshared', '/');
  const writable = join(dir, 'disk');
  for (const path of ['/etc', '/var/lib', '/var/log', '/usr/local', '/opt']) {
    if (!existsSync(path)) continue;
    const upper = join(writable, path.slice(1).replaceAll('/', '-'));
    mkdirSync(join(upper, 'upper'), { recursive: true });
    mkdirSync(join(upper, 'work'), { recursive: true });
    must(
      'mount',
      '-t',
      'overlay',
      '-o',
      `lowerdir=${path},upperdir=${upper}/upper,workdir=${upper}/work`,
      'overlay',
      path,
    );
  }
  // Container images and pods' files on the disk itself: an overlay cannot lie on an overlay.
  for (const path of ['/var/lib/containerd', '/var/lib/kubelet']) {
    const source = join(writable, path.slice(1).replaceAll('/', '-'));
    mkdirSync(source, { recursive: true });
    mkdirSync(path, { recursive: true });
    must('mount', '--bind', source, path);
  }
  freshRun();
  for (const path of KERNEL_WIDE) {
    if (!existsSync(path)) continue;
    const own = join(writable, path.slice(1).replaceAll('/', '-'));
    writeFileSync(own, readFileSync(path));
    must('mount', '--bind', own, path);
  }
  // This machine's kernel has no modules to load; what fails to load can be said by the test.
  mkdirSync('/usr/local/sbin', { recursive: true });
  writeFileSync('/usr/local/sbin/modprobe', MODPROBE, { mode: 0o755 });
  ownCgroups();
  must('ip', 'link', 'set', 'lo', 'up');
  must('ip', 'addr', 'add', `${address}/32`, 'dev', 'lo');
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
}

/** The cgroup file systems as this machine's own root, not the whole of the host's. */
function ownCgroups(): void {
  if (isCgroup2()) {
    must('umount', CGROUPS);
    must('mount', '-t', 'cgroup2', 'cgroup2', CGROUPS);
    const controllers = readFileSync(join(CGROUPS, 'cgroup.controllers'), 'utf8').trim().split(' ');
    writeFileSync(join(CGROUPS, 'cgroup.subtree_control'), controllers.map((name) => `+${name}`).join(' '));
    return;
  }
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, path = '', type, options = ''] = line.split(' ');
    if (type !== 'cgroup' || !path.startsWith(CGROUPS)) continue;
    const controller = options.split(',').find((option) => path.endsWith(`/${option}`)) ?? 'none,name=systemd';
    must('umount', path);
    must('mount', '-t', 'cgroup', '-o', controller, 'cgroup', path);
  }
}

/** /run as a boot finds it: empty, and shared, as systemd makes it. */
export function freshRun(): void {
  must('mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/run');
  mkdirSync('/run/lock', { recursive: true });
}

/**
 * The default folder in which the kubelet and kube-controller-manager look for volume plugins. They
 * create the folder if it is missing.
 */
const VOLUME_PLUGINS = '/usr/libexec/kubernetes';

/** What this machine shows of a machine of ours: to be the same before and after. */
export function traces(): readonly string[] {
  const lines = (command: string, ...args: string[]): string[] =>
    spawnSync(command, args, { encoding: 'utf8' })
      .stdout.split('\n')
      .filter((line) => line !== '');
  return [
    ...readFileSync('/proc/self/mounts', 'utf8').split('\n'),
    ...lines('ip', '-o', 'link').map((line) => line.split(':')[1]?.trim() ?? ''),
    ...commandLines().filter((line) => /gpu-gate-machine-|\/run\/containerd\//.test(line)),
    ...lines('find', CGROUPS, '-type', 'd', '-name', '*gpu-gate-machine*'),
    ...KERNEL_WIDE.filter((path) => existsSync(path)).map((path) => `${path} ${readFileSync(path, 'utf8').trim()}`),
    ...lines('find', VOLUME_PLUGINS),
    ...readdirSync(tmpdir())
      // Of a real node only: other tests may be running beside.
      .filter((name) => /^gpu-gate-(machine|probe)-/.test(name))
      .map((name) => join(tmpdir(), name)),
  ];
}

/** Every process of this machine, by its words. */
export const commandLines = (): readonly string[] =>
  readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      } catch {
        return '';
      }
    });
