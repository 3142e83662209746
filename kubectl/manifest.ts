// A manifest → the pod that it would make. Pure.
import { parseAllDocuments } from 'yaml';
import { isObject, object, type Raw } from '../core/raw.ts';
import type { RawPod } from '../gate/gpu-request.ts';

/** Where kinds that make pods keep their template. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Deployment: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

const at = (value: Raw, path: readonly string[]): unknown =>
  path.reduce<unknown>((inner, key) => object(inner)[key], value);

/**
 * The first pod of a manifest in YAML or JSON: a Pod, or the template of a workload. Throws one
 * sentence if the text cannot be read or holds none.
 */
export function podOf(text: string, file: string): RawPod {
  const documents = parseAllDocuments(text);
  for (const document of documents) {
    const [problem] = document.errors;
    if (problem !== undefined) throw new Error(`${file} is not YAML: ${problem.message.split('\n')[0] ?? ''}`);
    const value: unknown = document.toJS();
    if (!isObject(value)) continue;
    const kind = String(value['kind']);
    const path = kind === 'Pod' ? [] : TEMPLATES[kind];
    const pod = path === undefined ? undefined : at(value, path);
    if (!isObject(pod)) continue;
    const metadata = object(pod['metadata']);
    const own = object(value['metadata']);
    return { ...pod, metadata: { name: own['name'], namespace: own['namespace'], ...metadata } } as RawPod;
  }
  throw new Error(`${file} holds no Pod, ${Object.keys(TEMPLATES).join(', ')}: give a manifest with one of them`);
}
