// The programs that tests require from the system in addition to Node.js, npm and Go, and the
// Debian package that provides each.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

export interface Need {
  /** A name on PATH, or a path. */
  readonly program: string;
  readonly debian: string;
}

const need = (program: string, debian = program): Need => ({ program, debian });

/** What a real node runs with. */
export const REAL_NODE_NEEDS: readonly Need[] = [
  need('curl'),
  need('unshare', 'util-linux'),
  need('mount'),
  need('ip', 'iproute2'),
  need('iptables'),
  need('runc'),
  need('busybox', 'busybox-static'),
  need('/usr/lib/cni/bridge', 'containernetworking-plugins'),
];

/**
 * What some test or other takes: promtool reads the chart's alerts and our metrics, Prometheus
 * scrapes them and Alertmanager delivers alerts, buildah and strip build the image, Chromium opens
 * the status page.
 */
export const NEEDS: readonly Need[] = [
  ...REAL_NODE_NEEDS,
  need('promtool', 'prometheus'),
  need('prometheus'),
  need('prometheus-alertmanager'),
  need('buildah'),
  need('strip', 'binutils'),
  need('chromium'),
];

const FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

const isHere = ({ program }: Need): boolean =>
  program.startsWith('/') ? existsSync(program) : FOLDERS.some((folder) => existsSync(join(folder, program)));

/** Those that are not on this machine. */
export const missingOf = (needs: readonly Need[]): readonly Need[] => needs.filter((one) => !isHere(one));

const packagesOf = (needs: readonly Need[]): readonly string[] => [...new Set(needs.map(({ debian }) => debian))];

/** One command that brings them on Debian and Ubuntu. */
export const installCommand = (needs: readonly Need[], root: boolean): string =>
  `${root ? '' : 'sudo sh -c "'}apt-get update && apt-get install -y --no-install-recommends ${packagesOf(needs).join(' ')}${root ? '' : '"'}`;

/** Runs that command; returns why it could not, in one sentence. */
export function install(needs: readonly Need[]): string | undefined {
  const command = installCommand(needs, true);
  if (process.getuid?.() !== 0) return `not root: run ${installCommand(needs, false)}`;
  if (spawnSync('apt-get', ['--version']).error !== undefined)
    return `apt-get is not here: install ${needs.map(({ program }) => program).join(', ')} as this system does`;
  const { status } = spawnSync('sh', ['-c', command], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  return status === 0 ? undefined : `${command} ended with ${status}`;
}
