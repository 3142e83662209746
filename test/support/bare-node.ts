// Inside a machine: a kubelet and containerd with one running pod, until it is stopped.
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../lab/cluster/gate.ts';
import { STACK_IMAGES } from '../../lab/real-node/images.ts';
import { startBareCluster } from '../../lab/real-node/world.ts';

const cluster = await startBareCluster(console.log);
const container = { name: 'pause', image: STACK_IMAGES.pause, imagePullPolicy: 'Never' };
const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'pause' }, spec: { containers: [container] } };
await until('a pod to run', async () => {
  await cluster.kubectl(['create', '-f', '-'], JSON.stringify(pod));
  return (await cluster.kubectl(['get', 'pod', 'pause', '-o', 'jsonpath={.status.phase}'])).stdout === 'Running';
});
console.log('a pod runs');
await sleep(600_000);
