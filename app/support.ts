// `support`: joins the bundle with the report of `kubectl gpu-gate`.
import manifest from '../package.json' with { type: 'json' };
import { parsePolicy } from '../core/parse-policy.ts';
import { fleetReport, type RawNode, type RawPodView } from '../kubectl/fleet.ts';
import { statusText } from '../kubectl/render.ts';
import type { SupportArgs } from '../support/args.ts';
import { support } from '../support/command.ts';

export const supportBundle = (
  args: SupportArgs,
  print: (text: string) => void,
  complain: (text: string) => void,
): Promise<number> =>
  support(args, {
    print,
    complain,
    now: Date.now,
    version: manifest.version,
    report: ({ policies, nodes, pods, deployments, unread, now }) => {
      const fleet = fleetReport({
        policies: policies.map(parsePolicy),
        nodes: nodes as readonly RawNode[],
        pods: pods as readonly RawPodView[],
        deployments,
        unread,
        now,
      });
      return {
        fleet,
        status: statusText(fleet, { width: undefined, colour: false, now }),
        failed: fleet.nodes.filter(({ state }) => state === 'failed'),
      };
    },
  });
