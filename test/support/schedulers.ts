// Further schedulers beside the chart's, distinguished by the names that pods give.
import type { SchedulerConfig } from '../../lab/cluster/gate.ts';

/**
 * The chart's configuration under another name, with a change to its extender; no leader election,
 * or they would wait for each other.
 */
export const named =
  (name: string, change: (extender: SchedulerConfig['extenders'][number]) => object | undefined) =>
  (configuration: SchedulerConfig): object => ({
    ...configuration,
    leaderElection: { leaderElect: false },
    profiles: [{ schedulerName: name }],
    extenders: configuration.extenders.flatMap((extender) => change(extender) ?? []),
  });
