// How long certificates hold. Pure.

/** How far back certificates begin, ms: clocks of control planes and nodes are never quite the same. */
export const BACKDATED = 3_600_000;

/** When two thirds of a certificate's life are over, counted from when it was made; ms since the epoch. */
export const renewalOf = (cert: { readonly from: number; readonly to: number }): number =>
  cert.to - Math.max(0, cert.to - cert.from - BACKDATED) / 3;

/** Valid at that time, ms since the epoch. */
export const validAt = <T extends { readonly from: number; readonly to: number }>(
  cert: T | undefined,
  now: number,
): cert is T => cert !== undefined && cert.from <= now && now < cert.to;
