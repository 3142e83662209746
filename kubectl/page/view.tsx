// The parts of the status page: values → elements. What a part remembers is what the user does
// there: where a list is scrolled to, which row has the focus.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { NodeReport } from '../fleet.ts';
import { age, duration, proofText, sinceText } from '../render.ts';
import type { NodeStory } from '../story.ts';
import type { Step } from '../usual.ts';
import {
  chosen,
  columnsOf,
  gpusOf,
  headline,
  inSight,
  plural,
  squareAt,
  squareOf,
  squareSize,
  stateCounts,
  toneOf,
  whatOf,
  type Choice,
  type Known,
  type NodeState,
} from './model.ts';

const ROW = 34;
/** Of more pods than these the first are shown. */
const PODS = 200;

/** Why the page is not live, and what the user chose. */
export interface Shown {
  readonly known: Known;
  readonly trouble: string;
  /** ms since the epoch. */
  readonly now: number;
  readonly choice: Choice;
  readonly selected: string;
  readonly story: NodeStory | undefined;
}

export interface Acts {
  readonly choose: (choice: Choice) => void;
  readonly select: (node: string) => void;
}

export function Page({ shown, acts }: { readonly shown: Shown; readonly acts: Acts }) {
  const { known, trouble, now, choice, selected, story } = shown;
  const { rest } = known;
  if (known.at === '') return <p role="status">{trouble === '' ? 'Reading the cluster…' : trouble}</p>;
  const nodes = chosen(known.nodes.values(), choice);
  return (
    <>
      <header>
        <h1>gpu-gate</h1>
        <p role="status">{headline(known)}</p>
        <p class={trouble === '' ? 'soft' : 'bad'}>
          {trouble === '' ? `live, read ${age(known.at, now)} ago` : `read ${age(known.at, now)} ago: ${trouble}`}
        </p>
      </header>
      {rest.problems.length > 0 && (
        <section class="panel problems" aria-label="Problems">
          <ul>
            {rest.problems.map((problem) => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        </section>
      )}
      {rest.unread.length > 0 && (
        <p class="soft">Not shown: {rest.unread.map(({ what, because }) => `${what} (${because})`).join(', ')}</p>
      )}
      <div class="columns">
        <main class="panel">
          <h2>Nodes</h2>
          <Filter known={known} choice={choice} choose={acts.choose} found={nodes.length} />
          <Overview nodes={nodes} select={acts.select} />
          <Rows nodes={nodes} now={now} selected={selected} select={acts.select} />
        </main>
        <div class="side">
          {selected !== '' && (
            <Story node={known.nodes.get(selected)} name={selected} story={story} now={now} select={acts.select} />
          )}
          <Waiting known={known} now={now} />
          <Policies known={known} />
        </div>
      </div>
    </>
  );
}

function Filter(props: {
  readonly known: Known;
  readonly choice: Choice;
  readonly choose: (choice: Choice) => void;
  readonly found: number;
}) {
  const { known, choice, choose, found } = props;
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const slash = (event: KeyboardEvent): void => {
      if (event.key !== '/' || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      field.current?.focus();
    };
    document.addEventListener('keydown', slash);
    return () => document.removeEventListener('keydown', slash);
  }, []);
  const toggle = (state: NodeState): void => {
    const states = new Set(choice.states);
    if (!states.delete(state)) states.add(state);
    choose({ ...choice, states });
  };
  return (
    <div class="bar">
      <input
        ref={field}
        type="search"
        aria-label="Search nodes"
        placeholder="Search name, state, reason, driver ( / )"
        value={choice.search}
        onInput={(event) => choose({ ...choice, search: event.currentTarget.value })}
      />
      {stateCounts(known.rest.byState).map(({ state, count }) => (
        <button key={state} type="button" aria-pressed={choice.states.has(state)} onClick={() => toggle(state)}>
          {state} {count}
        </button>
      ))}
      <span class="soft" role="status">
        {plural(found, 'node')} shown
      </span>
    </div>
  );
}

/** A square for each node: the whole fleet at a glance. The table beside it says the same in words. */
function Overview({
  nodes,
  select,
}: {
  readonly nodes: readonly NodeReport[];
  readonly select: (node: string) => void;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const size = squareSize(nodes.length, width);
  const columns = columnsOf(width, size);
  const height = Math.ceil(nodes.length / columns) * size;
  useLayoutEffect(() => {
    const element = canvas.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    const element = canvas.current;
    const paper = element?.getContext('2d');
    if (element === null || paper === null || paper === undefined || width === 0) return;
    const scale = globalThis.devicePixelRatio;
    element.width = width * scale;
    element.height = height * scale;
    element.style.height = `${height}px`;
    paper.scale(scale, scale);
    const style = getComputedStyle(document.body);
    const gap = size > 6 ? 2 : 1;
    const colours = new Map<string, string>();
    for (const [index, node] of nodes.entries()) {
      const tone = toneOf(node);
      const colour = colours.get(tone) ?? resolved(style.getPropertyValue(`--${tone}`));
      colours.set(tone, colour);
      const { x, y } = squareAt(index, columns);
      paper.fillStyle = colour;
      paper.fillRect(x * size, y * size, size - gap, size - gap);
    }
  });
  return (
    <canvas
      ref={canvas}
      aria-hidden="true"
      onClick={(event) => {
        const index = squareOf(event.offsetX, event.offsetY, size, columns, nodes.length);
        const node = index === undefined ? undefined : nodes[index];
        if (node !== undefined) select(node.name);
      }}
    />
  );
}

/** A canvas does not know `light-dark()`. */
function resolved(value: string): string {
  const probe = document.createElement('span');
  probe.style.color = value;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function Rows(props: {
  readonly nodes: readonly NodeReport[];
  readonly now: number;
  readonly selected: string;
  readonly select: (node: string) => void;
}) {
  const { nodes, now, selected, select } = props;
  const box = useRef<HTMLDivElement>(null);
  const [scrolled, setScrolled] = useState(0);
  const [height, setHeight] = useState(600);
  const [focused, setFocused] = useState(0);
  useLayoutEffect(() => setHeight(box.current?.clientHeight ?? 600), []);
  const { from, to } = inSight(nodes.length, ROW, scrolled, height);
  const focusable = Math.min(focused, nodes.length - 1);
  const move = (index: number): void => {
    const target = Math.max(0, Math.min(nodes.length - 1, index));
    setFocused(target);
    const element = box.current;
    if (element === null) return;
    const top = target * ROW;
    if (top < element.scrollTop) element.scrollTop = top;
    if (top + 2 * ROW > element.scrollTop + element.clientHeight)
      element.scrollTop = top + 2 * ROW - element.clientHeight;
    requestAnimationFrame(() => element.querySelector<HTMLElement>(`[data-row="${target}"]`)?.focus());
  };
  const keys = (event: KeyboardEvent, index: number, name: string): void => {
    const page = Math.floor(height / ROW);
    const steps: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    const step = steps[event.key];
    if (step !== undefined) move(index + step);
    else if (event.key === 'Home') move(0);
    else if (event.key === 'End') move(nodes.length - 1);
    else if (event.key === 'Enter' || event.key === ' ') select(name);
    else return;
    event.preventDefault();
  };
  return (
    <div class="rows" ref={box} onScroll={(event) => setScrolled(event.currentTarget.scrollTop)}>
      <table class="nodes" role="grid" aria-rowcount={nodes.length + 1} aria-label="Nodes">
        <thead>
          <tr aria-rowindex={1}>
            <th scope="col">Node</th>
            <th scope="col">State</th>
            <th scope="col">GPUs</th>
            <th scope="col">Since</th>
            <th scope="col">Proof</th>
            <th scope="col">What</th>
          </tr>
        </thead>
        <tbody>
          <Gap rows={from} />
          {nodes.slice(from, to).map((node, at) => {
            const index = from + at;
            return (
              <tr
                key={node.name}
                data-row={index}
                aria-rowindex={index + 2}
                aria-selected={node.name === selected}
                tabIndex={index === focusable ? 0 : -1}
                onClick={() => {
                  setFocused(index);
                  select(node.name);
                }}
                onKeyDown={(event) => keys(event, index, node.name)}
              >
                <td title={node.name}>{node.name}</td>
                <td class={`state ${toneOf(node)}`}>
                  {node.state}
                  {node.state === 'validated' && !node.open ? ', closed' : ''}
                </td>
                <Gpus node={node} />
                <td title={sinceText(node, now)}>{sinceText(node, now)}</td>
                <td>{proofText(node, now)}</td>
                <td title={whatOf(node)}>{whatOf(node)}</td>
              </tr>
            );
          })}
          <Gap rows={nodes.length - to} />
        </tbody>
      </table>
    </div>
  );
}

/** As high as the rows that are not drawn. */
const Gap = ({ rows }: { readonly rows: number }) =>
  rows > 0 && (
    <tr class="gap" aria-hidden="true">
      <td colSpan={6} style={{ height: `${rows * ROW}px` }} />
    </tr>
  );

const whole = ({ proof }: NodeReport, now: number): string =>
  proof === undefined
    ? 'none'
    : [
        `${proof.level}, ${age(proof.at, now)} old`,
        ...(proof.driverAt === undefined ? [] : [`driver validated again ${age(proof.driverAt, now)} ago`]),
        ...(proof.driver === '' ? [] : [`driver ${proof.driver}`]),
        ...(proof.cuda === '' ? [] : [`CUDA ${proof.cuda}`]),
      ].join(', ');

function Gpus({ node }: { readonly node: NodeReport }) {
  const { used, offered } = gpusOf(node);
  if (offered === 0) return <td class="soft">none</td>;
  return (
    <td>
      {used} of {offered}
    </td>
  );
}

function Story(props: {
  readonly node: NodeReport | undefined;
  readonly name: string;
  readonly story: NodeStory | undefined;
  readonly now: number;
  readonly select: (node: string) => void;
}) {
  const { node, name, story, now, select } = props;
  return (
    <section class="panel" aria-label={`Node ${name}`}>
      <div class="bar">
        <h2>{name}</h2>
        <button type="button" onClick={() => select('')}>
          Close
        </button>
      </div>
      {node === undefined ? (
        <p>This node is gone.</p>
      ) : (
        <>
          <dl>
            <dt>state</dt>
            <dd class={toneOf(node)}>
              {node.state}, {node.open ? 'open: new GPU pods may come' : `not open: ${node.reason}`}
            </dd>
            {node.message !== '' && (
              <>
                <dt>what</dt>
                <dd>{node.message}</dd>
              </>
            )}
            <dt>since</dt>
            <dd>{sinceText(node, now)}</dd>
            <dt>policy</dt>
            <dd>{node.policy === '' ? 'none' : node.policy}</dd>
            <dt>proof</dt>
            <dd>{whole(node, now)}</dd>
            {node.gpus.map(({ resource, used, offered }) => (
              <>
                <dt>{resource}</dt>
                <dd>
                  {used} of {offered} used
                </dd>
              </>
            ))}
            {node.next !== '' && (
              <>
                <dt>next</dt>
                <dd>
                  <code>{node.next}</code>
                </dd>
              </>
            )}
          </dl>
          {story !== undefined && story.timeline.length > 0 && <Timeline steps={story.timeline} />}
          <h2>Events</h2>
          {story === undefined ? (
            <p class="soft">Reading…</p>
          ) : story.events.length === 0 ? (
            <p class="soft">None is kept.</p>
          ) : (
            <ol class="story" aria-label="Events">
              {story.events.map((event) => (
                <li key={`${event.at} ${event.reason} ${event.message}`}>
                  <time dateTime={event.at}>{age(event.at, now)} ago</time>
                  <strong class={event.type === 'Warning' ? 'bad' : 'good'}>{event.reason}</strong>
                  {event.count > 1 ? ` ×${event.count}` : ''}
                  <div>{event.message}</div>
                </li>
              ))}
            </ol>
          )}
        </>
      )}
    </section>
  );
}

const HOW: Readonly<Record<Step['how'], string>> = { passed: 'good', now: 'busy', failed: 'bad', 'to come': 'quiet' };

/** The node's walk, stage by stage. */
function Timeline({ steps }: { readonly steps: readonly Step[] }) {
  return (
    <>
      <h2>Walk</h2>
      <table class="walk" aria-label="Walk">
        <thead>
          <tr>
            <th scope="col">Stage</th>
            <th scope="col">Stands</th>
            <th scope="col">Took</th>
            <th scope="col">Usually</th>
          </tr>
        </thead>
        <tbody>
          {steps.map(({ stage, how, tookMs, usualMs }) => (
            <tr key={stage}>
              <td>{stage}</td>
              <td class={`state ${HOW[how]}`}>{how}</td>
              <td>{tookMs === undefined ? '-' : duration(tookMs)}</td>
              <td>{usualMs === undefined ? 'no usual time yet' : duration(usualMs)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Waiting({ known, now }: { readonly known: Known; readonly now: number }) {
  const { waiting } = known.rest;
  return (
    <section class="panel" aria-label="GPU pods that wait">
      <h2>{plural(waiting.length, 'GPU pod waits', 'GPU pods wait')}</h2>
      <ul class="waiting">
        {waiting.slice(0, PODS).map(({ namespace, name, since, reason, next }) => (
          <li key={`${namespace}/${name}`}>
            <strong>
              {namespace}/{name}
            </strong>{' '}
            <span class="soft">{age(since, now)}</span>
            <div>{reason}</div>
            <code>{next}</code>
          </li>
        ))}
      </ul>
      {waiting.length > PODS && <p class="soft">and {waiting.length - PODS} more</p>}
    </section>
  );
}

function Policies({ known }: { readonly known: Known }) {
  return (
    <section class="panel" aria-label="GPUPolicies">
      <h2>GPUPolicies</h2>
      {known.rest.policies.map(
        ({ name, enforcing, message, validated, failed, nodes, upToDate, rollOut, warnings }) => (
          <div key={name}>
            <strong>{name}</strong> <span class={enforcing ? 'good' : 'busy'}>{enforcing ? 'enforces' : 'audits'}</span>
            {enforcing ? '' : `: ${message}`}
            <progress aria-label={`validated nodes of ${name}`} value={validated} max={Math.max(1, nodes)} />
            <div class="soft">
              {validated} of {plural(nodes, 'node')} validated{failed > 0 ? `, ${failed} failed` : ''}
            </div>
            {rollOut !== '' && (
              <>
                <progress aria-label={`roll-out of ${name}`} value={upToDate} max={Math.max(1, nodes)} />
                <div class="busy">roll-out, {rollOut}</div>
              </>
            )}
            {warnings.map((warning) => (
              <p key={warning} class="bad">
                {warning}
              </p>
            ))}
          </div>
        ),
      )}
    </section>
  );
}
