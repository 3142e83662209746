// Reads an AdmissionReview without `metadata.managedFields`: in every CREATE review, a third of a
// large body, and nothing that we look at. Pure.
//
// Why bytes may be searched in place of parsing. In JSON a quote inside a string follows a
// backslash, so the quote of `,"x` is the end of a string or its beginning; after an end no letter
// can follow. So `,"managedFields":[` is a key with a list, wherever it is found. The list is taken
// to end at the first `]` after it, if `},"spec":{` follows, which is no part of a string for the
// same reason. That bracket closes the list itself, or one within it; in the latter case what is
// left out opens more than it closes, the rest is no JSON, and the whole is parsed. So what is left
// out is exactly the content of one list of that name, and no rule of ours reads such a list. A `]`
// inside a string of the list only means that nothing is left out.

const OBJECT = '"object":{';
const LIST = ',"managedFields":[';
const END = ']},"spec":{';

/**
 * The text with one list of managed fields emptied; undefined where it is not as the API server
 * writes it.
 */
export function withoutManagedFields(bytes: Buffer): string | undefined {
  // What stands before the object (userInfo) may hold anything.
  const object = bytes.indexOf(OBJECT);
  const list = object < 0 ? -1 : bytes.indexOf(LIST, object);
  if (list < 0) return undefined;
  const content = list + LIST.length;
  const end = bytes.indexOf(']', content);
  if (end < 0 || bytes.toString('latin1', end, end + END.length) !== END) return undefined;
  return bytes.toString('utf8', 0, content) + bytes.toString('utf8', end);
}

/** Throws where the bytes are no JSON. */
export function parseReview(bytes: Buffer): unknown {
  const text = withoutManagedFields(bytes);
  if (text !== undefined) {
    try {
      return JSON.parse(text);
    } catch {
      // Not as we took it to be: the whole says what it is.
    }
  }
  return JSON.parse(bytes.toString('utf8'));
}
