// A participant of a Lease election as a process of its own, to be stopped and continued. Prints a
// line whenever what it believes has changed, and what it believes right after it was continued.
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
const look = (): void => {
  if (leader.held !== before) console.log(`held ${leader.held}`);
  before = leader.held;
};
setInterval(look, 10);
process.on('SIGCONT', () => console.log(`continued ${leader.held}`));
await leader.run(new AbortController().signal);
