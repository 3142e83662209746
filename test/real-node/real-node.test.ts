// The whole chain on a real kubelet and containerd, in the order in which a node lives: it fails at
// each stage in turn, is repaired, proven, used, disturbed, rebooted, and opted out. gpu-gate runs
// in the cluster, from its own chart and image.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { STACK_IMAGES } from '../../lab/real-node/images.ts';
import { MACHINE, MISSING_MODULE } from '../../lab/real-node/machine.ts';
import { gpuDeployment, hostPaths, hostTraces, observe, type Pod } from '../../lab/real-node/observe.ts';
import { NODE, policySpec, startRealCluster, type RealCluster } from '../../lab/real-node/world.ts';

// Outside a machine of its own nothing here may run: it would write to this machine's paths. `npm
// test` says why it cannot make one.
describe.skipIf(process.env[MACHINE] === undefined)('a real node', () => {
  let cluster: RealCluster;
  let see: ReturnType<typeof observe>;
  /** Of the host, before the node was opted in. */
  let untouched: readonly string[];

  beforeAll(async () => {
    cluster = await startRealCluster(console.log);
    see = observe(cluster);
    untouched = hostPaths();
  });
  afterAll(async () => cluster?.stop());

  const app = async (): Promise<Pod> => {
    const living = (await see.pods('default', 'app=app')).filter(
      ({ metadata, status }) => metadata.deletionTimestamp === undefined && status.phase !== 'Failed',
    );
    const [pod] = living;
    if (pod === undefined) throw new Error('the app has no pod');
    return pod;
  };
  const isReady = (pod: Pod): boolean =>
    pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
  const failure = async (reason: string): Promise<string> =>
    see.awaits(`${NODE} to fail with ${reason}`, async () => {
      const condition = await see.condition();
      return condition?.reason === reason && condition.message;
    });

  /** Awaits that the node is closed and open again, with a proof of this boot all the while. */
  const closedThenOpen = async (meanwhile: () => Promise<void> = async () => undefined): Promise<void> => {
    const { bootID } = (await see.node()).status.nodeInfo;
    const proofs = new Set<string | undefined>();
    const isClosed = async (): Promise<boolean> => {
      proofs.add((await see.proof())?.boot);
      await meanwhile();
      return (await see.node()).metadata.annotations['gpu-gate.dev/closed'] !== undefined;
    };
    await see.awaits('the node to be closed', isClosed);
    await see.awaits('the node to be open again', async () => !(await isClosed()));
    expect(proofs).toEqual(new Set([bootID]));
  };
  /** The pods that proved that the plugin gives GPUs, which asked for one as users do. */
  const pluginValidations = async (): Promise<readonly string[]> =>
    (await see.operand('device-plugin-validation')).map(({ metadata }) => metadata.uid);

  it('gpu-gate runs in the cluster: read-only, as its user, with its ServiceAccounts', async () => {
    const pods = await see.pods('gpu-gate');
    expect(pods.map(({ spec }) => spec.containers[0]?.image ?? '').toSorted()).toEqual([
      'gpu-gate:0.1.0',
      'gpu-gate:0.1.0',
      'gpu-gate:0.1.0',
      `registry.k8s.io/kube-scheduler:v${cluster.kubernetes}`,
    ]);
    const { stdout } = await cluster.kubectl([
      'get',
      'pods',
      '-n',
      'gpu-gate',
      '-o',
      'jsonpath={range .items[*]}{.spec.serviceAccountName} {.spec.containers[0].securityContext.runAsUser} {.spec.containers[0].securityContext.readOnlyRootFilesystem}{"\\n"}{end}',
    ]);
    expect(new Set(stdout.trim().split('\n'))).toEqual(
      new Set(['gpu-gate 65532 true', 'gpu-gate-reconciler 65532 true', 'gpu-gate-scheduler 65532 true']),
    );
  });

  it('helm test finds webhook and extender by their Services, in a cluster without DNS', async () => {
    const { code, stdout, stderr } = await cluster.helm(['test', 'gpu-gate', '--namespace', 'gpu-gate']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/TEST SUITE: +gpu-gate-test[^]*Phase: +Succeeded/);
  });

  it('no handler in containerd: the walk stops at toolkit, and says so', async () => {
    await cluster.setPolicy(policySpec({ toolkit: 'no-handler' }));
    await see.kubectl('label', 'node', NODE, 'gpu-gate.dev/managed=true');
    expect(await failure('ToolkitFailedRuntimeHandlerMissing')).toContain('has no handler nvidia');
    expect(await see.operand('driver')).toEqual([]);
  });

  it('a kernel module that the driver needs is missing: the walk stops at driver, and names it', async () => {
    writeFileSync(MISSING_MODULE, 'ipmi_msghandler');
    // From here on the handler is there by its name, with plain runc behind it: nobody can know
    // yet.
    await cluster.setPolicy(policySpec({ toolkit: 'wrong-handler', driver: 'crash' }));
    expect(await failure('DriverFailedKernelModuleMissing')).toContain('Module ipmi_msghandler not found');
    rmSync(MISSING_MODULE);
  });

  it('a driver that crashes: the walk stops at driver, with its last words', async () => {
    expect(await failure('DriverFailedCrashLoop')).toMatch(/exit code 1: modprobe: FATAL: Module nvidia not found/);
    expect(await see.operand('driver-validation')).toEqual([]);
  });

  it('another runtime behind the handler: the walk stops at driver-validation, and the contract file is there', async () => {
    await cluster.setPolicy(policySpec({ toolkit: 'wrong-handler' }));
    expect(await failure('DriverValidationFailedVectorAdd')).toContain(
      'not started by the nvidia runtime: another one is behind the handler;',
    );
    expect((await see.node()).status.runtimeHandlers?.map(({ name }) => name)).toContain('nvidia');
    expect(readFileSync('/run/nvidia/validations/driver-ready', 'utf8').trim().split('\n')).toEqual([
      'IS_HOST_DRIVER=false',
      'NVIDIA_DRIVER_ROOT=/run/nvidia/driver',
      'DRIVER_ROOT_CTR_PATH=/driver-root',
      'NVIDIA_DEV_ROOT=/run/nvidia/driver',
      'DEV_ROOT_CTR_PATH=/driver-root',
    ]);
  });

  it('no driver root: the walk stops at driver-validation, with vectorAdd’s own words', async () => {
    await cluster.setPolicy(policySpec({ driver: 'no-root' }));
    await see.awaits('the walk to go on with the repaired toolkit', async () =>
      (await see.condition())?.message.includes('no driver root'),
    );
    expect(await failure('DriverValidationFailedVectorAdd')).toContain(
      'no driver root: the nvidia runtime found no /usr/lib/x86_64-linux-gnu/libcuda.so.1 to add;',
    );
    expect(await see.operand('device-plugin')).toEqual([]);
  });

  it('a device plugin that gives no device: the walk stops at device-plugin-validation', async () => {
    await cluster.setPolicy(policySpec({ devicePlugin: 'no-device' }));
    expect(await failure('DevicePluginValidationFailedVectorAdd')).toContain(
      'no device was given: there is no /dev/nvidia*;',
    );
    expect((await see.node()).status.allocatable['nvidia.com/gpu']).toBe('2');
    expect(await see.proof()).toBeUndefined();
  });

  it('a user’s GPU pod waits, with the reason in an Event, until the node is proven; then it runs with all that it needs', async () => {
    await see.create(gpuDeployment('app', STACK_IMAGES.app));
    await see.awaits('the Event of the waiting pod', async () =>
      (await see.kubectl('get', 'events', '--field-selector', 'reason=WaitingForGPUNode')).includes(
        'device-plugin-validation',
      ),
    );
    expect((await app()).spec.nodeName).toBeUndefined();

    await cluster.setPolicy(policySpec());
    const proof = await see.validated();
    const pod = await see.awaits('the app to be Ready', async () => {
      const now = await app();
      return isReady(now) && now;
    });
    const bound = pod.status.conditions?.find(({ type }) => type === 'PodScheduled')?.lastTransitionTime ?? '';
    // The condition has whole seconds.
    expect(Date.parse(bound)).toBeGreaterThanOrEqual(Math.floor(Date.parse(proof.at) / 1000) * 1000);
    expect(pod.spec).toMatchObject({
      nodeName: NODE,
      runtimeClassName: 'nvidia',
      schedulerName: 'gpu-gate-scheduler',
      readinessGates: [{ conditionType: 'gpu-gate.dev/node-validated' }],
    });
    expect(await see.ask(pod.status.podIP ?? '')).toEqual({
      devices: [expect.stringMatching(/^\/dev\/nvidia[01]$/)],
      visible: expect.stringMatching(/^GPU-nvidia[01]$/),
      ldLibraryPath: '/usr/local/nvidia/usr/lib/x86_64-linux-gnu',
      driverVolume: '595.91.07',
      runtimeInjected: '595.91.07',
    });
  });

  it('the stages came in order, by the start times of real containers', async () => {
    const started = async (component: string): Promise<string> => {
      const ours = await see.operand(component);
      const times = ours.flatMap(({ status }) =>
        (status.containerStatuses ?? []).map(
          ({ state }) => state.running?.startedAt ?? state.terminated?.startedAt ?? '',
        ),
      );
      return times.toSorted().at(-1) ?? '';
    };
    const times = [];
    for (const component of [
      'container-toolkit',
      'driver',
      'driver-validation',
      'device-plugin',
      'device-plugin-validation',
    ])
      times.push(await started(component));
    expect(times).not.toContain('');
    expect(times).toEqual(times.toSorted());
  });

  it('one of two GPUs is lost: one is offered, the node stays open; it comes back', async () => {
    const offers = async (): Promise<string> => {
      const { allocatable, capacity } = (await see.node()).status;
      return `${allocatable['nvidia.com/gpu']} of ${capacity['nvidia.com/gpu']}`;
    };
    const proof = await see.proof();
    rmSync('/run/nvidia/driver/dev/nvidia1');
    await see.awaits('one GPU to be offered', async () => (await offers()) === '1 of 2');
    expect((await see.node()).metadata.annotations['gpu-gate.dev/closed']).toBeUndefined();
    expect(await see.state()).toBe('validated');
    expect(await see.proof()).toEqual(proof);
    spawnSync('mknod', ['-m', '666', '/run/nvidia/driver/dev/nvidia1', 'c', '1', '3']);
    await see.awaits('both GPUs to be offered', async () => (await offers()) === '2 of 2');
    expect(await see.proof()).toEqual(proof);
  });

  it('only closed, the node keeps the Service’s endpoint; without its proof it loses it', async () => {
    const before = await app();
    expect(await see.endpoints('app')).toEqual([before.status.podIP]);
    const seen: string[] = [];
    expect(kill('nvidia-device-plugin')).toBe(1);
    await closedThenOpen(async () => void seen.push((await see.endpoints('app')).join()));
    expect(new Set(seen)).toEqual(new Set([before.status.podIP]));

    const driver = (await see.operand('driver'))[0]?.metadata.name ?? '';
    await see.kubectl('delete', 'pod', '-n', 'gpu-gate-operands', driver, '--wait=false');
    await see.awaits('the proof to be withdrawn', async () => (await see.proof()) === undefined);
    await see.awaits('the endpoint to go', async () => (await see.endpoints('app')).length === 0);
    await see.validated();
    await see.awaits('the endpoint to come back', async () => (await see.endpoints('app')).length === 1);
    expect((await app()).metadata.uid).toBe(before.metadata.uid);
  });

  it('kubelet restarted: closed until the plugin has registered and gives a device again; the proof and the user’s container stay', async () => {
    const container = async (): Promise<string | undefined> => (await app()).status.containerStatuses?.[0]?.containerID;
    const [before, validations] = [await container(), await pluginValidations()];
    await Promise.all([cluster.node.restartKubelet(), closedThenOpen()]);
    const fresh = (await pluginValidations()).filter((uid) => !validations.includes(uid));
    expect(fresh.length).toBeGreaterThan(0);
    await see.awaits('the app to be Ready', async () => isReady(await app()));
    expect(await container()).toBe(before);
  });

  it('containerd restarted: the proof and the user’s container stay, and a new GPU pod starts', async () => {
    const container = async (): Promise<string | undefined> => (await app()).status.containerStatuses?.[0]?.containerID;
    const [before, proof] = [await container(), await see.proof()];
    await cluster.node.restartContainerd();
    await see.create(gpuDeployment('late', STACK_IMAGES.app));
    await see.awaits('the second GPU to be in use', async () =>
      (await see.pods('default', 'app=late')).some((pod) => isReady(pod)),
    );
    expect(await see.proof()).toEqual(proof);
    expect(await container()).toBe(before);
  });

  it('rebooted: no pod is bound between the new boot ID and the new proof, and a pod that the kubelet rejects is reported', async () => {
    // One more than there are GPUs: it waits when the node goes down, and would be bound as soon as
    // anybody let it.
    await see.kubectl('scale', 'deployment', 'app', '--replicas=2');
    await see.awaits('a third GPU pod to wait', async () =>
      (await see.pods('default', 'app=app')).some(({ spec }) => spec.nodeName === undefined),
    );
    const boot = await cluster.node.reboot();
    await see.awaits('the startup taint', async () =>
      (await see.node()).spec.taints?.some(({ key }) => key.startsWith('startup-taint')),
    );
    // The node carries the startup taint, and all of gpu-gate is lost.
    for (const namespace of ['gpu-gate', 'gpu-gate-operands'])
      await see.kubectl('delete', 'pods', '--all', '-n', namespace, '--force', '--grace-period=0');
    const proof = await see.validated(150);
    expect(proof.boot).toBe(boot);
    await see.awaits('two GPU pods to be Ready', async () => {
      const all = [...(await see.pods('default', 'app=app')), ...(await see.pods('default', 'app=late'))];
      return all.filter(isReady).length === 2;
    });

    const timeline = auditOf(cluster.auditLog);
    const booted = timeline.findIndex(({ nodeBoot }) => nodeBoot === boot);
    const proven = timeline.findIndex(({ proofBoot }) => proofBoot === boot);
    expect([booted > 0, proven > booted]).toEqual([true, true]);
    const between = timeline.slice(booted, proven).filter(({ boundUser }) => boundUser !== undefined);
    expect(between).toEqual([]);
    expect(timeline.slice(proven).filter(({ boundUser }) => boundUser !== undefined).length).toBeGreaterThan(0);

    const rejected = (await see.pods('default')).filter(({ status }) => status.reason === 'UnexpectedAdmissionError');
    expect(rejected.length).toBeGreaterThan(0);
    for (const { metadata } of rejected) {
      await see.awaits(`${metadata.name}, rejected by the kubelet, to be reported`, async () => {
        const fields = `reason=GPUPodRejected,involvedObject.uid=${metadata.uid}`;
        return (await see.kubectl('get', 'events', '--field-selector', fields, '-o', 'name')).trim() !== '';
      });
    }
  });

  it('opted out: waits for the last GPU pod, then everything of gpu-gate is gone from the node and the host', async () => {
    expect(hostTraces().length).toBeGreaterThan(3);
    await see.kubectl('label', 'node', NODE, 'gpu-gate.dev/managed-');
    await see.awaits('the opt-out to wait for GPU pods', async () => {
      const condition = await see.condition();
      return condition?.reason === 'Removing' && /GPU pod/.test(condition.message);
    });
    expect(await see.endpoints('app')).not.toEqual([]);
    await see.kubectl('delete', 'deployment', 'app', 'late');
    await see.awaits('the state label to go', async () => (await see.state()) === undefined, 90);
    await see.awaits(
      'operands to go',
      async () => (await see.kubectl('get', 'daemonsets,pods', '-n', 'gpu-gate-operands', '-o', 'name')) === '',
    );
    const { metadata, spec, status } = await see.node();
    const ours = Object.keys({ ...metadata.labels, ...metadata.annotations }).filter((key) =>
      key.startsWith('gpu-gate.dev/'),
    );
    expect(ours).toEqual([]);
    expect(status.conditions.some(({ type }) => type === 'GPUValidated')).toBe(false);
    expect(spec.taints ?? []).toEqual([]);
    expect(hostTraces()).toEqual([]);
    // As docs/real-node.md lists it.
    expect(hostPaths().filter((path) => !untouched.includes(path))).toEqual([
      '/run/nvidia',
      '/run/nvidia-fabricmanager',
      '/run/nvidia/driver',
      '/run/nvidia/driver/lib',
      '/run/nvidia/driver/lib/firmware',
      '/run/nvidia/toolkit',
      '/run/nvidia/validations',
      '/usr/local/nvidia',
      '/usr/local/nvidia/toolkit',
      '/usr/local/nvidia/toolkit/driver-root',
      '/usr/local/nvidia/toolkit/nvidia-container-runtime',
    ]);
    await see.awaits('the handler to be gone from the runtime', async () => {
      const { runtimeHandlers = [] } = (await see.node()).status;
      return !runtimeHandlers.some(({ name }) => name === 'nvidia');
    });
  });
});

/** Kills a container's process, as the kernel would. Returns how many there were. */
function kill(program: string): number {
  const found = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0]?.endsWith(`/${program}`) === true;
      } catch {
        return false;
      }
    });
  for (const pid of found) process.kill(Number(pid), 'SIGKILL');
  return found.length;
}

interface Seen {
  readonly nodeBoot?: string;
  readonly proofBoot?: string;
  readonly boundUser?: string;
}

/**
 * What the API server did, in its own order: boot IDs and proofs written to the node, users' pods
 * bound.
 */
function auditOf(file: string): readonly Seen[] {
  interface Entry {
    objectRef: { resource: string; subresource?: string; namespace?: string; name?: string };
    responseObject?: {
      metadata?: { annotations?: Record<string, string> };
      status?: { nodeInfo?: { bootID: string } };
    };
  }
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Entry)
    .map(({ objectRef, responseObject }): Seen => {
      if (objectRef.resource === 'pods' && objectRef.subresource === 'binding' && objectRef.namespace === 'default')
        return { boundUser: objectRef.name ?? '' };
      if (objectRef.resource !== 'nodes') return {};
      const proof = responseObject?.metadata?.annotations?.['gpu-gate.dev/proof'];
      return {
        nodeBoot: responseObject?.status?.nodeInfo?.bootID ?? '',
        proofBoot: proof === undefined ? '' : (JSON.parse(proof) as { boot: string }).boot,
      };
    });
}
