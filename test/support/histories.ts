// How many random histories a test plays. Most have other seeds with every run, so that the short
// form sees more the more often it runs.

/** GPU_GATE_TEST_LONG=1 asks for the long form, as `npm run test:stress` does. */
export const histories = (short: number, long: number): number =>
  process.env['GPU_GATE_TEST_LONG'] === '1' ? long : short;
