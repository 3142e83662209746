// Packs the image tars of a real node into a folder: NVIDIA's parts, gpu-gate, kube-scheduler. A
// separate program, so that its parent can stop it midway together with its children (npm, tar).
import { mkdirSync } from 'node:fs';
import { packDraDriver, packGate, packProgram, packStack } from './images.ts';

const [folder, stack, draDriver, scheduler, version] = process.argv.slice(2);
if (
  folder === undefined ||
  stack === undefined ||
  draDriver === undefined ||
  scheduler === undefined ||
  version === undefined
)
  throw new Error('pack.ts FOLDER STACK DRA-DRIVER KUBE-SCHEDULER VERSION');
mkdirSync(folder, { recursive: true });
packStack(stack, folder);
packDraDriver(draDriver, folder);
packGate(folder, 'gpu-gate:0.1.0');
packProgram(scheduler, folder, `registry.k8s.io/kube-scheduler:v${version}`);
