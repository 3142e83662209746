// A machine of its own for one command: namespaces for processes, mounts, network and cgroups, so that a kubelet and containerd
// there use the very paths that they use in production and nothing of it is seen, or left, on this machine. Root on Linux only.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** The folder of the machine, named to what runs in it. */
export const MACHINE = 'GPU_GATE_MACHINE';
/** On the node: names the kernel module that cannot be loaded there. */
export const MISSING_MODULE = '/etc/gpu-gate-missing-module';
const CGROUPS = '/sys/fs/cgroup';
const CGROUP2_MAGIC = 0x63_67_72_70;

const NEEDED: readonly (readonly [program: string, debian: string])[] = [
  ['unshare', 'util-linux'],
  ['mount', 'mount'],
  ['ip', 'iproute2'],
  ['iptables', 'iptables'],
  ['runc', 'runc'],
  ['busybox', 'busybox-static'],
  ['/usr/lib/cni/bridge', 'containernetworking-plugins'],
];

const present = (program: string): boolean =>
  program.startsWith('/')
    ? existsSync(program)
    : ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin', '/usr/local/bin'].some((folder) =>
        existsSync(join(folder, program)),
      );

/** Why no real node can run here, in one sentence; undefined where it can. */
export function whyNoMachine(): string | undefined {
  if (process.platform !== 'linux') return `a real node needs Linux, this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'a real node needs root: run it with sudo';
  const missing = NEEDED.filter(([program]) => !present(program));
  if (missing.length > 0) {
    return `a real node needs ${missing.map(([program]) => program).join(', ')}: apt-get install --no-install-recommends ${missing.map(([, debian]) => debian).join(' ')}`;
  }
  const tried = spawnSync('unshare', [
    '--net',
    '--mount',
    '--pid',
    '--fork',
    '--cgroup',
    'mount',
    '-t',
    'tmpfs',
    'tmpfs',
    '/mnt',
  ]);
  if (tried.status !== 0)
    return `a real node needs namespaces and mounts, which this machine refuses: ${tried.stderr.toString().trim()}`;
  return undefined;
}

/** The cgroup hierarchies of this machine: one with cgroup v2, one per controller with v1. */
const hierarchies = (): readonly string[] => {
  if (statfsSync(CGROUPS).type === CGROUP2_MAGIC) return [CGROUPS];
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, path, type]) => (type === 'cgroup' || type === 'cgroup2') && path?.startsWith(CGROUPS) === true)
    .map(([, path]) => path ?? '');
};

/** A cgroup in every hierarchy, for the machine's processes; a v1 cpuset starts empty and takes nobody before it is filled. */
function makeCgroups(name: string): readonly string[] {
  return hierarchies().map((root) => {
    const path = join(root, name);
    mkdirSync(path);
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      if (existsSync(join(path, file)) && root !== CGROUPS)
        writeFileSync(join(path, file), readFileSync(join(root, file)));
    }
    return path;
  });
}

const removeTree = 'find "$1" -depth -type d -exec rmdir {} + 2>/dev/null';

/**
 * Runs a command in a machine of its own to its end and returns its exit code. Whatever ends it (the command itself, Ctrl-C,
 * SIGKILL of this process), its processes, mounts, links, cgroups and files go.
 */
export async function runInMachine(command: string, args: readonly string[]): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-machine-'));
  mkdirSync(join(dir, 'tmp'));
  const cgroups = makeCgroups(dir.replaceAll('/', '-').slice(1));
  const pidFile = join(dir, 'pid');
  // Reads until this process is gone, then ends what it started and takes away what is left.
  const watchdog = spawn(
    'sh',
    [
      '-c',
      `trap "" INT TERM HUP; cat >/dev/null; [ -f "${pidFile}" ] && kill -9 $(cat "${pidFile}") 2>/dev/null
      for i in 1 2 3 4 5 6 7 8 9 10; do
        left=""; for c in ${cgroups.join(' ')}; do set -- "$c"; [ -d "$c" ] && { ${removeTree}; [ -d "$c" ] && left=1; }; done
        [ -z "$left" ] && break; sleep 0.3
      done
      rm -rf "${dir}"`,
    ],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
  );
  // The machine's first process reaps what loses its parent: shims do, by design.
  const enter = `${cgroups.map((path) => `echo $$ > ${path}/cgroup.procs`).join(' && ')} && echo $$ > ${pidFile} && exec unshare --net --mount --pid --fork --kill-child=KILL --mount-proc --cgroup -- sh -c '"$@" & wait $!' machine "$@"`;
  const child = spawn('sh', ['-c', enter, 'machine', command, ...args], {
    detached: true,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, [MACHINE]: dir, TMPDIR: join(dir, 'tmp') },
  });
  const end = (): void => void child.kill('SIGKILL');
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  const code = await new Promise<number>((resolve) => {
    child.on('error', () => resolve(127));
    child.on('close', (exit) => resolve(exit ?? 130));
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, end);
  const ended = new Promise((resolve) => watchdog.once('exit', resolve));
  rmSync(pidFile, { force: true });
  watchdog.stdin?.end();
  await Promise.race([ended, sleep(20_000, undefined, { ref: false })]);
  return code;
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

/** Inside, before anything else: private mounts over the paths that a node writes to, cgroups of its own, an address on `lo`. */
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
  if (statfsSync(CGROUPS).type === CGROUP2_MAGIC) {
    must('umount', CGROUPS);
    must('mount', '-t', 'cgroup2', 'cgroup2', CGROUPS);
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

/** What this machine shows of a machine of ours: to be the same before and after. */
export function traces(): readonly string[] {
  const { stdout: links } = spawnSync('ip', ['-o', 'link'], { encoding: 'utf8' });
  const { stdout: processes } = spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
  const { stdout: cgroups } = spawnSync('find', [CGROUPS, '-type', 'd', '-name', '*gpu-gate-machine*'], {
    encoding: 'utf8',
  });
  const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');
  return [
    ...lines(readFileSync('/proc/self/mounts', 'utf8')),
    ...lines(links).map((line) => line.split(':')[1]?.trim() ?? ''),
    ...lines(processes).filter((line) => /gpu-gate-machine-|\/run\/containerd\//.test(line)),
    ...lines(cgroups),
  ];
}
