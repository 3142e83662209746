// Pieces that the operands' pods share: images, environment, volumes. Pure.
import type { ComponentSpec, EnvVar, GpuPolicy } from '../../core/gpu-policy.ts';

/** The handler that the toolkit adds to the container runtime. */
export const HANDLER = 'nvidia';

/**
 * `image:version`, unless the policy gives a whole image reference with a tag or digest of its own.
 */
export function imageOf(spec: Pick<ComponentSpec, 'image' | 'version'>, repository: string, version: string): string {
  const image = spec.image ?? repository;
  const name = image.slice(image.lastIndexOf('/') + 1);
  if (image.includes('@sha256:') || /:./.test(name)) return image;
  return `${image}:${spec.version ?? version}`;
}

/** Downward-API variable with the node's name. */
export const NODE_NAME = {
  name: 'NODE_NAME',
  valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'spec.nodeName' } },
} as const;

/**
 * Environment of a container: ours, overridden by name with the policy's, but for the node's name:
 * that is a fact, and a variable twice is refused by the API server.
 */
export function envOf(ours: Readonly<Record<string, string>>, spec: ComponentSpec): readonly EnvVar[] {
  const merged = { ...ours, ...Object.fromEntries(spec.env.map(({ name, value }) => [name, value])) };
  return Object.entries(merged)
    .filter(([name]) => name !== NODE_NAME.name)
    .map(([name, value]) => ({ name, value }));
}

export const pullSecrets = (spec: ComponentSpec): Readonly<Record<string, unknown>> =>
  spec.imagePullSecrets.length === 0 ? {} : { imagePullSecrets: spec.imagePullSecrets.map((name) => ({ name })) };

export const pullPolicy = (spec: ComponentSpec): Readonly<Record<string, unknown>> => ({
  imagePullPolicy: spec.imagePullPolicy ?? 'IfNotPresent',
});

export const containerExtras = (spec: ComponentSpec): Readonly<Record<string, unknown>> => ({
  ...pullPolicy(spec),
  ...(spec.args.length === 0 ? {} : { args: spec.args }),
  ...(spec.resources === undefined ? {} : { resources: spec.resources }),
});

/** A hostPath volume. */
export const hostPath = (
  name: string,
  path: string,
  type = 'DirectoryOrCreate',
): Readonly<Record<string, unknown>> => ({ name, hostPath: { path, type } });

/**
 * The runtime class of operands and of the driver's proof. Where the policy injects none, ours
 * exists only with our toolkit; with another one the runtime that is the host's default must do.
 */
export const runtimeClass = ({ spec }: GpuPolicy): { readonly runtimeClassName?: string } => {
  const { injection, components } = spec;
  if (injection.runtimeClassName !== '') return { runtimeClassName: injection.runtimeClassName };
  return components.toolkit.mode === 'managed' && components.toolkit.enabled ? { runtimeClassName: HANDLER } : {};
};
