// NVIDIA's driver container, which compiles and loads the kernel modules, and before it
// k8s-driver-manager, which unloads old ones. Driver-manager must not evict on its own: there is
// one owner of evictions, and that is the reconciler.
import { digestOf } from '../../core/digest.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { containerExtras, envOf, hostPath, imageOf, NODE_NAME, pullPolicy, pullSecrets } from './parts.ts';

/** The driver that is deployed where the policy names none. */
const DRIVER_VERSION = '595.91.07';
const DEFAULT_OS = 'ubuntu24.04';

/**
 * Init container that loads what the driver's modules need first, from the host's own tree; a
 * missing one ends it, by name.
 */
export const PREREQUISITES = 'prerequisites';
const LOAD = [
  'for module in i2c_core ipmi_msghandler; do',
  // By the host's own shell: some images' chroot would run a modprobe of its own.
  '  said=$(chroot /host /bin/sh -c "modprobe $module" 2>&1) && continue',
  '  [ -d "/sys/module/$module" ] && continue',
  '  echo "$module: $said"; exit 1',
  'done',
].join('\n');

/**
 * Module loaded, its daemons up, the driver answers: then the contract file that NVIDIA's other
 * parts wait for.
 */
const startup = (driverRoot: string): string =>
  [
    'set -e',
    'test -f /sys/module/nvidia/refcnt',
    'if [ -f /run/nvidia/validations/.driver-daemons-status ]; then grep -q Ready /run/nvidia/validations/.driver-daemons-status; fi',
    'nvidia-smi >/dev/null',
    'mkdir -p /run/nvidia/validations',
    `printf "IS_HOST_DRIVER=false\\nNVIDIA_DRIVER_ROOT=${driverRoot}\\nDRIVER_ROOT_CTR_PATH=/driver-root\\nNVIDIA_DEV_ROOT=${driverRoot}\\nDEV_ROOT_CTR_PATH=/driver-root\\n" > /run/nvidia/validations/driver-ready`,
  ].join('\n');

/** The driver's version as the policy has it, without what the image's tag adds. */
export const driverVersion = (policy: GpuPolicy): string =>
  (policy.spec.components.driver.version ?? DRIVER_VERSION).split('-')[0] ?? DRIVER_VERSION;

/**
 * The driver's image. The stock one is one per operating system: `595.91.07-rhel9` in the policy
 * names another one.
 */
export function driverImage(policy: GpuPolicy): string {
  const spec = policy.spec.components.driver;
  const version = spec.version ?? DRIVER_VERSION;
  const tagged = version.includes('-') ? version : `${version}-${DEFAULT_OS}`;
  return imageOf({ ...spec, version: tagged }, 'nvcr.io/nvidia/driver', tagged);
}

/** The init container that unloads an earlier driver. */
export const DRIVER_MANAGER = 'k8s-driver-manager';

export function driver(policy: GpuPolicy): Readonly<Record<string, unknown>> {
  const spec = policy.spec.components.driver;
  const { hostPaths } = policy.spec;
  const image = driverImage(policy);
  // An unchanged restart must not reload the module: driver-manager compares this with what it
  // finds on the node.
  const digest = digestOf(JSON.stringify([image, spec.env, spec.args]), 16);
  const bidirectional = { mountPropagation: 'Bidirectional' };
  return {
    hostPID: true,
    ...pullSecrets(spec),
    initContainers: [
      {
        name: PREREQUISITES,
        image,
        ...pullPolicy(spec),
        command: ['sh', '-c', LOAD],
        securityContext: { privileged: true },
        volumeMounts: [{ name: 'host-root', mountPath: '/host', readOnly: true, mountPropagation: 'HostToContainer' }],
      },
      {
        name: DRIVER_MANAGER,
        image: imageOf(spec.manager, 'nvcr.io/nvidia/cloud-native/k8s-driver-manager', 'v0.12.0'),
        ...pullPolicy(spec),
        command: ['driver-manager'],
        args: ['uninstall_driver'],
        env: [
          NODE_NAME,
          { name: 'ENABLE_GPU_POD_EVICTION', value: 'false' },
          { name: 'ENABLE_AUTO_DRAIN', value: 'false' },
          { name: 'NVIDIA_VISIBLE_DEVICES', value: 'void' },
          { name: 'DRIVER_CONFIG_DIGEST', value: digest },
          {
            name: 'OPERATOR_NAMESPACE',
            valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } },
          },
        ],
        securityContext: { privileged: true },
        volumeMounts: [
          { name: 'run-nvidia', mountPath: '/run/nvidia', ...bidirectional },
          { name: 'host-root', mountPath: '/host', readOnly: true, mountPropagation: 'HostToContainer' },
          { name: 'host-sys', mountPath: '/sys' },
        ],
      },
    ],
    containers: [
      {
        name: 'driver',
        image,
        command: ['nvidia-driver'],
        ...containerExtras({ ...spec, args: spec.args.length === 0 ? ['init'] : spec.args }),
        env: [
          NODE_NAME,
          ...envOf({ KERNEL_MODULE_TYPE: 'auto', DRIVER_CONFIG_DIGEST: digest, NVIDIA_VISIBLE_DEVICES: 'void' }, spec),
        ],
        securityContext: { privileged: true, seLinuxOptions: { level: 's0' } },
        startupProbe: {
          exec: { command: ['sh', '-c', startup(hostPaths.driverRoot)] },
          initialDelaySeconds: 5,
          periodSeconds: 10,
          timeoutSeconds: 60,
          failureThreshold: 180,
        },
        lifecycle: {
          preStop: {
            exec: {
              command: [
                '/bin/sh',
                '-c',
                'rm -f /run/nvidia/validations/driver-ready /run/nvidia/validations/.driver-ctr-ready',
              ],
            },
          },
        },
        volumeMounts: [
          { name: 'run-nvidia', mountPath: '/run/nvidia', ...bidirectional },
          { name: 'run-nvidia-fabricmanager', mountPath: '/run/nvidia-fabricmanager' },
          { name: 'var-log', mountPath: '/var/log' },
          { name: 'host-os-release', mountPath: '/host-etc/os-release', readOnly: true },
          { name: 'firmware-search-path', mountPath: '/sys/module/firmware_class/parameters/path' },
          { name: 'sysfs-system', mountPath: '/sys/devices/system' },
          { name: 'nvidia-firmware', mountPath: '/lib/firmware' },
        ],
      },
    ],
    volumes: [
      hostPath('run-nvidia', hostPaths.run),
      hostPath('run-nvidia-fabricmanager', '/run/nvidia-fabricmanager'),
      hostPath('var-log', '/var/log', 'Directory'),
      hostPath('host-os-release', '/etc/os-release', 'File'),
      hostPath('firmware-search-path', '/sys/module/firmware_class/parameters/path', ''),
      // Whole: memory/auto_online_blocks in it is not on every kernel, and nobody can create it
      // there.
      hostPath('sysfs-system', '/sys/devices/system', 'Directory'),
      hostPath('nvidia-firmware', `${hostPaths.driverRoot}/lib/firmware`),
      hostPath('host-root', hostPaths.root, 'Directory'),
      hostPath('host-sys', '/sys', 'Directory'),
    ],
  };
}
