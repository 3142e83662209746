// Makes foreign text safe to show: what authors, kubelets and API servers wrote reaches terminals,
// Events and logs through this function alone.

/** Control characters, what hides or reverses text, broken surrogates, line and paragraph ends. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
/** Line ends and tabs, which separate words. */
const SPACES = /[\t\n\v\f\r\u0085\u2028\u2029]+/g;

const escaped = (characters: string): string =>
  Array.from(
    { length: characters.length },
    (_, i) => String.raw`\u` + characters.charCodeAt(i).toString(16).padStart(4, '0'),
  ).join('');

/**
 * One line of text: line ends become a space, every other invisible character its `\u001b`-like
 * escape. Longer text is cut to `max` characters.
 */
export const printable = (text: string, max = 4096): string => {
  const line = text
    .slice(0, max + 1)
    .replace(SPACES, ' ')
    .replace(UNPRINTABLE, escaped);
  if (line.length <= max && text.length <= max) return line;
  // A cut between the two halves of one character would leave half of it.
  return `${line.slice(0, max - 1).replace(/[\uD800-\uDBFF]$/, '')}…`;
};

/**
 * A value as indented JSON whose strings hold no invisible character; JSON reads the escapes back.
 */
export const printableJson = (value: unknown, indent = 2): string =>
  JSON.stringify(value, undefined, indent).replace(UNPRINTABLE, (character) =>
    // The line ends are the indentation's: those within strings are escaped already.
    character === '\n' ? character : escaped(character),
  );
