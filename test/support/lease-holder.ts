// A participant of a Lease election as a process of its own, to be stopped and continued. Prints a
// line whenever what it believes has changed, and one for every belief right after it was stopped
// for longer than a second.
import { openKube } from '../../platform/kube.ts';
import { leaseElection } from '../../platform/lease.ts';
import { jsonLog } from '../../platform/log.ts';

const [kubeconfig = '', name = '', identity = ''] = process.argv.slice(2);
const leader = leaseElection({
  kube: await openKube({ kubeconfig, userAgent: 'test' }),
  namespace: 'default',
  name,
  identity,
  durationMs: 1500,
  log: jsonLog('error', () => undefined),
});
let before: boolean | undefined;
let last = Date.now();
setInterval(() => {
  const { held } = leader;
  const stopped = Date.now() - last > 1000;
  last = Date.now();
  if (held !== before || stopped) console.log(`${stopped ? 'continued' : 'held'} ${held}`);
  before = held;
}, 10);
await leader.run(new AbortController().signal);
