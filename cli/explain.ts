// `explain POD`: reads pod, nodes and policies with the caller's own kubeconfig and prints what the gate thinks of them.
import { parsePolicy } from '../core/gpu-policy.ts';
import type { RawPod } from '../core/gpu-request.ts';
import { POLICIES_PATH } from '../core/keys.ts';
import type { NodeView } from '../core/node-proof.ts';
import { explainPod, explanationText } from '../extender/explain.ts';
import { isNotFound, openKube } from '../platform/kube.ts';
import { explainError } from '../platform/log.ts';

export interface ExplainArgs {
  readonly pod: string;
  readonly namespace: string;
  readonly kubeconfig: string;
  readonly operandNamespace: string;
  readonly output: 'text' | 'json';
}

/** Prints the explanation; returns the exit code. */
export async function explain(args: ExplainArgs, print: (text: string) => void): Promise<number> {
  try {
    const kube = openKube({ kubeconfig: args.kubeconfig, userAgent: 'gpu-gate-explain' });
    const [pod, nodes, policies] = await Promise.all([
      kube.request<RawPod>('GET', `/api/v1/namespaces/${args.namespace}/pods/${args.pod}`),
      kube.request<{ items: NodeView[] }>('GET', '/api/v1/nodes', { timeoutMs: 60_000 }),
      kube.request<{ items: unknown[] }>('GET', POLICIES_PATH),
    ]);
    const explanation = explainPod({
      pod,
      nodes: nodes.items,
      policies: new Map(policies.items.map(parsePolicy).map((policy) => [policy.name, policy])),
      operandNamespace: args.operandNamespace,
    });
    print(args.output === 'json' ? `${JSON.stringify(explanation, undefined, 2)}\n` : explanationText(explanation));
    return 0;
  } catch (error) {
    print(
      isNotFound(error)
        ? `not found: ${explainError(error)}; is the pod's name right, its namespace (-n), and is gpu-gate installed?\n`
        : `${explainError(error)}\n`,
    );
    return 1;
  }
}
