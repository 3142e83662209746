// Packs the image tars of a real node into a folder: NVIDIA's parts, gpu-gate, kube-scheduler. A
// program of its own, so that whoever started it can end it midway together with what it started
// (npm, tar).
import { mkdirSync } from 'node:fs';
import { packGate, packProgram, packStack } from './images.ts';

const [folder, stack, scheduler, version] = process.argv.slice(2);
if (folder === undefined || stack === undefined || scheduler === undefined || version === undefined)
  throw new Error('pack.ts FOLDER STACK KUBE-SCHEDULER VERSION');
mkdirSync(folder, { recursive: true });
packStack(stack, folder);
packGate(folder, 'gpu-gate:0.1.0');
packProgram(scheduler, folder, `registry.k8s.io/kube-scheduler:v${version}`);
