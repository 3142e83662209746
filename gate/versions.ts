// Versions of drivers and of CUDA: comparing them, and which CUDA a driver brings.

/** What can be compared: numbers and dots, such as `595.71.05`. */
export const isVersion = (text: string): boolean => /^\d{1,5}(\.\d{1,5}){0,3}$/.test(text);

/**
 * Compares two versions number by number; negative if a is older than b. A missing number counts as
 * 0. Reads digit by digit, because lists of numbers would be allocated for every node of a call.
 */
export function compareVersions(a: string, b: string): number {
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    let left = 0;
    for (; i < a.length && a.charCodeAt(i) !== DOT; i += 1) left = left * 10 + a.charCodeAt(i) - ZERO;
    let right = 0;
    for (; j < b.length && b.charCodeAt(j) !== DOT; j += 1) right = right * 10 + b.charCodeAt(j) - ZERO;
    if (left !== right) return left - right;
    i += 1;
    j += 1;
  }
  return 0;
}

const DOT = 0x2e;
const ZERO = 0x30;

/**
 * The newest CUDA that a branch of drivers supports by itself, oldest first. `nvidia-smi` shows it,
 * and the toolkit compares NVIDIA_REQUIRE_CUDA with it. From NVIDIA's "CUDA Toolkit and
 * Corresponding Driver Versions"; a new branch is a new line here.
 */
const CUDA_OF_BRANCH: readonly (readonly [branch: number, cuda: string])[] = [
  [384, '9.0'],
  [390, '9.1'],
  [396, '9.2'],
  [410, '10.0'],
  [418, '10.1'],
  [440, '10.2'],
  [450, '11.0'],
  [455, '11.1'],
  [460, '11.2'],
  [465, '11.3'],
  [470, '11.4'],
  [495, '11.5'],
  [510, '11.6'],
  [515, '11.7'],
  [520, '11.8'],
  [525, '12.0'],
  [530, '12.1'],
  [535, '12.2'],
  [545, '12.3'],
  [550, '12.4'],
  [555, '12.5'],
  [560, '12.6'],
  [565, '12.7'],
  [570, '12.8'],
  [575, '12.9'],
  [580, '13.0'],
  [590, '13.1'],
  [595, '13.2'],
];

/**
 * The CUDA version a driver supports: that of the newest known branch ≤ the driver's. Unknown
 * future branches fall back to the newest we know. `undefined` if the driver predates the table.
 */
export function cudaOfDriver(driver: string): string | undefined {
  const branch = Number(driver.split('.')[0]);
  return CUDA_OF_BRANCH.findLast(([from]) => from <= branch)?.[1];
}
