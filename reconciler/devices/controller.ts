// DeviceTaintRules of gpu-gate: writes for each node what rules.ts decides.
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers } from '../key.ts';
import { changesOf, wantedRules } from './rules.ts';

export function deviceController({
  caches,
  apply,
}: {
  readonly caches: Pick<Caches, 'nodes' | 'policies' | 'rules' | 'poolsOn'>;
  readonly apply: Applier;
}): { readonly handlers: Pick<Handlers, 'device-taint'> } {
  return {
    handlers: {
      async 'device-taint'(name) {
        const { nodes, policies, rules } = caches;
        const wanted = wantedRules(nodes.get(name), policies, rules.served, caches.poolsOn(name));
        for (const action of changesOf(rules.of(name), wanted)) await apply.apply(action);
      },
    },
  };
}
