// `npm run demo -- --real-node`: the chain on a real kubelet and containerd, step by step;
// every step is checked. Runs in a machine of its own (lab/real-node/machine.ts), where NVIDIA's
// parts are played by a stand-in through the real interfaces.
import { STACK_IMAGES } from '../lab/real-node/images.ts';
import { gpuDeployment, hostTraces, observe } from '../lab/real-node/observe.ts';
import { NODE, policySpec, startRealCluster } from '../lab/real-node/world.ts';
import { storyTeller } from './story.ts';

const say = (line: string): void => console.log(line);
const cluster = await startRealCluster(say);
const see = observe(cluster);
const story = storyTeller(say, () => see.kubectl('get', 'pods', '-A'));
const readyApps = async (): Promise<string | undefined> => {
  const ready = (await see.pods('default', 'app=train')).filter(({ status }) =>
    status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
  );
  return ready.length === 0 ? undefined : ready.map(({ metadata }) => `${metadata.name} is Ready`).join('\n');
};
const validated = async (): Promise<string | undefined> => {
  const proof = await see.proof();
  const { metadata, status } = await see.node();
  return proof?.boot === status.nodeInfo.bootID && metadata.annotations['gpu-gate.dev/closed'] === undefined
    ? `proof of ${proof.at}, boot ${proof.boot}`
    : undefined;
};

story.chapter('gpu-gate runs in the cluster, from its chart and its image, on a real kubelet');
story.shows(await see.kubectl('get', 'pods', '-n', 'gpu-gate', '-o', 'wide'));

story.chapter('A driver that leaves no driver root: the walk stops where that shows');
await cluster.setPolicy(policySpec({ driver: 'no-root' }));
story.shows(await see.kubectl('label', 'node', NODE, 'gpu-gate.dev/managed=true'));
await story.holds(
  'driver-validation fails, and says what CUDA said',
  async () => {
    const condition = await see.condition();
    return condition?.reason === 'DriverValidationFailedVectorAdd' ? condition.message : undefined;
  },
  90,
);

story.chapter('A user asks for a GPU meanwhile');
await see.create(gpuDeployment('train', STACK_IMAGES.app));
await story.holds('the pod waits, and an Event says what for', async () => {
  const events = await see.kubectl('get', 'events', '--field-selector', 'reason=WaitingForGPUNode');
  return events.includes('driver-validation') ? events : undefined;
});

story.chapter('The driver works again');
await cluster.setPolicy(policySpec());
await story.holds('the node is proven', validated, 120);
await story.holds('the pod runs, and is Ready', readyApps, 60);
story.shows(
  JSON.stringify(await see.ask((await see.pods('default', 'app=train'))[0]?.status.podIP ?? ''), undefined, 1),
);

story.chapter('The machine is rebooted');
story.shows(`new boot ID ${await cluster.node.reboot()}`);
await story.holds('the node is proven again, from scratch', validated, 150);
await story.holds('a pod of the Deployment is Ready again', readyApps, 90);

story.chapter('The node is opted out');
await see.kubectl('delete', 'deployment', 'train');
story.shows(await see.kubectl('label', 'node', NODE, 'gpu-gate.dev/managed-'));
await story.holds(
  'nothing of gpu-gate is left on the node or its host',
  async () => {
    const { labels } = (await see.node()).metadata;
    const left = [...hostTraces(), ...Object.keys(labels).filter((key) => key.startsWith('gpu-gate.dev/'))];
    return left.length === 0 ? '' : undefined;
  },
  120,
);
say('\nevery step held');
await cluster.stop();
