// What a validation says, and what happened to its pod, are two things. Only the verdict that the
// wrapper writes around the program proves or disproves a stack; a pod that never ran, was killed
// or ran something else says nothing about it.
import { object, text } from '../../core/raw.ts';
import type { PodObject } from '../model.ts';
import { lastWords } from './words.ts';

interface NoVerdict {
  /** The kubelet's own word for it. */
  readonly what: string;
  readonly words: string;
}
export type Outcome =
  | { readonly kind: 'Verdict'; readonly passed: boolean; readonly words: string }
  | ({ readonly kind: 'NeverRan' } & NoVerdict)
  | ({ readonly kind: 'Killed' } & NoVerdict)
  | ({ readonly kind: 'NotTheProgram' } & NoVerdict);

interface Said {
  readonly verdict: string;
  readonly exit: number | undefined;
  readonly words: string;
}

/** The JSON line that the wrapper of `validation-pod.ts` writes into the termination message. */
function saidIn(message: string): Said | undefined {
  const line = message.split('\n').find((one) => one.startsWith('{"gpuGate":1,'));
  if (line === undefined) return undefined;
  try {
    const { verdict, exit, words } = object(JSON.parse(line));
    return { verdict: text(verdict, ''), exit: typeof exit === 'number' ? exit : undefined, words: text(words, '') };
  } catch {
    return undefined;
  }
}

/** Reasons of a container whose program could not be started at all. */
const NOT_STARTED: ReadonlySet<string> = new Set(['ContainerCannotRun', 'StartError']);
/** Exit codes of a process that was ended by SIGKILL and SIGTERM, which no program sends itself. */
const KILLED: ReadonlySet<number | undefined> = new Set([137, 143]);

/** What became of a validation's pod; `undefined` if it has not ended. */
export function outcomeOf(pod: PodObject): Outcome | undefined {
  const ended = pod.containers[0]?.state?.terminated;
  const said = saidIn(ended?.message ?? '');
  if (said?.verdict === 'pass' || said?.verdict === 'fail')
    return { kind: 'Verdict', passed: said.verdict === 'pass', words: lastWords(said.words) };
  if (pod.phase !== 'Succeeded' && pod.phase !== 'Failed') return undefined;
  const hasBegun = ended?.startedAt !== undefined && !NOT_STARTED.has(ended.reason ?? '');
  // The kubelet or the evicting controller sets the pod's own reason. The program never sets it.
  if (pod.reason !== '')
    return { kind: hasBegun ? 'Killed' : 'NeverRan', what: pod.reason, words: lastWords(pod.message) };
  if (ended === undefined) return { kind: 'NeverRan', what: 'no reason given', words: lastWords(pod.message) };
  const exit = said?.exit ?? ended.exitCode;
  const words = lastWords(said?.words ?? ended.message);
  if (ended.reason === 'OOMKilled' || ended.reason === 'ContainerStatusUnknown' || KILLED.has(exit))
    return { kind: 'Killed', what: ended.reason === 'OOMKilled' ? 'OOMKilled' : `exit code ${exit ?? '?'}`, words };
  return { kind: 'NotTheProgram', what: ended.reason ?? `exit code ${exit ?? '?'}`, words };
}

/** What a person can do, by the kubelet's word; the beginning of it is enough. */
const ADVICE: readonly (readonly [what: string, advice: string])[] = [
  ['OOMKilled', 'raise validation.resources.limits.memory in the GPUPolicy'],
  ['Evicted', 'free what the node has run out of'],
  ['Preempting', 'a pod of a higher priority needed its place'],
  ['OutOf', 'the node has no room for it: see kubectl describe node'],
  ['UnexpectedAdmissionError', 'the device plugin did not give it a GPU: see its log'],
  ['TopologyAffinityError', "the kubelet's topology manager has no room for it"],
  ['NodeAffinity', 'labels of the node were changed meanwhile'],
  ['NodeShutdown', 'the node was being shut down'],
  ['Terminated', 'the node was being shut down'],
  ['exit code', 'its pod was deleted or its process killed, for example by kubectl drain'],
];
export const adviceOn = (what: string): string => ADVICE.find(([begin]) => what.startsWith(begin))?.[1] ?? '';
