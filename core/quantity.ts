// Reads Kubernetes quantities as k8s.io/apimachinery does: every suffix, exponents, signs. Whole
// amounts are rounded away from zero, because half a GPU asked for is a GPU in use.

/** The largest amount the API server keeps. */
const MAX = 2n ** 63n - 1n;
const DECIMAL: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  '': 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const BINARY: Readonly<Record<string, number>> = { Ki: 10, Mi: 20, Gi: 30, Ti: 40, Pi: 50, Ei: 60 };
const FORM = /^([+-]?)(\d*)(?:\.(\d*))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,18}))?$/;
/** No quantity that means something is longer; the time for one is bounded. */
const MAX_LENGTH = 256;

/**
 * The amount as a whole number, rounded away from zero; `undefined` if it is not a quantity. More
 * than 2^63 - 1, which no amount in Kubernetes can be, is that.
 */
export function readQuantity(value: unknown): bigint | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  const text = String(value);
  const match = text === '' || text.length > MAX_LENGTH ? null : FORM.exec(text);
  if (match === null) return undefined;
  const [, sign = '', whole = '', fraction = '', suffix = '', exponent] = match;
  if (whole + fraction === '') return undefined;
  const size = scaled(
    whole + fraction,
    (exponent === undefined ? (DECIMAL[suffix] ?? 0) : Number(exponent)) - fraction.length,
    BINARY[suffix] ?? 0,
  );
  return sign === '-' ? -size : size;
}

/** `digits` × 10^`tens` × 2^`twos`, rounded up, without powers that the result cannot hold. */
function scaled(digits: string, tens: number, twos: number): bigint {
  const significant = digits.replace(/^0+/, '');
  if (significant === '') return 0n;
  if (significant.length + tens > 19) return MAX;
  if (significant.length + tens < -19) return 1n;
  const product = BigInt(significant) * 2n ** BigInt(twos);
  const unit = 10n ** BigInt(Math.abs(tens));
  const amount = tens >= 0 ? product * unit : (product + unit - 1n) / unit;
  return amount > MAX ? MAX : amount;
}

/** The amount as a number to count with; 0 if it is not a quantity. */
export const amountOf = (value: unknown): number => Number(readQuantity(value) ?? 0n);
