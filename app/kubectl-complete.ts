#!/usr/bin/env node
// The program `kubectl_complete-gpu_gate`: kubectl runs it when a user presses Tab after
// `kubectl gpu-gate`. It says nothing where the cluster does not answer.
import { kubeconfigsOf } from '../core/kubeconfigs.ts';
import { candidatesFor, completionText } from '../kubectl/candidates.ts';
import { printable } from '../core/printable.ts';
import { itemsOf } from '../platform/items.ts';
import { openKube } from '../platform/kube.ts';

async function namesOf(kind: 'nodes' | 'pods', typed: string): Promise<readonly string[]> {
  const kube = await openKube({ kubeconfig: kubeconfigsOf(process.env), userAgent: 'kubectl-gpu_gate' });
  const path = kind === 'nodes' ? '/api/v1/nodes' : `/api/v1/namespaces/${encodeURIComponent(kube.namespace)}/pods`;
  const items = await itemsOf<{ readonly metadata: { readonly name: string } }>(kube, path);
  return items.map(({ metadata }) => printable(metadata.name)).filter((name) => name.startsWith(typed));
}

const words = process.argv.slice(2);
const { words: known, also } = candidatesFor(words);
const names = also === undefined ? [] : await namesOf(also, words.at(-1) ?? '').catch(() => []);
process.stdout.write(completionText([...known, ...names]));
