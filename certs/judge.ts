// Should a replica take the certificate that is in its Secret, or go on with the one that it
// serves? Pure.
import { missingName, validAt, type CertFacts } from './cert.ts';

export interface Judged {
  /** `undefined` if what is in the Secret cannot be read. */
  readonly offered: CertFacts | undefined;
  readonly keyFits: boolean;
  /** Names that callers check. */
  readonly names: readonly string[];
  readonly served: CertFacts | undefined;
  /** CAs by which callers verify it. Empty if they are not known. */
  readonly trusted: readonly CertFacts[];
  readonly now: number;
}

type Rule = (judged: Judged & { readonly offered: CertFacts }) => string | undefined;

const keyIsAnother: Rule = ({ keyFits }) => (keyFits ? undefined : 'its key is missing or is another one');
const expired: Rule = ({ offered, now }) => (offered.to <= now ? 'it has expired' : undefined);
const lacksName: Rule = ({ offered, names }) => {
  const missing = missingName(offered, names);
  return missing === undefined ? undefined : `it lacks the name ${missing}`;
};
const tooEarly: Rule = ({ offered, served, now }) =>
  offered.from > now && validAt(served, now) ? 'it is not valid yet, and the one that is served is' : undefined;
/**
 * Callers trust what is served and would not trust the other, so its writer is wrong or too early.
 */
const nobodyTrusts: Rule = ({ offered, served, trusted, now }) =>
  validAt(served, now) && trusted.some((ca) => served.signedBy(ca)) && !trusted.some((ca) => offered.signedBy(ca))
    ? 'no CA of the webhook configuration signed it, and one of them signed the one that is served'
    : undefined;

const RULES: readonly Rule[] = [keyIsAnother, expired, lacksName, tooEarly, nobodyTrusts];

/** Why it is not taken. `undefined` if it is. */
export function refusal(judged: Judged): string | undefined {
  const { offered } = judged;
  if (offered === undefined) return 'it cannot be read';
  return RULES.map((rule) => rule({ ...judged, offered })).find((because) => because !== undefined);
}
