// Reports → text for a terminal or a pipe: tables as wide as the terminal, colour only where there
// is one. Pure. Everything foreign goes through `printable`.
import { printable } from '../core/printable.ts';
import type { NodeStory } from './story.ts';
import type { Progress } from './progress.ts';
import type { Step } from './usual.ts';
import { stateOrder, type Fleet, type NodeReport, type PolicyReport, type WaitingPod } from './fleet.ts';

export interface Terminal {
  /** Columns; `undefined` in a pipe, where nothing is cut. */
  readonly width: number | undefined;
  readonly colour: boolean;
  /** ms since the epoch, for ages. */
  readonly now: number;
}

type Tone = 'good' | 'bad' | 'busy' | 'quiet' | 'plain';
const CODES: Readonly<Record<Tone, string>> = { good: '32', bad: '31', busy: '33', quiet: '2', plain: '' };

const paint = (text: string, tone: Tone, terminal: Terminal): string =>
  terminal.colour && tone !== 'plain' ? `\u001B[${CODES[tone]}m${text}\u001B[0m` : text;

interface Cell {
  readonly text: string;
  readonly tone?: Tone;
}
const cell = (text: string, tone: Tone = 'plain'): Cell => ({ text: printable(text), tone });

/** `3m`, `5h`, `12d` as kubectl writes ages; `-` if there is no time. */
export const age = (at: string, now: number): string => duration(Math.max(0, now - Date.parse(at)));

/** The same of a time in ms. */
export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (Number.isNaN(seconds)) return '-';
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** So many columns make a last cell readable; with fewer it gets a line of its own. */
const READABLE = 32;
const INDENT = '    ';

/** The words of a text on lines of that width; a word that is wider is cut into pieces. */
export function wrapped(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    let rest = line === '' ? word : `${line} ${word}`;
    if (rest.length > width && line !== '') {
      lines.push(line);
      rest = word;
    }
    for (; rest.length > width; rest = rest.slice(width)) lines.push(rest.slice(0, width));
    line = rest;
  }
  return [...lines, line];
}

const cut = (text: string, width: number): string => (text.length > width ? `${text.slice(0, width - 1)}…` : text);

/**
 * Columns as wide as their widest cell. In a narrow terminal the last cell stands on a line of its
 * own; what is wider still is cut there, or wrapped.
 */
function table(
  header: readonly string[],
  rows: readonly (readonly Cell[])[],
  terminal: Terminal,
  long: 'cut' | 'wrap' = 'cut',
): string[] {
  if (rows.length === 0) return [];
  const all = [header.map((text) => cell(text)), ...rows];
  const widths = header.slice(0, -1).map((_, i) => Math.max(...all.map((row) => row[i]?.text.length ?? 0)));
  const column = widths.reduce((sum, width) => sum + width + 2, 0);
  const { width } = terminal;
  const longest = Math.max(...all.map((row) => row.at(-1)?.text.length ?? 0));
  const hasOwnLine = width !== undefined && column + longest > width && width - column < READABLE;
  const indent = hasOwnLine ? INDENT : ' '.repeat(column);
  const room = width === undefined ? Infinity : Math.max(8, width - indent.length);
  return all.flatMap((row, i) => {
    const cells = row
      .slice(0, -1)
      .map(
        (one, at) =>
          paint(one.text, one.tone ?? 'plain', terminal) + ' '.repeat((widths[at] ?? 0) - one.text.length + 2),
      );
    // Where even these are too wide, the name stands above them.
    const isStacked = width !== undefined && column - 2 > width;
    const left = isStacked ? `${(cells[0] ?? '').trimEnd()}\n${INDENT}${cells.slice(1).join('')}` : cells.join('');
    const last = row.at(-1) ?? cell('');
    const lines = long === 'wrap' ? wrapped(last.text, room) : [cut(last.text, room)];
    const painted = lines.map((line) => paint(line, last.tone ?? 'plain', terminal));
    const [first = '', ...more] = painted;
    const below = more.map((line) => indent + line);
    if (hasOwnLine && i === 0) return [left.trimEnd()];
    if (!hasOwnLine) return [(left + first).trimEnd(), ...below];
    return [left.trimEnd(), ...(last.text === '' ? [] : [indent + first, ...below])];
  });
}

const toneOf = (node: NodeReport): Tone =>
  node.open ? 'good' : node.state === 'failed' ? 'bad' : node.state === 'unmanaged' ? 'quiet' : 'busy';

const gpuText = ({ gpus }: NodeReport): string =>
  gpus.length === 0
    ? '-'
    : gpus
        .map(
          ({ resource, offered, used }) =>
            `${used}/${offered}${resource === 'nvidia.com/gpu' ? '' : ` ${resource.replace('nvidia.com/', '')}`}`,
        )
        .join(' ');

/** Since when a node is where it is, and how long that usually takes. */
export const sinceText = (node: NodeReport, now: number): string => {
  const since = age(node.since, now);
  if (node.open || node.stage === undefined || node.state !== node.stage || node.since === '') return since;
  return `${since}, ${node.usualMs === undefined ? 'no usual time yet' : `usually ${duration(node.usualMs)}`}`;
};

/** Level and age of a node's proof. */
export const proofText = ({ proof }: NodeReport, now: number): string =>
  proof === undefined ? '-' : `${proof.level} ${age(proof.at, now)}`;

const nodeRow = (node: NodeReport, terminal: Terminal, wide: boolean): Cell[] => [
  cell(node.name),
  cell(node.state, toneOf(node)),
  cell(node.open ? 'yes' : 'no', node.open ? 'good' : 'plain'),
  cell(gpuText(node)),
  cell(sinceText(node, terminal.now)),
  cell(proofText(node, terminal.now)),
  ...(wide
    ? [
        cell(node.policy === '' ? '-' : node.policy),
        cell(node.proof?.driver === undefined || node.proof.driver === '' ? '-' : node.proof.driver),
        cell(node.next === '' ? '-' : node.next),
      ]
    : []),
  cell(node.open ? '' : node.state === 'unmanaged' ? node.reason : node.message === '' ? node.reason : node.message),
];

/** The table of nodes. */
export function nodesText(nodes: readonly NodeReport[], terminal: Terminal, wide = false): string {
  if (nodes.length === 0) return 'no managed node, and no node that offers GPUs\n';
  const header = [
    'NODE',
    'STATE',
    'OPEN',
    'GPUS',
    'SINCE',
    'PROOF',
    ...(wide ? ['POLICY', 'DRIVER', 'NEXT'] : []),
    'WHAT',
  ];
  return `${table(
    header,
    nodes.map((node) => nodeRow(node, terminal, wide)),
    terminal,
  ).join('\n')}\n`;
}

const policyRow = (policy: PolicyReport): Cell[] => [
  cell(policy.name),
  cell(policy.enforcing ? 'yes' : 'no', policy.enforcing ? 'good' : 'busy'),
  cell(`${policy.validated}/${policy.nodes}`),
  cell(String(policy.failed), policy.failed > 0 ? 'bad' : 'plain'),
  cell(policy.enforcing ? '' : policy.message),
];

/** Pods that wait for the same reason, in one row. */
const waitingRows = (pods: readonly WaitingPod[], terminal: Terminal): Cell[][] =>
  [...Map.groupBy(pods, ({ reason }) => reason).values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    const others = group.length === 1 ? '' : ` and ${group.length - 1} more`;
    return [
      [cell(`${first.namespace}/${first.name}${others}`), cell(age(first.since, terminal.now)), cell(first.reason)],
    ];
  });

/** So many rows of a kind are a screenful; what is left out is counted. */
const MOST = 15;

function section(title: string, lines: readonly string[], left: number, command: string): string[] {
  if (lines.length === 0) return [];
  return ['', title, ...lines, ...(left > 0 ? [`… and ${left} more: ${command}`] : [])];
}

/** Many nodes on their way by stage and GPUPolicy, with the one that has been there longest. */
function stagesOf(nodes: readonly NodeReport[], { now }: Terminal): [readonly string[], readonly Cell[][]] {
  const walking = Map.groupBy(
    nodes.filter(({ state, stage }) => state === stage),
    ({ policy, state }) => `${state} ${policy}`,
  );
  return [
    ['STAGE', 'POLICY', 'NODES', 'LONGEST', 'USUALLY'],
    [...walking.values()].flatMap((group) => {
      const [first] = group;
      if (first === undefined) return [];
      const since = group.map((node) => node.since).toSorted()[0] ?? '';
      const usual = first.usualMs === undefined ? 'no usual time yet' : duration(first.usualMs);
      return [
        [
          cell(first.state, 'busy'),
          cell(first.policy === '' ? '-' : first.policy),
          cell(String(group.length)),
          cell(age(since, now)),
          cell(usual),
        ],
      ];
    }),
  ];
}

/** One screen: policies, nodes by state, those that are not open, pods that wait, what is wrong. */
export function statusText(fleet: Fleet, terminal: Terminal): string {
  const { policies, nodes, byState, waiting } = fleet;
  const onTheirWay = nodes
    .filter((node) => !node.open && node.state !== 'unmanaged')
    .toSorted(
      (a, b) =>
        Number(b.state === 'failed') - Number(a.state === 'failed') || stateOrder(b.state) - stateOrder(a.state),
    );
  const states = Object.entries(byState)
    .toSorted(([a], [b]) => stateOrder(b as NodeReport['state']) - stateOrder(a as NodeReport['state']))
    .map(([state, count]) => `${count} ${state}`);
  const queue = waitingRows(waiting, terminal);
  const openCount = nodes.filter((node) => node.open).length;
  const verdict =
    fleet.problems.length === 0
      ? paint('healthy', 'good', terminal)
      : paint(`${fleet.problems.length} ${fleet.problems.length === 1 ? 'problem' : 'problems'}`, 'bad', terminal);
  const first =
    policies.length === 0
      ? fleet.unread.some(({ what }) => what === 'GPUPolicies')
        ? 'GPUPolicies not read'
        : 'no GPUPolicy: nothing is gated'
      : `${openCount} of ${nodes.length} GPU nodes open`;
  return [
    `gpu-gate: ${verdict}, ${first}, ${waiting.length} ${waiting.length === 1 ? 'pod waits' : 'pods wait'}`,
    ...fleet.problems.map((problem) => `  ${paint('!', 'bad', terminal)} ${printable(problem)}`),
    ...section(
      'POLICIES',
      table(['POLICY', 'ENFORCES', 'VALIDATED', 'FAILED', 'WHY NOT'], policies.map(policyRow), terminal, 'wrap'),
      0,
      '',
    ),
    ...section(
      'ROLL-OUTS',
      table(
        ['POLICY', 'HOW FAR'],
        policies
          .filter(({ rollOut }) => rollOut !== '')
          .map(({ name, rollOut }) => [cell(name), cell(rollOut, 'busy')]),
        terminal,
        'wrap',
      ),
      0,
      '',
    ),
    ...(nodes.length === 0 ? [] : ['', `NODES  ${states.join(', ')}`]),
    ...(onTheirWay.length > MOST
      ? section('ON THEIR WAY', table(...stagesOf(onTheirWay, terminal), terminal), 0, '')
      : []),
    ...section(
      'NODES THAT ARE NOT OPEN',
      table(
        ['NODE', 'STATE', 'OPEN', 'GPUS', 'SINCE', 'PROOF', 'WHAT'],
        onTheirWay.slice(0, MOST).map((node) => nodeRow(node, terminal, false)),
        terminal,
      ),
      onTheirWay.length - MOST,
      'kubectl gpu-gate nodes',
    ),
    ...section(
      'GPU PODS THAT WAIT',
      table(['POD', 'SINCE', 'THE SCHEDULER SAYS'], queue.slice(0, MOST), terminal, 'wrap'),
      queue.length - MOST,
      'kubectl gpu-gate status -o json',
    ),
    ...(waiting[0] === undefined ? [] : [`every verdict for one pod: ${printable(waiting[0].next)}`]),
    ...(fleet.deployments.length === 0 && fleet.certificatesUntil === undefined
      ? []
      : [
          '',
          ...fleet.deployments.map(
            ({ name, image, ready, wanted }) => `${printable(name)}  ${ready}/${wanted} ready  ${printable(image)}`,
          ),
          ...(fleet.certificatesUntil === undefined
            ? []
            : [`webhook CA valid until ${printable(fleet.certificatesUntil)}`]),
        ]),
    ...fleet.unread.map(({ what, because }) => `not shown: ${what} (${printable(because)})`),
    '',
  ].join('\n');
}

/** A line of `wait`. */
export const progressText = ({ node, line, outcome, usualMs }: Progress): string =>
  `${node}: ${line}${outcome !== 'waiting' ? '' : usualMs === undefined ? ', no usual time yet' : `, usually ${duration(usualMs)}`}`;

const HOW_TONE: Readonly<Record<Step['how'], Tone>> = {
  passed: 'good',
  now: 'busy',
  failed: 'bad',
  'to come': 'quiet',
};

const stepRow = ({ stage, how, tookMs, usualMs }: Step): Cell[] => [
  cell(stage),
  cell(how, HOW_TONE[how]),
  cell(tookMs === undefined ? '-' : duration(tookMs)),
  cell(usualMs === undefined ? 'no usual time yet' : duration(usualMs)),
];

/** One node's story: where it stands, its proof, its walk, Events in order. */
export function nodeText(node: NodeStory, terminal: Terminal): string {
  const { components: proofComponents, events, unread, timeline } = node;
  const facts: [string, string][] = [
    ['node', node.name],
    ['policy', node.policy === '' ? '-' : node.policy],
    ['state', `${node.state}${node.since === '' ? '' : `, since ${node.since} (${sinceText(node, terminal.now)})`}`],
    ['open', node.open ? 'yes: new GPU pods may come' : `no: ${node.reason}`],
    ['what', node.message === '' ? '-' : node.message],
    ...(node.next === '' ? [] : [['next', node.next] as [string, string]]),
    ['GPUs used', gpuText(node)],
    [
      'proof',
      node.proof === undefined
        ? 'none'
        : `${node.proof.level}, ${node.proof.at} (${age(node.proof.at, terminal.now)})${node.proof.driverAt === undefined ? '' : `, driver validated again ${age(node.proof.driverAt, terminal.now)} ago`}${node.proof.driver === '' ? '' : `, driver ${node.proof.driver}`}${node.proof.cuda === '' ? '' : `, CUDA ${node.proof.cuda}`}`,
    ],
  ];
  const components = Object.entries(proofComponents).map(([name, { revision, started }]) => [
    cell(name),
    cell(revision),
    cell(started === '' ? '-' : age(started, terminal.now)),
  ]);
  return [
    ...facts.flatMap(([name, value]) => {
      const room = terminal.width === undefined ? Infinity : Math.max(20, terminal.width - 12);
      return wrapped(printable(value), room).map((line, i) => `${(i === 0 ? `${name}:` : '').padEnd(12)}${line}`);
    }),
    ...section('WALK', table(['STAGE', 'STANDS', 'TOOK', 'USUALLY'], timeline.map(stepRow), terminal), 0, ''),
    ...section('COMPONENTS OF THE PROOF', table(['COMPONENT', 'REVISION', 'STARTED'], components, terminal), 0, ''),
    ...section(
      'EVENTS',
      table(
        ['AGE', 'TYPE', 'REASON', 'MESSAGE'],
        events.map((event) => [
          cell(age(event.at, terminal.now)),
          cell(event.type, event.type === 'Warning' ? 'bad' : 'plain'),
          cell(event.count > 1 ? `${event.reason} (x${event.count})` : event.reason),
          cell(event.message),
        ]),
        terminal,
        'wrap',
      ),
      0,
      '',
    ),
    ...unread.map(({ what, because }) => `not shown: ${what} (${printable(because)})`),
    '',
  ].join('\n');
}
