// GPUs by claim on a real kubelet and containerd: a DRA driver that registers with the kubelet,
// publishes two devices, prepares claims and injects devices by CDI. In the order in which a node
// lives: it is proven by claim, used, loses one device and then the other way to lose one, reboots
// and is opted out.
import { readdirSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTemplate, devicesOf, exactly } from '../../lab/cluster/devices.ts';
import { STACK_IMAGES } from '../../lab/real-node/images.ts';
import { MACHINE } from '../../lab/real-node/machine.ts';
import { observe, type Pod } from '../../lab/real-node/observe.ts';
import { claimPolicySpec, NODE, startRealCluster, type RealCluster } from '../../lab/real-node/world.ts';
import { isBefore, TAINTS_DEVICES } from '../support/kubernetes.ts';

const API = '/apis/resource.k8s.io/v1';
const DEVICE_FILES = '/run/nvidia/driver/dev';
const CLOSED = 'gpu-gate.dev/not-open all';

interface ClaimPod extends Pod {
  readonly status: Pod['status'] & { readonly resourceClaimStatuses?: { readonly resourceClaimName?: string }[] };
}

describe.skipIf(process.env[MACHINE] === undefined || isBefore(TAINTS_DEVICES))(
  'a real node that serves GPUs by claim',
  () => {
    let cluster: RealCluster;
    let see: ReturnType<typeof observe>;

    beforeAll(async () => {
      cluster = await startRealCluster(console.log, claimPolicySpec());
      see = observe(cluster);
      await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
    });
    afterAll(async () => cluster?.stop());

    const pod = async (name: string): Promise<ClaimPod> =>
      cluster.admin.request('GET', `/api/v1/namespaces/default/pods/${name}`);
    const isReady = ({ status }: Pod): boolean =>
      status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true;
    /** A pod of one GPU that serves what it sees of it. */
    const user = (name: string, query: Readonly<Record<string, string>> = {}): Promise<ClaimPod> =>
      cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
        query,
        body: {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name },
          spec: {
            terminationGracePeriodSeconds: 1,
            resourceClaims: [{ name: 'device', resourceClaimTemplateName: 'gpu' }],
            containers: [
              {
                name: 'app',
                image: STACK_IMAGES.app,
                imagePullPolicy: 'Never',
                readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
                resources: { claims: [{ name: 'device' }] },
              },
            ],
          },
        },
      });
    const ready = (name: string): Promise<ClaimPod> =>
      see.awaits(`${name} to be Ready`, async () => {
        const now = await pod(name);
        return isReady(now) && now;
      });
    const refused = (name: string): Promise<unknown> =>
      see.awaits(`${name} to wait`, async () => {
        const { spec, status } = await pod(name);
        if (spec.nodeName !== undefined) throw new Error(`${name} was bound`);
        return status.conditions?.some(({ reason }) => reason === 'Unschedulable');
      });
    const deviceOf = async (name: string): Promise<string> => {
      const claim = (await pod(name)).status.resourceClaimStatuses?.[0]?.resourceClaimName ?? '';
      return (await devicesOf(cluster.admin, claim))[0] ?? '';
    };
    const remove = async (...names: readonly string[]): Promise<void> => {
      await see.kubectl('delete', 'pod', ...names, '--now');
    };
    /** Of gpu-gate, as `KEY DEVICE`. */
    const rules = async (): Promise<readonly string[]> =>
      (
        await cluster.admin.request<{
          items: { spec: { deviceSelector: { device?: string }; taint: { key: string } } }[];
        }>('GET', `${API}/devicetaintrules`)
      ).items.map(({ spec }) => `${spec.taint.key} ${spec.deviceSelector.device ?? 'all'}`);
    const rulesAre = (...expected: readonly string[]): Promise<unknown> =>
      see.awaits(`rules: ${expected.join(', ') || 'none'}`, async () => {
        const now = await rules();
        return now.length === expected.length && expected.every((rule) => now.includes(rule));
      });
    const slices = async (): Promise<number> =>
      (await cluster.admin.request<{ items: unknown[] }>('GET', `${API}/resourceslices`)).items.length;
    const says = (text: string): Promise<unknown> =>
      see.awaits(`the condition to say "${text}"`, async () => (await see.condition())?.message.includes(text));
    const specsOfClaims = (): readonly string[] =>
      readdirSync('/run/cdi').filter((file) => file.startsWith('k8s.gpu.nvidia.com-claim_'));
    const makeDevice = (name: string, major: string, minor: string): void => {
      rmSync(`${DEVICE_FILES}/${name}`, { force: true });
      const { status, stderr } = spawnSync('mknod', ['-m', '666', `${DEVICE_FILES}/${name}`, 'c', major, minor]);
      if (status !== 0) throw new Error(`mknod: ${stderr.toString()}`);
    };

    it('a user’s claim pod waits while the node is not open, behind a rule for all devices', async () => {
      await user('first');
      await see.kubectl('label', 'node', NODE, 'gpu-gate.dev/managed=true');
      await rulesAre(CLOSED);
      await refused('first');
    });

    it('the node is proven: the driver registers with the kubelet, and a claim of gpu-gate is prepared', async () => {
      const proof = (await see.validated()) as unknown as { components: object };
      expect(Object.keys(proof.components)).toEqual(['toolkit', 'driver', 'dra-driver']);
      expect(await slices()).toBe(1);
      expect((await see.node()).status.allocatable['nvidia.com/gpu']).toBeUndefined();
      await rulesAre();
    });

    it('the pod that waited starts there: its program found the driver’s library and opened its device', async () => {
      expect((await ready('first')).spec.nodeName).toBe(NODE);
    });

    it('a device that the driver reports unhealthy is left out alone; the other serves on', async () => {
      const lost = await deviceOf('first');
      rmSync(`${DEVICE_FILES}/nvidia${lost.slice('gpu-'.length)}`);
      await says(`${lost} is left out: unhealthy by the kubelet: GPU is lost`);
      await rulesAre(`gpu-gate.dev/device-failed ${lost}`);
      await remove('first');
      await user('second');
      await ready('second');
      expect(await deviceOf('second')).not.toBe(lost);
      await user('third');
      await refused('third');
      expect(await see.state()).toBe('validated');
      await remove('second', 'third');
    });

    it('a device on which vectorAdd fails is left out alone; the other serves on', async () => {
      // Of a driver that is not there: it cannot be opened.
      makeDevice('nvidia0', '240', '0');
      makeDevice('nvidia1', '1', '3');
      await see.kubectl('delete', 'pod', '-n', 'gpu-gate-operands', '-l', 'app.kubernetes.io/component=dra-driver');
      await says('gpu-0 is left out: vectorAdd failed on it');
      await says('open /dev/nvidia0: no such device or address');
      await see.validated();
      await rulesAre('gpu-gate.dev/device-failed gpu-0');
      await user('fourth');
      await ready('fourth');
      expect(await deviceOf('fourth')).toBe('gpu-1');
      await user('fifth');
      await refused('fifth');
    });

    it('rebooted: closed by a rule until it is proven again; then both devices serve', async () => {
      const boot = await cluster.node.reboot();
      await rulesAre(CLOSED);
      expect((await see.validated(150)).boot).toBe(boot);
      await rulesAre();
      await see.awaits('two pods to be Ready', async () => isReady(await pod('fourth')) && isReady(await pod('fifth')));
    });

    it('opted out: pods, slices, rules and the specs of claims are gone', async () => {
      await remove('fourth', 'fifth');
      await see.kubectl('label', 'node', NODE, 'gpu-gate.dev/managed-');
      await see.awaits('the state label to go', async () => (await see.state()) === undefined, 90);
      await see.awaits(
        'operands to go',
        async () => (await see.kubectl('get', 'daemonsets,pods', '-n', 'gpu-gate-operands', '-o', 'name')) === '',
      );
      await see.awaits('the kubelet to take the slices away', async () => (await slices()) === 0, 90);
      expect(await rules()).toEqual([]);
      expect(specsOfClaims()).toEqual([]);
    });
  },
);
