// Parses an AdmissionReview without the content of `metadata.managedFields`, which is a third of a
// large body and which no rule reads. It recognises only the layout that API servers write, in
// which `managedFields` is the last field of `metadata` and `spec` follows. Any other body is
// parsed whole. Pure.
//
// Why the bytes may be searched. In JSON a quote inside a string follows a backslash, so none of
// the marks below can lie in a string. `,"managedFields":[` is therefore a key with a list. The
// search takes the first `]` that follows, if `},"spec":{` stands behind it. This bracket closes
// the list itself or a list within it. In the second case the text that remains has a `]` too many,
// so it is not JSON and the whole body is parsed.

const OBJECT = '"object":{';
const LIST = ',"managedFields":[';
const END = ']},"spec":{';

/**
 * The two parts of the body around the managed fields; `undefined` if the layout is not an API
 * server's.
 */
export function withoutManagedFields(bytes: Buffer): readonly Buffer[] | undefined {
  // The part before the object (userInfo) may hold anything.
  const object = bytes.indexOf(OBJECT);
  const list = object < 0 ? -1 : bytes.indexOf(LIST, object);
  if (list < 0) return undefined;
  const content = list + LIST.length;
  const end = bytes.indexOf(']', content);
  if (end < 0 || bytes.toString('latin1', end, end + END.length) !== END) return undefined;
  return [bytes.subarray(0, content), bytes.subarray(end)];
}

/** `tooDeep` is asked about what is parsed, before it is. */
export function parseReview(
  bytes: Buffer,
  tooDeep: (parts: readonly Buffer[]) => boolean,
): { readonly value: unknown } | 'too-deep' | 'not-json' {
  // The layout of the first may turn out to be another one after all.
  for (const parts of [withoutManagedFields(bytes), [bytes]]) {
    if (parts === undefined) continue;
    if (tooDeep(parts)) return 'too-deep';
    try {
      return { value: JSON.parse(parts.map((part) => part.toString('utf8')).join('')) };
    } catch {
      // The next one, or none.
    }
  }
  return 'not-json';
}
