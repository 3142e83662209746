// The operands' DaemonSets, and the claim templates of validation pods: applies what wanted.ts
// wants and deletes what is left over, each by itself, so that one which the API server refuses
// stops no other. What was changed by hand is put back.
import { COMPONENTS, isDeployed, type Component } from '../../core/components.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Log } from '../../platform/log.ts';
import { NotLeading, type Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers, Turns } from '../key.ts';
import { claimTemplate } from '../manifests/claim-template.ts';
import { renderOperand, type Rendered } from '../manifests/render.ts';
import type { Manifest } from '../actions.ts';
import type { DaemonSetView } from '../model.ts';
import { leftOver, leftOverTemplates, wantedOperands, wantedTemplates, type Wanted } from './wanted.ts';

/**
 * A refused operand is tried again only so often: what mends it is an edit of the policy, which
 * makes another one.
 */
const AGAIN_MS = 60_000;
/**
 * How often it is checked that the RuntimeClass is still there: creating one that is there is
 * refused, and costs a request.
 */
const CLASS_AGAIN_MS = 10 * 60_000;

export interface OperandControllerDeps {
  readonly caches: Pick<Caches, 'policies' | 'daemonSets' | 'fleet' | 'devices'>;
  readonly apply: Applier;
  readonly turns: Turns;
  readonly log: Log;
  readonly now: () => number;
  readonly operandNamespace: string;
  /** Created if there is none of that name; an empty name: never. */
  readonly runtimeClass: { readonly name: string; readonly handler: string };
}

export interface OperandController {
  readonly handlers: Pick<Handlers, 'operands'>;
  /** Newest revision of each component that the policy deploys. */
  readonly revisionsOf: (policy: GpuPolicy | undefined) => Readonly<Partial<Record<Component, string>>>;
  /** Name of the claim template for its validation pods, once it is there. */
  readonly claimTemplateOf: (policy: GpuPolicy | undefined) => string | undefined;
  /** What the API server refuses of the policy, a sentence each; `undefined` if not tried yet. */
  readonly refusals: (policy: GpuPolicy) => readonly string[] | undefined;
}

interface Refusal {
  readonly because: string;
  readonly digest: string;
  readonly policies: ReadonlySet<string>;
  readonly retryAt: number;
}

export function operandController(deps: OperandControllerDeps): OperandController {
  const { apply, turns, log, now, operandNamespace } = deps;
  const { policies, daemonSets, fleet, devices } = deps.caches;
  /** Generation of each DaemonSet after our last write. Another generation means another writer. */
  const appliedGeneration = new Map<string, number>();
  const refused = new Map<string, Refusal>();
  /** By name, claim templates that the API server refuses. */
  const refusedTemplates = new Map<string, Pick<Refusal, 'because' | 'policies'>>();
  let tried = false;
  let classCheckAt = -Infinity;

  const rendered = new WeakMap<GpuPolicy, readonly Rendered[]>();
  const operandsOf = (policy: GpuPolicy): readonly Rendered[] => {
    const known = rendered.get(policy);
    if (known !== undefined) return known;
    const fresh = COMPONENTS.filter((component) => isDeployed(component, policy)).map((component) =>
      renderOperand(component, policy, { namespace: operandNamespace }),
    );
    rendered.set(policy, fresh);
    return fresh;
  };

  const templateOf = (policy: GpuPolicy): Manifest | undefined =>
    claimTemplate(policy, operandNamespace, (name) => devices.classes.get(name) !== undefined);

  async function bringTemplate(name: string, { what: manifest, policies: of }: Wanted<Manifest>): Promise<void> {
    if (devices.templates.get(`${operandNamespace}/${name}`) !== undefined) return;
    const outcome = await apply.apply({ kind: 'create-claim-template', manifest });
    if (outcome.kind !== 'refused') return void refusedTemplates.delete(name);
    refusedTemplates.set(name, { because: outcome.because, policies: new Set(of.map((policy) => policy.name)) });
    log.error('claim template refused by the API server', { template: name, because: outcome.because });
  }

  const tell = async (wanted: Wanted<Rendered>, reason: string, message: string): Promise<void> => {
    for (const { name, uid } of wanted.policies)
      await apply.apply({ kind: 'event', about: { kind: 'GPUPolicy', name, uid }, type: 'Warning', reason, message });
  };

  /** Returns what the API server refuses; `undefined` if it took the object. */
  async function bring(
    name: string,
    wanted: Wanted<Rendered>,
    present: DaemonSetView | undefined,
  ): Promise<string | undefined> {
    const { what: operand } = wanted;
    let outcome = await apply.apply({ kind: 'apply-daemonset', manifest: operand.daemonSet });
    // A forced apply takes back the fields that we own; what others added stays until the spec is
    // written whole.
    const foreign = outcome.kind === 'done' && outcome.foreign === true;
    if (outcome.kind === 'done' && outcome.foreign === true)
      outcome = await apply.apply({
        kind: 'apply-daemonset',
        manifest: operand.daemonSet,
        wholeAt: outcome.resourceVersion ?? '',
      });
    if (outcome.kind === 'stale')
      throw new Error(
        `DaemonSet ${name} was not applied: it is being changed, or namespace ${operandNamespace} is missing`,
      );
    if (outcome.kind === 'refused') return outcome.because;
    appliedGeneration.set(name, outcome.generation ?? 0);
    const edited = present?.rendered === operand.digest && outcome.generation !== present.generation;
    if (!foreign && !edited) return undefined;
    log.info('operand was changed by another writer and restored', { daemonset: name });
    await tell(
      wanted,
      'OperandPutBack',
      `DaemonSet ${name} was changed by hand and put back: change the GPUPolicy instead`,
    );
    return undefined;
  }

  async function refuse(name: string, wanted: Wanted<Rendered>, because: string): Promise<void> {
    const { digest } = wanted.what;
    const of = new Set(wanted.policies.map((policy) => policy.name));
    refused.set(name, { because, digest, policies: of, retryAt: now() + AGAIN_MS });
    log.error('operand refused by the API server', { daemonset: name, because });
    await tell(wanted, 'OperandRefused', `DaemonSet ${name} was refused by the API server: ${because}`);
  }

  /**
   * Leaves a class of that name that already exists as it is, because k3s, RKE2 and NVIDIA's GPU
   * Operator create one.
   */
  async function bringRuntimeClass(): Promise<void> {
    const { name, handler } = deps.runtimeClass;
    if (name === '' || now() < classCheckAt) return;
    const outcome = await apply.apply({ kind: 'create-runtime-class', name, handler });
    if (outcome.kind === 'done') log.info('created the RuntimeClass', { runtimeclass: name });
    if (outcome.kind === 'refused')
      log.error('the API server refused the RuntimeClass', { runtimeclass: name, because: outcome.because });
    classCheckAt = now() + CLASS_AGAIN_MS;
    turns.addAfter({ kind: 'operands', name: '' }, CLASS_AGAIN_MS);
  }

  async function settle(): Promise<void> {
    const before = said();
    const wanted = wantedOperands([...policies.values()], fleet, operandsOf);
    let failure: unknown;
    /**
     * An error of one operand does not stop the others. The first error that is not a refusal is
     * thrown at the end, so that the queue retries.
     */
    const alone = async (step: () => Promise<void>): Promise<void> => {
      try {
        await step();
      } catch (error) {
        if (error instanceof NotLeading) throw error;
        failure ??= error;
      }
    };
    await alone(bringRuntimeClass);
    for (const [name, one] of wanted) {
      const present = daemonSets.get(`${operandNamespace}/${name}`);
      const asApplied = present !== undefined && present.generation === appliedGeneration.get(name);
      if (asApplied && present.rendered === one.what.digest && !present.foreign) continue;
      const refusal = refused.get(name);
      if (refusal?.digest === one.what.digest && now() < refusal.retryAt) continue;
      await alone(async () => {
        const because = await bring(name, one, present);
        if (because === undefined) refused.delete(name);
        else await refuse(name, one, because);
      });
    }
    const templates = wantedTemplates([...policies.values()], fleet, templateOf);
    for (const [name, one] of templates) await alone(() => bringTemplate(name, one));
    for (const name of refusedTemplates.keys()) if (!templates.has(name)) refusedTemplates.delete(name);
    const present = [...devices.templates.entries()].map(([key]) => key);
    for (const name of leftOverTemplates(present, operandNamespace, templates))
      await alone(async () => {
        await apply.apply({ kind: 'delete-claim-template', namespace: operandNamespace, name });
      });
    for (const name of refused.keys()) if (!wanted.has(name)) refused.delete(name);
    for (const name of leftOver(daemonSets.values(), wanted, fleet)) {
      appliedGeneration.delete(name);
      await alone(async () => {
        await apply.apply({ kind: 'delete-daemonset', namespace: operandNamespace, name });
      });
    }
    const first = !tried;
    tried = true;
    if (first || said() !== before) turns.add({ kind: 'policies', name: '' });
    if (refused.size + refusedTemplates.size > 0) turns.addAfter({ kind: 'operands', name: '' }, AGAIN_MS);
    if (failure !== undefined) throw failure;
  }

  const said = (): string =>
    JSON.stringify(
      [...refused, ...refusedTemplates].map(([name, { because, policies: of }]) => [name, because, [...of]]),
    );

  return {
    handlers: { operands: settle },
    revisionsOf: (policy) =>
      policy === undefined
        ? {}
        : Object.fromEntries(operandsOf(policy).map(({ component, revision }) => [component, revision])),
    claimTemplateOf(policy) {
      const name = policy === undefined ? undefined : templateOf(policy)?.metadata.name;
      return name === undefined || devices.templates.get(`${operandNamespace}/${name}`) === undefined
        ? undefined
        : name;
    },
    refusals: (policy) =>
      tried
        ? [
            ...sentences('DaemonSet', refused, policy.name),
            ...sentences('ResourceClaimTemplate', refusedTemplates, policy.name),
          ]
        : undefined,
  };
}

const sentences = (
  kind: string,
  refused: ReadonlyMap<string, Pick<Refusal, 'because' | 'policies'>>,
  policy: string,
): readonly string[] =>
  [...refused].flatMap(([name, { because, policies }]) =>
    policies.has(policy) ? [`${kind} ${name}: ${because}`] : [],
  );
