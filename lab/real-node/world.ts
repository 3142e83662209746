// A whole real cluster of one node: control plane, kubelet and containerd, NVIDIA's parts as our
// stand-in plays them, gpu-gate in the cluster as pods of its own chart from the image that is
// shipped. Runs inside machine.ts only.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  CONTROL_PLANE,
  ensureBinaries,
  ensureOwnProgram,
  fromEnvironment,
  REAL_NODE,
  type Binaries,
} from '../cluster/binaries.ts';
import { startControlPlane, type ControlPlane } from '../cluster/control-plane.ts';
import { until } from '../cluster/gate.ts';
import { STACK_IMAGES } from './images.ts';
import { furnish, MACHINE, runInMachine } from './machine.ts';
import { startRealNode, type RealNode } from './node.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const ADDRESS = '10.99.0.1';
export const NODE = 'real-1';

const realNodeBinaries = (say: (line: string) => void): Promise<Binaries> =>
  ensureBinaries({ modules: [...CONTROL_PLANE, ...REAL_NODE], ...fromEnvironment(), say });

/** In the machine's folder. */
const IMAGES = 'images';

/**
 * Runs a Node.js program in a machine of its own. What needs a network (programs, packages) is
 * built before: inside is none.
 */
export async function runOnRealNode(args: readonly string[], say: (line: string) => void): Promise<number> {
  const binaries = await realNodeBinaries(say);
  const stack = await ensureOwnProgram(join(import.meta.dirname, 'stack'), 'stack', { ...fromEnvironment(), say });
  say('packing image tars: NVIDIA’s parts, gpu-gate, kube-scheduler');
  return runInMachine(process.execPath, args, (dir) => [
    process.execPath,
    join(import.meta.dirname, 'pack.ts'),
    join(dir, IMAGES),
    stack,
    binaries('dra-driver'),
    binaries('kube-scheduler'),
    binaries.kubernetes,
  ]);
}

export interface RealCluster extends ControlPlane {
  readonly node: RealNode;
  /** Changes the chart's policy, as `helm upgrade` does. */
  setPolicy(spec: object): Promise<void>;
}

/**
 * The GPUPolicy of the real node: only images, and how long they play, differ from what production
 * runs.
 */
export const policySpec = (
  faults: Readonly<Partial<Record<'toolkit' | 'driver' | 'devicePlugin', string>>> = {},
): object => {
  const fault = (part: 'toolkit' | 'driver' | 'devicePlugin'): { name: string; value: string }[] =>
    faults[part] === undefined ? [] : [{ name: 'STACK_FAULT', value: faults[part] }];
  return {
    components: {
      toolkit: { image: STACK_IMAGES.toolkit, env: fault('toolkit') },
      driver: {
        image: STACK_IMAGES.driver,
        version: '595.91.07',
        manager: { image: STACK_IMAGES.manager },
        env: [{ name: 'STACK_COMPILE_SECONDS', value: '2' }, { name: 'STACK_GPUS', value: '2' }, ...fault('driver')],
      },
      devicePlugin: { image: STACK_IMAGES.devicePlugin, env: fault('devicePlugin') },
      dcgmExporter: { image: STACK_IMAGES.dcgmExporter },
    },
    validation: {
      image: STACK_IMAGES.validation,
      backoff: { initial: '2s', max: '5s' },
      timeouts: {
        toolkit: '12s',
        driver: '60s',
        driverValidation: '30s',
        devicePlugin: '30s',
        devicePluginValidation: '30s',
      },
    },
    injection: {
      schedulerName: 'gpu-gate-scheduler',
      driverVolumes: [
        {
          name: 'gpu-gate-driver',
          hostPath: '/run/nvidia/driver',
          mountPath: '/usr/local/nvidia',
          type: 'Directory',
          readOnly: true,
        },
      ],
      env: [{ name: 'LD_LIBRARY_PATH', value: '/usr/local/nvidia/usr/lib/x86_64-linux-gnu' }],
    },
  };
};

/** Control plane, node and images; gpu-gate is not installed. */
export async function startBareCluster(
  say: (line: string) => void,
): Promise<ControlPlane & { readonly node: RealNode }> {
  const machine = process.env[MACHINE];
  if (machine === undefined)
    throw new Error(
      'a real node runs inside runOnRealNode only: npm test -- real-node, or npm run demo -- --real-node',
    );
  const binaries = await realNodeBinaries(say);
  furnish(machine, ADDRESS);
  const cp = await startControlPlane({
    binaries,
    say,
    address: ADDRESS,
    users: [{ name: `system:node:${NODE}`, groups: ['system:nodes'] }],
    apiServerArgs: ['--enable-aggregator-routing=true', '--kubelet-preferred-address-types=InternalIP'],
  });
  try {
    const node = await startRealNode({
      cp,
      binaries,
      name: NODE,
      address: ADDRESS,
      images: ['stack.tar', 'dra-driver.tar', 'gate.tar', 'kube-scheduler.tar'].map((tar) =>
        join(machine, IMAGES, tar),
      ),
      say,
    });
    return { ...cp, node };
  } catch (error) {
    await cp.stop();
    throw error;
  }
}

/** The same with claims in place of the device plugin. */
export const claimPolicySpec = (): object => {
  const spec = policySpec() as { components: object; validation: { timeouts: object } };
  return {
    ...spec,
    allocation: 'DRA',
    components: { ...spec.components, draDriver: { image: STACK_IMAGES.draDriver } },
    validation: {
      ...spec.validation,
      timeouts: { ...spec.validation.timeouts, draDriver: '60s', draValidation: '30s' },
    },
  };
};

/** Starts all of it; resolves when every pod of gpu-gate is Ready. */
export async function startRealCluster(say: (line: string) => void, spec = policySpec()): Promise<RealCluster> {
  const cp = await startBareCluster(say);
  try {
    // NFD's part: it labels what it finds on the PCI bus.
    await cp.kubectl(['label', 'node', NODE, 'feature.node.kubernetes.io/pci-10de.present=true']);
    const helm = async (verb: 'install' | 'upgrade', spec: object): Promise<void> => {
      const file = join(cp.dir, 'values.json');
      writeFileSync(
        file,
        JSON.stringify({
          image: { tag: '0.1.0', pullPolicy: 'Never' },
          replicas: 2,
          // Of the only node: its webhook is away exactly when its pods are replaced after a
          // reboot.
          webhook: { failurePolicy: 'Fail' },
          reconcilerReplicas: 1,
          // It finds the extender with no address set here and no DNS in this cluster.
          scheduler: { replicas: 1 },
          policy: { spec },
        }),
      );
      const { code, stderr } = await cp.helm([
        verb,
        'gpu-gate',
        join(ROOT, 'deploy/chart'),
        '--namespace',
        'gpu-gate',
        '--create-namespace',
        '--values',
        file,
      ]);
      if (code !== 0) throw new Error(`helm ${verb} failed: ${stderr.trim()}`);
    };
    say('helm install gpu-gate');
    await helm('install', spec);
    await until(
      'every pod of gpu-gate to be Ready',
      async () => {
        const { stdout } = await cp.kubectl(['get', 'deployments', '-n', 'gpu-gate', '-o', 'json']);
        const { items } = JSON.parse(stdout) as {
          items: { spec: { replicas: number }; status: { readyReplicas?: number } }[];
        };
        return items.length === 3 && items.every(({ spec, status }) => status.readyReplicas === spec.replicas);
      },
      90_000,
    );
    return { ...cp, setPolicy: (spec) => helm('upgrade', spec) };
  } catch (error) {
    await cp.stop();
    throw error;
  }
}
