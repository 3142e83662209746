// ResourceSlices: which nodes have GPUs by Dynamic Resource Allocation. Such a node is a GPU node
// though its kubelet offers no GPU. Pure.
import { list, object, text } from '../core/raw.ts';

/** NVIDIA's own DRA driver. */
const DRIVER = 'gpu.nvidia.com';

export const SLICES_PATH = '/apis/resource.k8s.io/v1/resourceslices';

/** A slice with GPUs of one node. */
export interface SliceView {
  readonly node: string;
}

/** Raw ResourceSlice → its node; `undefined` if it holds no GPU of a node by name. */
export function trimSlice(raw: unknown): SliceView | undefined {
  const spec = object(object(raw)['spec']);
  const node = text(spec['nodeName'], '');
  return spec['driver'] === DRIVER && node !== '' && list(spec['devices']).length > 0 ? { node } : undefined;
}
