// Pieces that the operands' pods share: images, environment, volumes. Pure.
import type { ComponentSpec, EnvVar } from '../../core/gpu-policy.ts';

/** `image:version`, unless the policy gives a whole image reference with a tag or digest of its own. */
export function imageOf(spec: Pick<ComponentSpec, 'image' | 'version'>, repository: string, version: string): string {
  const image = spec.image ?? repository;
  if (/@sha256:|:[^/]+$/.test(image)) return image;
  return `${image}:${spec.version ?? version}`;
}

/** Environment of a container: ours, overridden by name with the policy's. */
export function envOf(ours: Readonly<Record<string, string>>, spec: ComponentSpec): readonly EnvVar[] {
  const merged = { ...ours, ...Object.fromEntries(spec.env.map(({ name, value }) => [name, value])) };
  return Object.entries(merged).map(([name, value]) => ({ name, value }));
}

/** Downward-API variable with the node's name. */
export const NODE_NAME = {
  name: 'NODE_NAME',
  valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'spec.nodeName' } },
} as const;

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
