// Reports → text for a terminal or a pipe: tables as wide as the terminal, colour only where there
// is one. Pure. Everything foreign goes through `printable`.
import { printable } from '../core/printable.ts';
import {
  stateOrder,
  type EventView,
  type Fleet,
  type NodeReport,
  type PolicyReport,
  type WaitingPod,
} from './fleet.ts';

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
export function age(at: string, now: number): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(at)) / 1000));
  if (Number.isNaN(seconds)) return '-';
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** Columns as wide as their widest cell; the last one is cut where the terminal ends. */
function table(header: readonly string[], rows: readonly (readonly Cell[])[], terminal: Terminal): string[] {
  if (rows.length === 0) return [];
  const all = [header.map((text) => cell(text)), ...rows];
  const widths = header.map((_, i) => Math.max(...all.map((row) => row[i]?.text.length ?? 0)));
  return all.map((row) => {
    let column = 0;
    const parts = row.map((one, i) => {
      const last = i === row.length - 1;
      const room = terminal.width === undefined ? undefined : Math.max(1, terminal.width - column);
      const text = last && room !== undefined && one.text.length > room ? `${one.text.slice(0, room - 1)}…` : one.text;
      const width = widths[i] ?? 0;
      column += width + 2;
      return (
        paint(text, one.tone ?? 'plain', terminal) + (last ? '' : ' '.repeat(Math.max(0, width - text.length) + 2))
      );
    });
    return parts.join('').trimEnd();
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

const nodeRow = (node: NodeReport, terminal: Terminal, wide: boolean): Cell[] => [
  cell(node.name),
  cell(node.state, toneOf(node)),
  cell(node.open ? 'yes' : 'no', node.open ? 'good' : 'plain'),
  cell(gpuText(node)),
  cell(age(node.since, terminal.now)),
  ...(wide
    ? [
        cell(node.policy === '' ? '-' : node.policy),
        cell(node.proof === undefined ? '-' : age(node.proof.at, terminal.now)),
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
    'GPUS USED',
    'SINCE',
    ...(wide ? ['POLICY', 'PROVEN', 'DRIVER', 'NEXT'] : []),
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

const waitingRow = (pod: WaitingPod, terminal: Terminal): Cell[] => [
  cell(`${pod.namespace}/${pod.name}`),
  cell(age(pod.since, terminal.now)),
  cell(pod.reason),
];

/** So many rows of a kind are a screenful; what is left out is counted. */
const MOST = 15;

function section(title: string, lines: readonly string[], left: number, command: string): string[] {
  if (lines.length === 0) return [];
  return ['', title, ...lines, ...(left > 0 ? [`… and ${left} more: ${command}`] : [])];
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
  const openCount = nodes.filter((node) => node.open).length;
  const verdict =
    fleet.problems.length === 0
      ? paint('healthy', 'good', terminal)
      : paint(`${fleet.problems.length} ${fleet.problems.length === 1 ? 'problem' : 'problems'}`, 'bad', terminal);
  const first =
    policies.length === 0 ? 'no GPUPolicy: nothing is gated' : `${openCount} of ${nodes.length} GPU nodes open`;
  return [
    `gpu-gate: ${verdict}, ${first}, ${waiting.length} ${waiting.length === 1 ? 'pod waits' : 'pods wait'}`,
    ...fleet.problems.map((problem) => `  ${paint('!', 'bad', terminal)} ${printable(problem)}`),
    ...section(
      'POLICIES',
      table(['POLICY', 'ENFORCES', 'VALIDATED', 'FAILED', 'WHY NOT'], policies.map(policyRow), terminal),
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
      ),
      0,
      '',
    ),
    ...(nodes.length === 0 ? [] : ['', `NODES  ${states.join(', ')}`]),
    ...section(
      'NODES THAT ARE NOT OPEN',
      table(
        ['NODE', 'STATE', 'OPEN', 'GPUS USED', 'SINCE', 'WHAT'],
        onTheirWay.slice(0, MOST).map((node) => nodeRow(node, terminal, false)),
        terminal,
      ),
      onTheirWay.length - MOST,
      'kubectl gpu-gate nodes',
    ),
    ...section(
      'GPU PODS THAT WAIT',
      table(
        ['POD', 'SINCE', 'THE SCHEDULER SAYS'],
        waiting.slice(0, MOST).map((pod) => waitingRow(pod, terminal)),
        terminal,
      ),
      waiting.length - MOST,
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

/** One node's story: where it stands, its proof, Events in order. */
export function nodeText(
  node: NodeReport,
  proofComponents: Readonly<Record<string, { readonly revision: string; readonly started: string }>>,
  events: readonly EventView[],
  unread: readonly { readonly what: string; readonly because: string }[],
  terminal: Terminal,
): string {
  const facts: [string, string][] = [
    ['node', node.name],
    ['policy', node.policy === '' ? '-' : node.policy],
    ['state', `${node.state}${node.since === '' ? '' : `, since ${node.since} (${age(node.since, terminal.now)})`}`],
    ['open', node.open ? 'yes: new GPU pods may come' : `no: ${node.reason}`],
    ['what', node.message === '' ? '-' : node.message],
    ...(node.next === '' ? [] : [['next', node.next] as [string, string]]),
    ['GPUs used', gpuText(node)],
    [
      'proof',
      node.proof === undefined
        ? 'none'
        : `${node.proof.at} (${age(node.proof.at, terminal.now)})${node.proof.driver === '' ? '' : `, driver ${node.proof.driver}`}${node.proof.cuda === '' ? '' : `, CUDA ${node.proof.cuda}`}`,
    ],
  ];
  const components = Object.entries(proofComponents).map(([name, { revision, started }]) => [
    cell(name),
    cell(revision),
    cell(started === '' ? '-' : age(started, terminal.now)),
  ]);
  return [
    ...facts.map(([name, value]) => `${`${name}:`.padEnd(12)}${printable(value)}`),
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
      ),
      0,
      '',
    ),
    ...unread.map(({ what, because }) => `not shown: ${what} (${printable(because)})`),
    '',
  ].join('\n');
}
