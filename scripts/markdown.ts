// Tables of the pages that scripts generate.

export const cell = (text: string): string =>
  text
    .trim()
    .replaceAll('|', String.raw`\|`)
    .replaceAll('<', '&lt;')
    .replaceAll(/\s*\n\s*/g, ' ');
export const code = (text: string): string =>
  text === '' ? '' : `\`${text.replaceAll('|', String.raw`\|`).replaceAll(/\s*\n\s*/g, ' ')}\``;
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
