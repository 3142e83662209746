// DeviceTaintRules of gpu-gate: writes for each node what rules.ts decides.
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers, Turns } from '../key.ts';
import { changesOf, hasClasses, wantedRules } from './rules.ts';

/** How long the watch may take to show that a rule is gone, ms. */
const CATCH_UP_MS = 1000;

export function deviceController({
  caches,
  apply,
  turns,
  now,
}: {
  readonly caches: Pick<Caches, 'nodes' | 'policies' | 'rules' | 'poolsOn' | 'devices'>;
  readonly apply: Applier;
  readonly turns: Turns;
  readonly now: () => number;
}): { readonly handlers: Pick<Handlers, 'device-taint'> } {
  /** UID of a rule that was deleted → until when the watch may still show it. */
  const deleted = new Map<string, number>();
  return {
    handlers: {
      async 'device-taint'(name) {
        const { nodes, policies, rules, devices } = caches;
        for (const [uid, until] of deleted) {
          if (until > now()) break;
          deleted.delete(uid);
        }
        const wanted = wantedRules(
          nodes.get(name),
          policies,
          { served: rules.served, hasClasses: hasClasses(devices) },
          caches.poolsOn(name),
        );
        for (const action of changesOf(rules.of(name), wanted)) {
          const until = action.kind === 'delete-device-taint' ? deleted.get(action.uid) : undefined;
          if (until !== undefined) {
            turns.addAfter({ kind: 'device-taint', name }, Math.max(20, until - now()));
            continue;
          }
          await apply.apply(action);
          if (action.kind === 'delete-device-taint') deleted.set(action.uid, now() + CATCH_UP_MS);
        }
      },
    },
  };
}
