// The command line of `kubectl gpu-gate`: one table of commands and flags, from which usage,
// parsing and shell completion are made. Pure.
import { parseArgs } from 'node:util';
import { isLevel, LEVELS, type Level } from '../core/levels.ts';
import { kubeconfigsOf } from '../core/kubeconfigs.ts';

const OUTPUTS = ['text', 'wide', 'json', 'yaml', 'name'] as const;
export type Output = (typeof OUTPUTS)[number];

export interface Globals {
  /** `undefined`: the context's. */
  readonly namespace: string | undefined;
  readonly kubeconfigs: readonly string[];
  readonly context: string | undefined;
  readonly ownNamespace: string;
  readonly operandNamespace: string;
  readonly excludedNamespaces: readonly string[];
  readonly output: Output;
  readonly colour: 'auto' | 'never' | 'always';
}

export type Mark = 'hold' | 'release' | 'retry' | 'prove';

export type Command = Globals &
  (
    | { readonly kind: 'status'; readonly watch: boolean }
    | { readonly kind: 'nodes'; readonly watch: boolean }
    | { readonly kind: 'node'; readonly node: string }
    | {
        readonly kind: 'explain';
        readonly pod: string;
        readonly file: string | undefined;
        readonly whyNot: string | undefined;
      }
    | { readonly kind: 'wait'; readonly nodes: readonly string[]; readonly all: boolean; readonly timeoutMs: number }
    | {
        readonly kind: 'mark';
        readonly what: Mark;
        readonly nodes: readonly string[];
        readonly all: boolean;
        readonly reason: string;
        /** Of `prove`. */
        readonly level: Level;
        /** `undefined`: only where it concerns more than ten nodes. */
        readonly dryRun: boolean | undefined;
      }
    | {
        readonly kind: 'support';
        /** Empty: a name with the time. */
        readonly file: string;
      }
    | { readonly kind: 'ui'; readonly port: number }
    | { readonly kind: 'completion'; readonly shell: Shell }
  );

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

export type Parsed =
  | { readonly ok: true; readonly command: Command }
  | { readonly ok: true; readonly help: string }
  | { readonly ok: false; readonly because: string };

interface Flag {
  readonly name: string;
  readonly short?: string;
  /** Absent: the flag takes no value. */
  readonly value?: string;
  readonly help: string;
}

interface CommandEntry {
  readonly name: string;
  readonly args: string;
  readonly help: string;
  readonly flags: readonly Flag[];
  /** What the arguments name, for completion. */
  readonly completes?: 'nodes' | 'pods' | 'shells';
}

const WATCH: Flag = { name: 'watch', short: 'w', help: 'follow it live' };
const ALL: Flag = { name: 'all', help: 'every managed node' };
const MARKS: readonly Flag[] = [
  ALL,
  { name: 'yes', short: 'y', help: 'write, also where it concerns more than ten nodes' },
  { name: 'dry-run', help: 'show what would be written' },
];

export const COMMANDS: readonly CommandEntry[] = [
  {
    name: 'status',
    args: '',
    help: 'one screen: policies, nodes, pods that wait, what is wrong; exit code 0 only if healthy',
    flags: [WATCH],
  },
  { name: 'nodes', args: '', help: 'every GPU node: state, open or not, GPUs used, why', flags: [WATCH] },
  {
    name: 'node',
    args: 'NAME',
    help: 'one node: proof, components, what closed it, Events',
    flags: [],
    completes: 'nodes',
  },
  {
    name: 'explain',
    args: 'POD',
    help: 'every node and the verdict for one pod',
    flags: [
      { name: 'filename', short: 'f', value: 'FILE', help: 'a manifest in place of a pod that exists' },
      { name: 'why-not', value: 'NODE', help: 'only this node' },
    ],
    completes: 'pods',
  },
  {
    name: 'wait',
    args: 'NODE…',
    help: 'wait until the nodes are open (exit code 0) or one has failed (1); 124 if the time is over',
    flags: [ALL, { name: 'timeout', value: 'DURATION', help: 'such as 90s, 30m, 1h; default 30m' }],
    completes: 'nodes',
  },
  {
    name: 'hold',
    args: 'NODE…',
    help: 'no new GPU pods there; what runs goes on',
    flags: [...MARKS, { name: 'reason', value: 'TEXT', help: 'recorded on the node' }],
    completes: 'nodes',
  },
  { name: 'release', args: 'NODE…', help: 'end a hold', flags: MARKS, completes: 'nodes' },
  { name: 'retry', args: 'NODE…', help: 'try failed nodes now', flags: MARKS, completes: 'nodes' },
  {
    name: 'prove',
    args: 'NODE…',
    help: 'validate nodes again; they take no new GPU pods meanwhile',
    flags: [
      ...MARKS,
      {
        name: 'level',
        value: LEVELS.join('|'),
        help: 'driver: vectorAdd on all GPUs; full, the default: also by a GPU that Kubernetes allocates',
      },
    ],
    completes: 'nodes',
  },
  {
    name: 'support',
    args: '',
    help: 'a file for those who help: states, reasons, messages, no Secret',
    flags: [{ name: 'output', short: 'o', value: 'FILE', help: 'default gpu-gate-support-TIME.tgz' }],
  },
  {
    name: 'ui',
    args: '',
    help: 'a status page for your browser, on this machine alone, with your own rights',
    flags: [{ name: 'port', value: 'PORT', help: 'default: any free one' }],
  },
  {
    name: 'completion',
    args: 'bash|zsh|fish',
    help: 'a completion script for that shell',
    flags: [],
    completes: 'shells',
  },
];

export const GLOBAL_FLAGS: readonly Flag[] = [
  { name: 'output', short: 'o', value: OUTPUTS.join('|'), help: 'default text' },
  { name: 'namespace', short: 'n', value: 'NAMESPACE', help: "default: that of the kubeconfig's context" },
  { name: 'kubeconfig', value: 'PATH', help: 'default: $KUBECONFIG, one path or several, else ~/.kube/config' },
  { name: 'context', value: 'NAME', help: 'a context of the kubeconfig' },
  { name: 'own-namespace', value: 'NAME', help: "gpu-gate's namespace, default gpu-gate" },
  { name: 'operand-namespace', value: 'NAME', help: 'default gpu-gate-operands' },
  { name: 'excluded-namespaces', value: 'LIST', help: 'as given to gpu-gate, default kube-system' },
  { name: 'color', value: 'auto|never|always', help: 'default auto: only in a terminal' },
  { name: 'help', short: 'h', help: 'this text' },
];

const flagText = ({ name, short, value }: Flag): string =>
  `${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`;

const rows = (entries: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...entries.map(([left]) => left.length));
  return entries.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join('\n');
};

/** The usage text, of one command or of all. */
export function usage(command?: string): string {
  const entry = COMMANDS.find(({ name }) => name === command);
  // A command may have another flag of the same name.
  const others = GLOBAL_FLAGS.filter((flag) => entry?.flags.some(({ name }) => name === flag.name) !== true);
  const global = `Flags of every command:\n${rows(others.map((flag) => [flagText(flag), flag.help]))}\n`;
  if (entry === undefined)
    return `kubectl gpu-gate COMMAND [flags]\n\nCommands:\n${rows(COMMANDS.map(({ name, args, help }) => [`${name} ${args}`.trim(), help]))}\n\n${global}`;
  const own =
    entry.flags.length === 0 ? '' : `Flags:\n${rows(entry.flags.map((flag) => [flagText(flag), flag.help]))}\n\n`;
  return `kubectl gpu-gate ${entry.name} ${entry.args}\n\n${entry.help}\n\n${own}${global}`;
}

const DURATION = /^(\d+)(ms|s|m|h)$/;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** ms, or NaN if it is not a duration. */
const durationMs = (text: string): number => {
  const [, count, unit] = DURATION.exec(text) ?? [];
  return Number(count) * (UNIT_MS[unit ?? ''] ?? NaN);
};

const bad = (because: string): Parsed => ({ ok: false, because });

/**
 * The command, the usage text if that was asked for, or what is wrong and what to write instead.
 */
export function parseCommand(args: readonly string[], env: Readonly<Record<string, string | undefined>>): Parsed {
  const [name] = args;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h')
    return { ok: true, help: usage(args[1]) };
  const entry = COMMANDS.find((command) => command.name === name);
  if (entry === undefined)
    return bad(`there is no command ${JSON.stringify(name)}: write one of ${COMMANDS.map((c) => c.name).join(', ')}`);
  const flags = [...GLOBAL_FLAGS, ...entry.flags];
  let parsed;
  try {
    parsed = parseArgs({
      args: args.slice(1),
      allowPositionals: true,
      options: Object.fromEntries(
        flags.map((flag) => [
          flag.name,
          {
            type: flag.value === undefined ? ('boolean' as const) : ('string' as const),
            ...(flag.short === undefined ? {} : { short: flag.short }),
          },
        ]),
      ),
    });
  } catch (error) {
    return bad(`${error instanceof Error ? error.message : String(error)}; see kubectl gpu-gate ${name} --help`);
  }
  const { values, positionals } = parsed;
  const string = (flag: string): string | undefined => {
    const value = values[flag];
    return typeof value === 'string' ? value : undefined;
  };
  const is = (flag: string): boolean => values[flag] === true;
  if (is('help')) return { ok: true, help: usage(name) };

  // The one command whose output is a file.
  const isFile = name === 'support';
  const asked = { output: (isFile ? undefined : string('output')) ?? 'text', colour: string('color') ?? 'auto' };
  const output = OUTPUTS.find((one) => one === asked.output);
  if (output === undefined) return bad(`--output ${asked.output} is not known: write one of ${OUTPUTS.join(', ')}`);
  const colour = (['auto', 'never', 'always'] as const).find((one) => one === asked.colour);
  if (colour === undefined) return bad(`--color ${asked.colour} is not known: write auto, never or always`);
  const kubeconfig = string('kubeconfig');
  const globals: Globals = {
    namespace: string('namespace'),
    kubeconfigs: kubeconfig === undefined ? kubeconfigsOf(env) : [kubeconfig],
    context: string('context'),
    ownNamespace: string('own-namespace') ?? 'gpu-gate',
    operandNamespace: string('operand-namespace') ?? 'gpu-gate-operands',
    excludedNamespaces: (string('excluded-namespaces') ?? 'kube-system')
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== ''),
    output,
    colour: env['NO_COLOR'] !== undefined && env['NO_COLOR'] !== '' && colour === 'auto' ? 'never' : colour,
  };
  const help = `see kubectl gpu-gate ${name} --help`;
  const [first, ...more] = positionals;
  switch (name) {
    case 'status':
    case 'nodes':
      if (first !== undefined) return bad(`${name} takes no argument; ${help}`);
      return { ok: true, command: { ...globals, kind: name, watch: is('watch') } };
    case 'node':
      if (first === undefined || more.length > 0) return bad(`name one node: kubectl gpu-gate node NAME`);
      return { ok: true, command: { ...globals, kind: 'node', node: first } };
    case 'explain': {
      const file = string('filename');
      if ((first === undefined) === (file === undefined) || more.length > 0)
        return bad('name one pod, or a manifest: kubectl gpu-gate explain POD, or explain -f FILE');
      return {
        ok: true,
        command: { ...globals, kind: 'explain', pod: first ?? '', file, whyNot: string('why-not') },
      };
    }
    case 'wait': {
      const timeout = string('timeout') ?? '30m';
      const timeoutMs = durationMs(timeout);
      if (Number.isNaN(timeoutMs))
        return bad(`--timeout ${timeout} is not a duration: write one such as 90s, 30m or 1h`);
      if ((positionals.length === 0) !== is('all')) return bad(`name nodes, or give --all; ${help}`);
      return { ok: true, command: { ...globals, kind: 'wait', nodes: positionals, all: is('all'), timeoutMs } };
    }
    case 'support':
      if (first !== undefined) return bad(`support takes no argument; ${help}`);
      return { ok: true, command: { ...globals, kind: 'support', file: string('output') ?? '' } };
    case 'ui': {
      const port = Number(/^\d{1,5}$/.exec(string('port') ?? '0')?.[0] ?? 'none');
      if (first !== undefined) return bad(`ui takes no argument; ${help}`);
      if (!(port <= 65_535)) return bad(`--port ${string('port') ?? ''} is not a port: write a number from 0 to 65535`);
      return { ok: true, command: { ...globals, kind: 'ui', port } };
    }
    case 'completion': {
      const shell = SHELLS.find((one) => one === first);
      if (shell === undefined) return bad('name a shell: kubectl gpu-gate completion bash, zsh or fish');
      return { ok: true, command: { ...globals, kind: 'completion', shell } };
    }
    default: {
      if ((positionals.length === 0) !== is('all')) return bad(`name nodes, or give --all; ${help}`);
      const level = string('level') ?? 'full';
      if (!isLevel(level)) return bad(`--level ${level} is not known: write ${LEVELS.join(' or ')}`);
      if (is('yes') && is('dry-run')) return bad('--yes and --dry-run contradict each other: give one');
      return {
        ok: true,
        command: {
          ...globals,
          kind: 'mark',
          what: name as Mark,
          nodes: positionals,
          all: is('all'),
          level,
          reason: string('reason') ?? 'held with kubectl gpu-gate hold',
          dryRun: is('dry-run') ? true : is('yes') ? false : undefined,
        },
      };
    }
  }
}
