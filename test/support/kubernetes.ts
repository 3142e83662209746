// Which version of Kubernetes control-plane tests run on, for what older ones do not have.
import { fromEnvironment, VERSIONS } from '../../lab/cluster/binaries.ts';

const numberOf = (version: string): number => {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major * 1000 + minor;
};

/** Is the version that tests run on older than this one, such as `1.37`? */
export const isBefore = (version: string): boolean =>
  numberOf(fromEnvironment().kubernetes ?? VERSIONS[0] ?? '') < numberOf(version);

/** The first version whose scheduler gives a device of a class for an extended resource. */
export const MAPS_RESOURCES = '1.36';
/** The first version that serves DeviceTaintRules at `resource.k8s.io/v1`. */
export const TAINTS_DEVICES = '1.37';
