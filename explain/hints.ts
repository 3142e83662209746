// What `explain` says of a node beside its verdict: since when, and what somebody can do or what is awaited. Pure.
import { GPU_VALIDATED, HOLD, MANAGED, POLICY, PROOF } from '../core/keys.ts';
import {
  NODE_CORDONED,
  NODE_HELD,
  NODE_NOT_READY,
  NODE_REBOOTED,
  NODE_REPLACED,
  parseProof,
  policyOf,
  walkingSince,
  type NodeView,
} from '../gate/node-proof.ts';
import { nodeFacts, REASONS } from '../gate/verdict.ts';

const conditionOf = (node: NodeView, type: string) => node.status?.conditions?.find((c) => c.type === type);

/** Since when the node is open (`because` undefined) or refused, RFC 3339; empty where the node does not tell. */
export function sinceOf(node: NodeView, because: string | undefined): string {
  if (because === undefined) return parseProof(node.metadata.annotations?.[PROOF])?.at ?? '';
  if (because === NODE_NOT_READY) return conditionOf(node, 'Ready')?.lastTransitionTime ?? '';
  return /^GPU (stack|node closed)/.test(because) ? (walkingSince(node) ?? '') : '';
}

/** The command that changes the verdict on nodes, given by name; undefined where none does. */
export function commandFor(because: string): ((nodes: string) => string) | undefined {
  switch (because) {
    case REASONS.unmanaged:
      return (nodes) => `kubectl label node ${nodes} ${MANAGED}=true`;
    case NODE_HELD:
      return (nodes) => `kubectl annotate node ${nodes} ${HOLD}-`;
    case NODE_CORDONED:
      return (nodes) => `kubectl uncordon ${nodes}`;
    default:
      return undefined;
  }
}

/** What somebody can do, or is awaited. The node's condition says it best where the stack is the matter. */
export function nextFor(node: NodeView, because: string): string {
  const { name } = node.metadata;
  const command = commandFor(because);
  if (command !== undefined) return command(name);
  switch (because) {
    case REASONS.otherPolicy:
      return `annotate the pod's template ${POLICY}: ${policyOf(node) ?? ''}, if it may run there`;
    case REASONS.driverOld:
    case REASONS.driverUnknown:
    case REASONS.cuda: {
      const { driver, cuda } = nodeFacts(node);
      return `the node has driver ${driver ?? 'of unknown version'}, CUDA ${cuda ?? 'of unknown version'}`;
    }
    case NODE_NOT_READY: {
      const message = conditionOf(node, 'Ready')?.message ?? '';
      return `${message === '' ? '' : `${message}: `}see kubectl describe node ${name}`;
    }
    // The condition still tells of the time before.
    case NODE_REBOOTED:
    case NODE_REPLACED:
      return 'it is validated anew by itself; if this stays, look whether gpu-gate-reconciler runs';
    default: {
      const message = conditionOf(node, GPU_VALIDATED)?.message ?? '';
      return message === ''
        ? 'the walk begins by itself; if this stays, look whether gpu-gate-reconciler runs'
        : message;
    }
  }
}
