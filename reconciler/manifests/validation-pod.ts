// The pods that prove a node: vectorAdd with all GPUs, asking Kubernetes for none
// (driver-validation), and vectorAdd in an unprivileged pod that asks for one GPU as users do, by
// resource (device-plugin-validation) or by claim (dra-validation). The name carries a hash of what
// the round proves, so that old evidence is never taken for new.
import { digestOf } from '../../core/digest.ts';
import { driverMounts } from '../../core/driver-mounts.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { COMPONENT, MANAGED_BY, PART_OF, PRODUCT, REVISION } from '../../core/keys.ts';
import { POD_COMPONENT } from '../../core/components.ts';
import type { Manifest } from '../actions.ts';
import { runtimeClass } from './parts.ts';

export interface ValidationInput {
  readonly kind: 'driver-validation' | 'device-plugin-validation' | 'dra-validation';
  readonly policy: GpuPolicy;
  readonly namespace: string;
  readonly node: { readonly name: string; readonly uid: string };
  /** Digest of everything that the round is to prove, boot ID included. */
  readonly round: string;
  readonly attempt: number;
  /** Extended resource to ask for; device-plugin-validation only. */
  readonly resource?: string | undefined;
  readonly schedulerName?: string | undefined;
  /** ResourceClaimTemplate to ask by; dra-validation only. */
  readonly claimTemplate?: string | undefined;
}

/**
 * Runs the program it is given and says in one line of JSON what came of it. Nothing else can write
 * that line, so that a pod that never ran, or was killed, has no verdict. Exit codes of a shell
 * that found no program, and of a process that another one killed, are not one either. The line
 * reaches the pod's status: reading logs would need another permission. Of a long output it has the
 * end, and before it the first line that reports an error.
 */
const WRAPPER = String.raw`lines=
command -v stdbuf >/dev/null 2>&1 && lines='stdbuf -oL'
out=$($lines "$@" 2>&1)
code=$?
printf '%s\n' "$out"
verdict=fail
case $code in
0) verdict=none; case $out in *'Test PASSED'*) verdict=pass ;; esac ;;
125|126|127|137|143) verdict=none ;;
esac
first=
[ "$(printf '%s' "$out" | wc -c)" -gt 1200 ] && first=$(printf '%s\n' "$out" | grep -m 1 -iE 'error|fail|panic|fatal|cannot|could not|unable|denied|not found|no such' | head -c 300)
words=$({ [ -z "$first" ] || printf '%s\n' "$first"; printf '%s' "$out" | tail -c 1200; } | tr '\001-\011\013-\037\177-\377' ' ' | sed -e 's/[\\"]/\\&/g' -e 's/$/\\n/' | tr -d '\n')
printf '{"gpuGate":1,"verdict":"%s","exit":%s,"words":"%s"}\n' "$verdict" "$code" "$words" > /dev/termination-log
exit $code`;
const VECTOR_ADD = ['/cuda-samples/vectorAdd'];

/**
 * The limit is for a program that opens a CUDA context on each GPU of an 8-GPU node. What it is
 * made of, in resident host memory: libcuda with one context takes 114 MiB (published measurement,
 * pytorch issue 113326: 438,632 kB with a context and 322,040 kB without), so 8 of them 912 MiB at
 * most; TensorFlow with its own libraries took "more than 2 GB" on 8 GPUs (tensorflow issue 36459),
 * and stock vectorAdd opens one context. It pins no memory and its kernel is a few kB. 2 GiB are
 * 256 MiB a GPU for 8 GPUs and still 128 for 16. A limit reserves nothing; what it is for is a
 * validation image that goes astray. Not measured on an 8-GPU node.
 */
const RESOURCES = { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '2Gi' } } as const;

/** CDI brings the driver in with the device. */
const NO_MOUNTS: ReturnType<typeof driverMounts> = { volumes: [], env: [] };

/** The pod of one try of one round. */
export function validationPod(input: ValidationInput): Manifest {
  const { kind, policy, node } = input;
  const { validation, injection } = policy.spec;
  const hash = digestOf([node.uid, input.round, String(input.attempt)].join('\n'), 10);
  const asksKubernetes = kind !== 'driver-validation';
  const asksByClaim = kind === 'dra-validation';
  // What users' pods will have is what must be proven; the driver's own proof needs it where no
  // runtime brings the driver in.
  const bringsDriver = !asksByClaim || injection.claimPods === 'Full';
  const mounts = bringsDriver ? driverMounts(policy) : NO_MOUNTS;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: `${kind}-${node.name.slice(0, 40).replace(/[^a-z0-9]{1,40}$/, '')}-${hash}`,
      namespace: input.namespace,
      labels: { [PART_OF]: PRODUCT, [COMPONENT]: POD_COMPONENT[kind], [REVISION]: hash, [MANAGED_BY]: PRODUCT },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: node.name, uid: node.uid }],
    },
    spec: {
      restartPolicy: 'Never',
      priorityClassName: 'gpu-gate-validation',
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 5,
      // As users' pods: where none is injected for them, the proof has none either.
      ...(!bringsDriver || (asksKubernetes && injection.runtimeClassName === '') ? {} : runtimeClass(policy)),
      ...(input.schedulerName === undefined ? {} : { schedulerName: input.schedulerName }),
      ...(validation.imagePullSecrets.length === 0
        ? {}
        : { imagePullSecrets: validation.imagePullSecrets.map((name) => ({ name })) }),
      tolerations: [{ operator: 'Exists' }],
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: [node.name] }] }],
          },
        },
      },
      ...(asksByClaim ? { resourceClaims: [{ name: 'gpu', resourceClaimTemplateName: input.claimTemplate }] } : {}),
      containers: [
        {
          name: 'vector-add',
          image: validation.image,
          imagePullPolicy: validation.imagePullPolicy ?? 'IfNotPresent',
          command: ['sh', '-c', WRAPPER, 'sh', ...(validation.command.length === 0 ? VECTOR_ADD : validation.command)],
          env: [
            ...(asksKubernetes
              ? []
              : [
                  { name: 'NVIDIA_VISIBLE_DEVICES', value: 'all' },
                  { name: 'NVIDIA_DRIVER_CAPABILITIES', value: 'compute,utility' },
                ]),
            ...mounts.env,
          ],
          resources: {
            requests: { ...RESOURCES.requests, ...validation.resources.requests },
            limits: {
              ...RESOURCES.limits,
              ...validation.resources.limits,
              ...(input.resource === undefined ? {} : { [input.resource]: '1' }),
            },
            ...(asksByClaim ? { claims: [{ name: 'gpu' }] } : {}),
          },
          securityContext: asksKubernetes
            ? { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } }
            : { privileged: true },
          terminationMessagePolicy: 'FallbackToLogsOnError',
          volumeMounts: mounts.volumes.map(({ name, mountPath, readOnly }) => ({ name, mountPath, readOnly })),
        },
      ],
      volumes: mounts.volumes.map(({ name, hostPath, type }) => ({ name, hostPath: { path: hostPath, type } })),
    },
  };
}
