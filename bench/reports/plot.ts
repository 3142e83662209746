// A line chart as SVG text, for the docs: a few series over one axis of numbers. Pure.

export interface Series {
  readonly name: string;
  readonly color: string;
  /** x and y of each point, in units of the axes. */
  readonly points: readonly (readonly [number, number])[];
}

const [WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM] = [640, 340, 56, 28, 90, 44] as const;

/** The chart; both axes begin at 0. */
export function lineChart(title: string, xLabel: string, yLabel: string, series: readonly Series[]): string {
  const all = series.flatMap(({ points }) => points);
  const [xMax, yMax] = [Math.max(...all.map(([x]) => x)), Math.max(...all.map(([, y]) => y)) * 1.05];
  const x = (value: number): string => (LEFT + (value / xMax) * (WIDTH - LEFT - RIGHT)).toFixed(1);
  const y = (value: number): string => (HEIGHT - BOTTOM - (value / yMax) * (HEIGHT - TOP - BOTTOM)).toFixed(1);
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((size) => yMax / size <= 6) ?? yMax;
  const ticks = Array.from({ length: Math.floor(yMax / step) + 1 }, (_, i) => i * step);
  const text = (at: string, words: string): string => `<text ${at}>${words}</text>`;
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    text(`x="${LEFT}" y="16" font-weight="bold"`, title),
    ...ticks.flatMap((tick) => [
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}" stroke="#ddd"/>`,
      text(`x="${LEFT - 6}" y="${Number(y(tick)) + 4}" text-anchor="end"`, String(Number(tick.toFixed(2)))),
    ]),
    ...[...new Set(all.map(([value]) => value))].map((value) =>
      text(`x="${x(value)}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle"`, value.toLocaleString('en')),
    ),
    text(`x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle"`, xLabel),
    text(`x="14" y="${HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 ${HEIGHT / 2})"`, yLabel),
    ...series.flatMap(({ name, color, points }) => {
      const [lastX, lastY] = points.at(-1) ?? [0, 0];
      return [
        `<polyline fill="none" stroke="${color}" stroke-width="2" points="${points.map(([px, py]) => `${x(px)},${y(py)}`).join(' ')}"/>`,
        ...points.map(([px, py]) => `<circle cx="${x(px)}" cy="${y(py)}" r="3" fill="${color}"/>`),
        text(`x="${Number(x(lastX)) + 8}" y="${Number(y(lastY)) + 4}" fill="${color}"`, name),
      ];
    }),
    '</svg>',
  ].join('\n')}\n`;
}
