// GPU pods in the form that their usual authors and operators give them; written for these tests.
const gpu = (count: string, more: object = {}): object => ({
  resources: { limits: { 'nvidia.com/gpu': count, ...more } },
});
const pod = (metadata: object, spec: object): object => ({ apiVersion: 'v1', kind: 'Pod', metadata, spec });
const SHM = { name: 'dshm', emptyDir: { medium: 'Memory', sizeLimit: '8Gi' } };
const port = (name: string, containerPort: number): object => ({ name, containerPort });

/** By name of its golden file. */
export const WORKLOADS: Readonly<Record<string, object>> = {
  'tensorflow-notebook': pod(
    { name: 'notebook-0', labels: { app: 'notebook', statefulset: 'notebook', 'notebook-name': 'notebook' } },
    {
      securityContext: { fsGroup: 100 },
      containers: [
        {
          name: 'notebook',
          image: 'example/tensorflow-notebook:2.20',
          workingDir: '/home/jovyan',
          env: [{ name: 'NB_PREFIX', value: '/notebook/team/notebook' }],
          ports: [port('notebook-port', 8888)],
          volumeMounts: [
            { name: 'dshm', mountPath: '/dev/shm' },
            { name: 'home', mountPath: '/home/jovyan' },
          ],
          ...gpu('1', { memory: '16Gi' }),
        },
      ],
      volumes: [SHM, { name: 'home', persistentVolumeClaim: { claimName: 'notebook' } }],
    },
  ),
  'pytorchjob-worker': pod(
    {
      name: 'train-worker-0',
      labels: {
        'training.kubeflow.org/job-name': 'train',
        'training.kubeflow.org/replica-type': 'worker',
        'training.kubeflow.org/replica-index': '0',
      },
    },
    {
      restartPolicy: 'OnFailure',
      initContainers: [
        {
          name: 'init-pytorch',
          image: 'example/alpine:3',
          command: ['sh', '-c', 'until nslookup train-master-0; do sleep 1; done'],
        },
      ],
      containers: [
        {
          name: 'pytorch',
          image: 'example/pytorch:2.9',
          args: ['--backend', 'nccl'],
          env: [
            { name: 'MASTER_ADDR', value: 'train-master-0' },
            { name: 'WORLD_SIZE', value: '4' },
            { name: 'RANK', value: '1' },
          ],
          ports: [port('pytorchjob-port', 23456)],
          ...gpu('8'),
        },
      ],
    },
  ),
  'vllm-server': pod(
    { name: 'vllm', labels: { app: 'vllm' } },
    {
      containers: [
        {
          name: 'vllm',
          image: 'example/vllm-openai:0.11',
          command: ['/bin/sh', '-c', 'vllm serve model --tensor-parallel-size 2'],
          env: [
            { name: 'HF_HOME', value: '/cache' },
            { name: 'LD_LIBRARY_PATH', value: '/opt/vllm/lib' },
          ],
          ports: [port('http', 8000)],
          readinessProbe: { httpGet: { path: '/health', port: 8000 }, periodSeconds: 5 },
          volumeMounts: [
            { name: 'cache', mountPath: '/cache' },
            { name: 'dshm', mountPath: '/dev/shm' },
          ],
          ...gpu('2', { cpu: '10', memory: '20Gi' }),
        },
      ],
      volumes: [{ name: 'cache', emptyDir: {} }, SHM],
    },
  ),
  'ray-worker': pod(
    {
      name: 'ray-gpu-worker-x',
      labels: { 'ray.io/cluster': 'ray', 'ray.io/node-type': 'worker', 'ray.io/group': 'gpu' },
    },
    {
      initContainers: [
        {
          name: 'wait-gcs-ready',
          image: 'example/ray:2.50',
          command: ['/bin/bash', '-c', 'until ray health-check; do sleep 5; done'],
        },
        { name: 'log-shipper', image: 'example/fluent-bit:4', restartPolicy: 'Always' },
      ],
      containers: [
        {
          name: 'ray-worker',
          image: 'example/ray:2.50-gpu',
          args: ['ulimit -n 65536; ray start --block --num-gpus=1'],
          lifecycle: { preStop: { exec: { command: ['/bin/sh', '-c', 'ray stop'] } } },
          volumeMounts: [{ name: 'shared-mem', mountPath: '/dev/shm' }],
          ...gpu('1'),
        },
      ],
      volumes: [{ name: 'shared-mem', emptyDir: { medium: 'Memory' } }],
    },
  ),
  triton: pod(
    { name: 'triton', labels: { app: 'triton' } },
    {
      runtimeClassName: 'nvidia',
      tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' }],
      containers: [
        {
          name: 'triton',
          image: 'example/tritonserver:25.10-py3',
          args: ['tritonserver', '--model-repository=/models'],
          ports: [port('http', 8000), port('grpc', 8001), port('metrics', 8002)],
          readinessProbe: { httpGet: { path: '/v2/health/ready', port: 'http' } },
          volumeMounts: [{ name: 'models', mountPath: '/models' }],
          ...gpu('1'),
        },
        { name: 'exporter', image: 'example/exporter:1' },
      ],
      volumes: [{ name: 'models', configMap: { name: 'models' } }],
    },
  ),
  'cuda-sample': pod(
    { name: 'cuda-vectoradd' },
    {
      restartPolicy: 'OnFailure',
      containers: [{ name: 'cuda-vectoradd', image: 'example/cuda-sample:vectoradd', ...gpu('1') }],
    },
  ),
  // Reads all GPUs through NVML and asks for none, as exporters do: the API server does not call
  // us.
  'nvml-daemonset': pod(
    { name: 'nvml-exporter-x', labels: { app: 'nvml-exporter' } },
    {
      runtimeClassName: 'nvidia',
      tolerations: [{ operator: 'Exists' }],
      containers: [
        {
          name: 'exporter',
          image: 'example/nvml-exporter:1',
          env: [
            { name: 'NVIDIA_VISIBLE_DEVICES', value: 'all' },
            { name: 'NVIDIA_DRIVER_CAPABILITIES', value: 'utility' },
          ],
        },
      ],
    },
  ),
};
