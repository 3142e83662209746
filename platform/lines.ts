// Splits a stream of bytes into lines. Only \n ends one: readline would also split at U+2028, which
// JSON may hold as it is.
const NEWLINE = 0x0a;

export async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  // Bytes are put together before they are read as text, so that no character is cut in two.
  let parts: Uint8Array[] = [];
  for await (const chunk of chunks) {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      yield Buffer.concat([...parts, chunk.subarray(from, at)]).toString();
      parts = [];
      from = at + 1;
    }
    if (from < chunk.length) parts.push(chunk.subarray(from));
  }
  if (parts.length > 0) yield Buffer.concat(parts).toString();
}
