// Is a parsed object of the shape that the webhook's rules read? An API server sends no other. A
// caller that is not an API server may send anything, and no rule must have to expect it. What is
// wrong is described by our own words and positions, never by the caller's text. Pure.
import { isObject, type Raw } from '../core/raw.ts';

/**
 * Returns `undefined` if the value is right, otherwise the place below the value and what is wrong
 * there.
 */
type Shape = (value: unknown) => string | undefined;

const text: Shape = (value) => (typeof value === 'string' ? undefined : ' is not a string');
const flag: Shape = (value) => (typeof value === 'boolean' ? undefined : ' is not true or false');
const object: Shape = (value) => (isObject(value) ? undefined : ' is not an object');
const texts: Shape = (value) =>
  !isObject(value)
    ? ' is not an object'
    : Object.values(value).every((each) => typeof each === 'string')
      ? undefined
      : ' has a value that is not a string';

const list =
  (of: Shape): Shape =>
  (value) => {
    if (!Array.isArray(value)) return ' is not a list';
    for (const [i, each] of value.entries()) {
      const wrong = of(each);
      if (wrong !== undefined) return `[${i}]${wrong}`;
    }
    return undefined;
  };

/**
 * An object whose named fields have these shapes; null and absent are always right, and other
 * fields are not looked at.
 */
const fields = (shapes: Readonly<Record<string, Shape>>): Shape => {
  const entries = Object.entries(shapes);
  return (value) => {
    if (!isObject(value)) return ' is not an object';
    for (const [name, shape] of entries) {
      const field = value[name];
      if (field === undefined || field === null) continue;
      const wrong = shape(field);
      if (wrong !== undefined) return `.${name}${wrong}`;
    }
    return undefined;
  };
};

const containers = list(
  fields({
    name: text,
    env: list(fields({ name: text })),
    envFrom: list(object),
    resources: fields({ limits: object, requests: object, claims: list(object) }),
    volumeMounts: list(fields({ name: text, mountPath: text, subPath: text, subPathExpr: text })),
    volumeDevices: list(fields({ devicePath: text })),
  }),
);

const pod = fields({
  metadata: fields({ labels: texts, annotations: texts }),
  spec: fields({
    containers,
    initContainers: containers,
    volumes: list(fields({ name: text, hostPath: fields({ path: text }) })),
    readinessGates: list(fields({ conditionType: text })),
    tolerations: list(object),
    nodeSelector: texts,
    nodeName: text,
    runtimeClassName: text,
    schedulerName: text,
    hostUsers: flag,
  }),
});

/**
 * What of an object is not as a Pod's is, such as `spec.containers[3].env is not a list`;
 * `undefined` if nothing.
 */
export const misshapen = (object: Raw): string | undefined => pod(object)?.slice(1);
