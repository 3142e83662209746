// Draws the dashboard from a Prometheus as one SVG, as far as lines and numbers go: for the docs,
// and to look at it without a Grafana.

import type { Dashboard, Panel } from './dashboard.ts';
import type { Series } from './prometheus.ts';
import { withoutVariables } from './promql.ts';

type Ask = (expr: string, minutes: number) => Promise<readonly Series[]>;

const [COLUMN, ROW] = [56, 32];
const COLORS = [
  '#3b7dd8',
  '#e08a1e',
  '#3f9b4f',
  '#c0392b',
  '#8e5bb5',
  '#7f6a5a',
  '#d36aa8',
  '#6b7a86',
  '#a8a020',
  '#20a0a8',
];

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const label = (format: string, metric: Series['metric']): string =>
  format.replaceAll(/{{(\w+)}}/g, (_, name: string) => metric[name] ?? '');
function shown(value: number, unit: string): string {
  if (unit !== 's') return String(Number(value.toPrecision(3)));
  if (value >= 172_800) return `${Math.round(value / 86_400)} d`;
  if (value >= 7200) return `${Math.round(value / 3600)} h`;
  return value >= 1 || value <= 0 ? `${Number(value.toPrecision(3))} s` : `${Number((value * 1000).toPrecision(3))} ms`;
}

interface Line {
  readonly name: string;
  readonly points: readonly (readonly [at: number, value: number])[];
}

function panelText(panel: Panel, lines: readonly Line[], from: number, to: number): string {
  const { gridPos, type, title } = panel;
  const unit = panel.fieldConfig?.defaults.unit ?? 'short';
  const [left, top, width, height] = [gridPos.x * COLUMN, gridPos.y * ROW, gridPos.w * COLUMN, gridPos.h * ROW];
  const text = (x: number, y: number, more: string, words: string): string =>
    `<text x="${(left + x).toFixed(1)}" y="${(top + y).toFixed(1)}" ${more}>${escaped(words)}</text>`;
  if (type === 'row') return text(8, 22, 'font-size="15" font-weight="bold"', title);
  const frame = `<rect x="${left + 4}" y="${top + 4}" width="${width - 8}" height="${height - 8}" rx="4" fill="white" stroke="#ccc"/>`;
  const head = text(14, 24, 'font-weight="bold"', title);
  if (lines.length === 0)
    return [frame, head, text(width / 2, height / 2 + 8, 'fill="#999" text-anchor="middle"', 'no data')].join('');
  const last = ({ points }: Line): number => points.at(-1)?.[1] ?? 0;
  const [first] = lines;
  if (type === 'stat' && first !== undefined)
    return [
      frame,
      head,
      text(width / 2, height / 2 + 26, 'font-size="34" text-anchor="middle"', shown(last(first), unit)),
    ].join('');
  const legend = (at: number): string =>
    lines
      .slice(0, 10)
      .map((line, i) =>
        text(
          14 + (i % 2) * ((width - 24) / 2),
          at + Math.floor(i / 2) * 13,
          `fill="${COLORS[i]}" font-size="10"`,
          line.name === '' ? title : line.name,
        ),
      )
      .join('');
  if (type === 'bargauge') {
    const most = Math.max(...lines.map(last));
    const bars = lines.slice(0, 10).map((line, i) => {
      const y = top + 34 + i * 18;
      const long = Math.max(1, (last(line) / most) * (width * 0.4));
      return `<rect x="${left + width * 0.42}" y="${y}" width="${long.toFixed(1)}" height="12" fill="${COLORS[0]}"/>${text(width * 0.42 - 6, 44 + i * 18, 'text-anchor="end" font-size="10"', line.name)}${text(width * 0.42 + long + 4, 44 + i * 18, 'font-size="10"', shown(last(line), unit))}`;
    });
    return [frame, head, ...bars].join('');
  }
  const below = Math.ceil(Math.min(10, lines.length) / 2) * 13 + 8;
  const [bottom, plotTop] = [height - below - 10, 36];
  const most = Math.max(...lines.flatMap(({ points }) => points.map(([, value]) => value))) || 1;
  const x = (at: number): string => (left + 60 + ((at - from) / (to - from)) * (width - 80)).toFixed(1);
  const y = (value: number): string => (top + bottom - (value / most) * (bottom - plotTop)).toFixed(1);
  const grid = [0, 0.5, 1].map(
    (share) =>
      `<line x1="${left + 60}" x2="${left + width - 20}" y1="${y(most * share)}" y2="${y(most * share)}" stroke="#eee"/>${text(54, Number(y(most * share)) - top + 4, 'text-anchor="end" font-size="10" fill="#666"', shown(most * share, unit))}`,
  );
  const drawnLines = lines.map(
    ({ points }, i) =>
      `<polyline fill="none" stroke="${COLORS[i % COLORS.length]}" stroke-width="1.5" points="${points.map(([at, value]) => `${x(at)},${y(value)}`).join(' ')}"/>`,
  );
  return [frame, head, ...grid, ...drawnLines, legend(bottom + 18)].join('');
}

/** The dashboard over the last minutes; `ask` is a range query. */
export async function drawn({ panels }: Dashboard, minutes: number, ask: Ask): Promise<string> {
  const parts = await Promise.all(
    panels.map(async (panel) => {
      const answers = await Promise.all(
        (panel.targets ?? []).map(async ({ expr, legendFormat }) => {
          return (await ask(withoutVariables(expr), minutes)).map(({ metric, values = [] }): Line => ({
            name: label(legendFormat, metric),
            points: values
              .map(([at, value]) => [at, Number(value)] as const)
              .filter(([, value]) => Number.isFinite(value)),
          }));
        }),
      );
      return { panel, lines: answers.flat().filter(({ points }) => points.length > 0) };
    }),
  );
  const times = parts.flatMap(({ lines }) => lines.flatMap(({ points }) => points.map(([at]) => at)));
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const height = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * ROW;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${24 * COLUMN} ${height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#f4f5f7"/>
${parts.map(({ panel, lines }) => panelText(panel, lines, from, to === from ? from + 1 : to)).join('\n')}
</svg>
`;
}
