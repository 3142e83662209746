// Every call, as verbs.ts defines it: body → JSON → arguments → answer. Malformed input is a value.
import { nestsDeeper } from '../core/json-depth.ts';
import { filter, preempt, prioritize, type View } from './verbs.ts';
import { withheld, type Answered, type Way } from './way.ts';
import { decodeArgs, decodePreemption, encodeFilter, encodePreemption, type Decoded } from './wire.ts';

/** Pods and nodes nest some 20 deep. */
const DEEPEST = 1000;

function parsed<T>(body: Buffer, decode: (value: unknown) => Decoded<T>): Decoded<T> {
  if (nestsDeeper([body], DEEPEST)) return { ok: false, because: `the body nests deeper than ${DEEPEST}` };
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    return { ok: false, because: 'the body is not JSON: only a kube-scheduler should call this' };
  }
  return decode(value);
}

export const plain = {
  filter(body: Buffer, view: View): Answered {
    const decoded = parsed(body, decodeArgs);
    if (!decoded.ok) return decoded;
    const { names, nodes } = decoded.args;
    const { ask, result } = filter(decoded.args, view);
    const none = withheld(ask);
    if (none !== undefined) return none;
    const refused = new Map<string, number>();
    for (const { label } of result.refused.values()) refused.set(label, (refused.get(label) ?? 0) + 1);
    const { passed, wouldRefuse } = result;
    const tally = { ask, nodes: names.length, passed: passed.length, refused, wouldRefuse };
    return { ok: true, body: encodeFilter(result, nodes), tally };
  },
  prioritize(body: Buffer, view: View, now: number): Answered {
    const decoded = parsed(body, decodeArgs);
    return decoded.ok ? { ok: true, body: JSON.stringify(prioritize(decoded.args, view, now)) } : decoded;
  },
  preempt(body: Buffer, view: View): Answered {
    const decoded = parsed(body, decodePreemption);
    return decoded.ok ? { ok: true, body: encodePreemption(preempt(decoded.args, view)) } : decoded;
  },
} satisfies Way & Record<'preempt', unknown>;
