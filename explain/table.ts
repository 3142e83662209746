// An explanation as a table for people; a screenful at 500 nodes.
import { printable } from '../core/printable.ts';
import type { Explanation, Row } from './explanation.ts';
import { commandFor } from './hints.ts';

/** Above this many nodes, those with the same verdict share a line. */
const GROUP_ABOVE = 20;
/** More names than this do not fit into a command that a person reads before running it. */
const NAMES_IN_COMMAND = 3;

/** The explanation as a table. */
export function explanationText(explanation: Explanation): string {
  const grouped = explanation.rows.length > GROUP_ABOVE ? group(explanation) : explanation.rows;
  const header = {
    node: 'NODE',
    state: 'STATE',
    verdict: 'VERDICT',
    reason: 'REASON',
    since: 'SINCE',
    next: 'WHAT NEXT',
  };
  const columns = ['node', 'state', 'verdict', 'reason', 'since', 'next'] as const;
  const lines = [header, ...grouped.map(printableRow)];
  const widths = columns.map((column) => Math.max(...lines.map((line) => line[column].length)));
  const table = lines.map((line) =>
    columns
      .map((column, i) => (column === 'next' ? line[column] : line[column].padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  const { pod, summary, webhook, notes } = explanation;
  const above = [`pod ${pod}: ${summary}`, webhook, ...notes].map((line) => printable(line));
  return [...above, '', ...table, ''].join('\n');
}

/** Authors write annotations, kubelets write messages: neither may steer the reader's terminal. */
const printableRow = (row: Row): Row => ({
  ...row,
  node: printable(row.node),
  state: printable(row.state),
  reason: printable(reasonOf(row)),
  since: printable(row.since),
  next: printable(row.next),
});

/** A refused node that the pod could not use anyway says both. */
const reasonOf = ({ verdict, reason, keptOff }: Row): string =>
  verdict === 'refused' && keptOff !== '' ? `${reason}; ${keptOff}` : reason;

function group({ pod, rows }: Explanation): Row[] {
  const groups = new Map<string, [Row, ...Row[]]>();
  for (const row of rows) {
    const key = [row.verdict, row.state, reasonOf(row)].join('\n');
    const members = groups.get(key);
    if (members === undefined) groups.set(key, [row]);
    else members.push(row);
  }
  return [...groups.values()].map((members) => {
    const [first] = members;
    if (members.length === 1) return first;
    return {
      ...first,
      node: `${members.length} nodes, such as ${first.node}`,
      since: members.flatMap(({ since }) => (since === '' ? [] : [since])).toSorted()[0] ?? '',
      next: commandFor(first.kind)?.(namesIn(pod, members)) ?? nextOf(members),
    };
  });
}

/**
 * Shell arguments for the group's nodes: literal names when there are few, otherwise a `$(… explain
 * … | jq …)` substitution.
 */
function namesIn(pod: string, members: readonly [Row, ...Row[]]): string {
  if (members.length <= NAMES_IN_COMMAND) return members.map(({ node }) => node).join(' ');
  const [{ kind, state }] = members;
  const [namespace = '', name = ''] = pod.split('/');
  const select = `.rows[] | select(.kind == "${kind}" and .state == "${state}").node`;
  return `$(node main.ts explain ${name} -n ${namespace} -o json | jq -r '${select}')`;
}

/**
 * One text if all members say the same but for names and times; otherwise that they differ, and one
 * of them.
 */
function nextOf(members: readonly [Row, ...Row[]]): string {
  const texts = new Set(members.map(({ alike }) => alike));
  return texts.size === 1 ? members[0].alike : `${texts.size} different messages, such as: ${members[0].next}`;
}
