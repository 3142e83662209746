import { describe, expect, it } from 'vitest';
import { refusal, type Judged } from '../../certs/judge.ts';
import type { CertFacts } from '../../certs/cert.ts';

const NOW = 1_000_000;
const cert = (fingerprint: string, by?: string, more: Partial<CertFacts> = {}): CertFacts => ({
  pem: fingerprint,
  fingerprint,
  from: NOW - 100,
  to: NOW + 100,
  sans: ['w'],
  isCa: by === undefined,
  signedBy: (ca) => ca.fingerprint === by,
  ...more,
});
const CA = cert('ca');
const SERVED = cert('served', 'ca');
const judged = (more: Partial<Judged> = {}): Judged => ({
  offered: cert('offered', 'ca'),
  keyFits: true,
  names: ['w'],
  served: SERVED,
  trusted: [CA],
  now: NOW,
  ...more,
});
const EXPIRED = { from: NOW - 200, to: NOW };
const FOREIGN = cert('offered', 'foreign');

describe('a certificate in the Secret', () => {
  it.each([
    ['good', judged(), undefined],
    ['that cannot be read', judged({ offered: undefined }), 'it cannot be read'],
    ['with another key', judged({ keyFits: false }), 'its key is missing or is another one'],
    ['expired', judged({ offered: cert('offered', 'ca', EXPIRED) }), 'it has expired'],
    ['without the name', judged({ names: ['x'] }), 'it lacks the name x'],
    [
      'not valid yet, over a valid one',
      judged({ offered: cert('offered', 'ca', { from: NOW + 1 }) }),
      'it is not valid yet, and the one that is served is',
    ],
    [
      'not valid yet, over an expired one',
      judged({ offered: cert('offered', 'ca', { from: NOW + 1 }), served: cert('served', 'ca', EXPIRED) }),
      undefined,
    ],
    [
      'not valid yet, over none: the clock here may be wrong',
      judged({ offered: cert('offered', 'ca', { from: NOW + 1 }), served: undefined }),
      undefined,
    ],
    [
      'of a CA that the configuration does not trust',
      judged({ offered: FOREIGN }),
      'no CA of the webhook configuration signed it, and one of them signed the one that is served',
    ],
    ['of such a CA, where none is known', judged({ offered: FOREIGN, trusted: [] }), undefined],
    ['of such a CA, over none', judged({ offered: FOREIGN, served: undefined }), undefined],
    [
      'of such a CA, over an expired one',
      judged({ offered: FOREIGN, served: cert('served', 'ca', EXPIRED) }),
      undefined,
    ],
    [
      'of such a CA, over one that is not trusted either',
      judged({ offered: FOREIGN, served: cert('s', 'x') }),
      undefined,
    ],
    ['of the newer of two trusted CAs', judged({ offered: FOREIGN, trusted: [CA, cert('foreign')] }), undefined],
  ])('%s', (_, given, because) => expect(refusal(given)).toBe(because));
});
