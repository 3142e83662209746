// Reads raw JSON: each reader returns its default where the value has another type, and never
// throws.

export type Raw = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Raw =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const object = (value: unknown): Raw => (isObject(value) ? value : {});

export const list = <T>(value: unknown): readonly T[] => (Array.isArray(value) ? (value as T[]) : []);

export const text = <T extends string>(value: unknown, otherwise: T): T =>
  typeof value === 'string' ? (value as T) : otherwise;

export const flag = (value: unknown, otherwise: boolean): boolean => (typeof value === 'boolean' ? value : otherwise);
