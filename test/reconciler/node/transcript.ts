// What gpu-gate writes to a node in the course of a story, as text that people read. A golden file
// holds it, so that a change of behaviour shows as a change of a sentence, a time or a mark.
import { DEPLOY_PREFIX, PROOF, WALK } from '../../../core/keys.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import type { NodePlan } from '../../../reconciler/node/node-plan.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import { keptPod, NOW } from '../../builders/objects.ts';
import { World } from './world.ts';

const two = (value: number): string => String(value).padStart(2, '0');
/** Time since the story began. */
function clock(ms: number): string {
  const s = Math.floor(Math.abs(ms) / 1000);
  const rest = ms % 1000 === 0 ? '' : `.${String(Math.abs(Math.round(ms % 1000))).padStart(3, '0')}`;
  return `${ms < 0 ? '-' : ''}${two(Math.floor(s / 3600))}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}${rest}`;
}

/** Times that lie far back are of no story. */
const LONG_AGO = 10 * 365 * 86_400_000;

/** A world that writes down what happens in it. */
export class Story extends World {
  readonly #lines: string[] = [];
  readonly #names = new Map<string, string>();
  #last = '';
  #memory: Readonly<Record<string, unknown>> = {};
  #marks: Record<string, unknown> = {};
  more: Partial<NodeInput> = {};
  /** What the kubelet says of the node, in place of what this world makes up. */
  status: Readonly<Record<string, unknown>> = {};

  override input(): NodeInput {
    return { ...super.input(), ...this.more };
  }
  override reality(): void {
    super.reality();
    this.node = { ...this.node, status: { ...this.node.status, ...this.status } };
  }

  /** Something happens. */
  so(what: string, happen: (story: this) => void): this {
    this.#lines.push(`* ${what}`);
    happen(this);
    return this;
  }
  /**
   * So many passes, `every` ms apart; only those that write, or wait for another time, are written
   * down.
   */
  pass(times = 12, every = 1000): this {
    for (let i = 0; i < times; i += 1) {
      this.now += every;
      const plan = this.plan();
      this.#note(plan);
      this.carryOut(plan.actions);
      this.reality();
    }
    return this;
  }
  get text(): string {
    return `${this.#lines.join('\n')}\n`;
  }

  #note(plan: NodePlan): void {
    const lines = [...plan.actions.flatMap((action) => this.#said(action)), ...this.#others(plan)];
    const text = lines.map((line) => `    ${this.#named(line)}`).join('\n');
    if (text === '' || (plan.actions.length === 0 && text === this.#last)) return;
    this.#last = plan.actions.length === 0 ? text : '';
    this.#lines.push(`  ${clock(this.now - NOW)}`, text);
  }
  #others({ wakeAt, holdsSlot, withdraws, unless, walked }: NodePlan): string[] {
    const milder = withdraws ? (unless?.('circuit breaker') ?? []) : [];
    return [
      ...(wakeAt === undefined ? [] : [`looks again at ${clock(wakeAt - NOW)}`]),
      ...(holdsSlot ? ['holds a place'] : []),
      ...(withdraws ? ['withdraws the proof, unless the breaker holds; then:'] : []),
      ...milder.flatMap((action) => this.#said(action, false)).map((line) => `  ${line}`),
      ...(walked === undefined || walked.before.stage === walked.after.stage
        ? []
        : [`walked from ${walked.before.stage} to ${walked.after.stage}`]),
    ];
  }
  #said(action: Action, remembers = true): string[] {
    switch (action.kind) {
      case 'patch-node': {
        const marks = [...Object.entries(action.labels), ...Object.entries(action.annotations)];
        return marks.flatMap(([key, value]) => this.#mark(key, value, remembers));
      }
      case 'set-taints':
        return [`taints: ${action.taints.map(({ key, effect }) => `${key}:${effect}`).join(', ') || 'none'}`];
      case 'set-node-condition':
        return action.condition === undefined
          ? ['condition: removed']
          : [`condition: ${action.condition.status} ${action.condition.reason}: ${action.condition.message}`];
      case 'create-pod':
        return [`creates pod ${action.manifest.metadata.name}`];
      case 'delete-pod':
        return [`deletes pod ${action.name} (${action.uid}): ${action.because}`];
      case 'evict-pod':
        return [`evicts pod ${action.name} (${action.uid}): ${action.because}`];
      case 'event':
        return [`${action.type} Event${action.once === true ? ', once' : ''}: ${action.reason}: ${action.message}`];
      case 'apply-daemonset':
      case 'create-runtime-class':
      case 'create-claim-template':
      case 'delete-claim-template':
      case 'create-device-taint':
      case 'delete-device-taint':
      case 'delete-daemonset':
      case 'policy-finalizers':
      case 'policy-status':
      case 'set-pod-condition':
        throw new Error(`not an action on a node: ${action.kind}`);
    }
  }
  #mark(key: string, value: string | null, remembers: boolean): string[] {
    const name = key.startsWith(DEPLOY_PREFIX) ? key.replace('gpu-gate.dev/', '') : key.split('/')[1];
    if ((key !== WALK && key !== PROOF) || value === null) return [`${name}: ${value ?? 'removed'}`];
    const fields = JSON.parse(value) as Record<string, unknown>;
    // The condition shows what is said, and the walk says which node it is of.
    const { said: _, node: __, ...shown } = fields;
    const before = key === WALK ? this.#memory : ((this.#marks[key] ?? {}) as Readonly<Record<string, unknown>>);
    const changed = [...new Set([...Object.keys(before), ...Object.keys(shown)])].filter(
      (field) => JSON.stringify(before[field]) !== JSON.stringify(shown[field]),
    );
    if (remembers) {
      if (key === WALK) this.#memory = shown;
      else this.#marks = { ...this.#marks, [key]: shown };
    }
    return changed.map((field) => `${name}.${field}: ${JSON.stringify(shown[field]) ?? 'removed'}`);
  }
  /** Times since the story began, and digests by number: what they are says nothing. */
  #named(line: string): string {
    return line
      .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, (time) => {
        const ms = Date.parse(time) - NOW;
        return ms < -LONG_AGO ? 'long ago' : clock(ms);
      })
      .replaceAll(/\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{10,12}\b|\b[0-9a-f]{10}\b/g, (digest) => {
        const known = this.#names.get(digest) ?? `#${this.#names.size + 1}`;
        this.#names.set(digest, known);
        return known;
      });
  }
}

export const user = (name = 'user', gpus = 8): PodObject =>
  keptPod({ name, namespace: 'team', uid: name, gpus: { 'nvidia.com/gpu': gpus } });
