// `npm run cluster -- --nodes N --kubernetes VERSION`: the control plane and simulated GPU nodes
// alone, to develop against and to try things.
import { startCluster } from '../lab/cluster/cluster.ts';
import { readArguments } from './arguments.ts';
import { untilStopped } from './stop.ts';

const USAGE = `npm run cluster -- [options]     a control plane with simulated GPU nodes, until Ctrl-C

  --nodes N            simulated GPU nodes, 0 to 5000 (3)
  --kubernetes VERSION   another version of Kubernetes than the default one`;
const { values } = readArguments(USAGE, {
  options: { nodes: { type: 'string', default: '3' }, kubernetes: { type: 'string' } },
});

try {
  const nodes = Number(values.nodes);
  if (!Number.isInteger(nodes) || nodes < 0 || nodes > 5000)
    throw new TypeError(`--nodes ${values.nodes}: write a whole number from 0 to 5000`);
  await untilStopped(async (stopping) => {
    const began = Date.now();
    const cluster = await startCluster({ nodes, kubernetes: values.kubernetes, say: console.log });
    stopping(() => cluster.stop());
    console.log(`ready in ${((Date.now() - began) / 1000).toFixed(1)} s: Kubernetes ${cluster.kubernetes}, ${nodes} simulated GPU nodes

  export KUBECONFIG=${cluster.kubeconfig}
  kubectl get nodes                       (no kubectl? ${cluster.dir} goes at the end, the programs stay in the cache)

Steering of the simulated hardware: lab/cluster/README.md. Ctrl-C stops it and leaves nothing.`);
  });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = error instanceof TypeError ? 2 : 1;
}
