import { describe, expect, it } from 'vitest';
import type { CertFacts } from '../../certs/issue.ts';
import { bundleOf, nextStep, type CaState, type RenewalInput } from '../../certs/renewal.ts';

const NOW = 1_000_000;
/** A certificate of a life of 300, begun at `from`, signed by the CA of that fingerprint. */
const cert = (fingerprint: string, from: number, by?: string, life = 300): CertFacts => ({
  pem: fingerprint,
  fingerprint,
  from,
  to: from + life,
  sans: ['w'],
  isCa: by === undefined,
  signedBy: (ca) => ca.fingerprint === by,
});
const CA = cert('ca1', NOW);
const ca = (more: Partial<CaState> = {}): CaState => ({
  current: CA,
  next: undefined,
  old: undefined,
  publishedAt: undefined,
  switchedAt: undefined,
  ...more,
});
const input = (more: Partial<RenewalInput> = {}): RenewalInput => ({
  ca: ca(),
  leaf: cert('leaf', NOW, 'ca1', 90),
  sans: ['w'],
  trusted: ['ca1'],
  overlap: 20,
  grace: 50,
  now: NOW,
  ...more,
});

describe('the next step', () => {
  it.each([
    ['none while all is fine', input(), 'wait'],
    ['a CA where there is none', input({ ca: ca({ current: undefined }) }), 'make-ca'],
    ['a CA where it has expired', input({ now: NOW + 301 }), 'make-ca'],
    ['a CA where a clock went back before it', input({ now: NOW - 1 }), 'make-ca'],
    ['publishing where nothing is trusted', input({ trusted: [] }), 'publish'],
    ['publishing where another CA is trusted', input({ trusted: ['other'] }), 'publish'],
    ['publishing where too much is trusted', input({ trusted: ['ca1', 'other'] }), 'publish'],
    ['no publishing where somebody else writes the configuration', input({ trusted: undefined }), 'wait'],
    ['a certificate where there is none', input({ leaf: undefined }), 'issue-leaf'],
    ['a certificate where it has expired', input({ now: NOW + 91 }), 'issue-leaf'],
    ['a certificate where a name is missing', input({ sans: ['w', 'x'] }), 'issue-leaf'],
    ['a certificate where it is of a foreign CA', input({ leaf: cert('leaf', NOW, 'other', 90) }), 'issue-leaf'],
    ['a certificate at two thirds of its life', input({ now: NOW + 60 }), 'issue-leaf'],
    [
      'a new CA at two thirds of its life',
      input({ now: NOW + 200, leaf: cert('leaf', NOW + 190, 'ca1', 90) }),
      'make-next-ca',
    ],
    [
      'patience while the new CA is not trusted for long',
      input({ ca: ca({ next: cert('ca2', NOW), publishedAt: NOW - 5 }), trusted: ['ca1', 'ca2'] }),
      'wait',
    ],
    [
      'a certificate of the new CA after the overlap',
      input({ ca: ca({ next: cert('ca2', NOW), publishedAt: NOW - 20 }), trusted: ['ca1', 'ca2'] }),
      'issue-leaf',
    ],
    [
      'the switch once it is served',
      input({
        ca: ca({ next: cert('ca2', NOW), publishedAt: NOW - 20 }),
        trusted: ['ca1', 'ca2'],
        leaf: cert('leaf', NOW, 'ca2', 90),
      }),
      'promote-next',
    ],
    [
      'dropping the old CA after the grace time',
      input({ ca: ca({ old: cert('ca0', NOW - 100), switchedAt: NOW - 50 }), trusted: ['ca1', 'ca0'] }),
      'drop-old',
    ],
  ])('%s', (_, given, kind) => expect(nextStep(given).kind).toBe(kind));

  it('in a whole rotation never serves what is not trusted, and ends as it began', () => {
    let state = ca();
    let leaf: CertFacts = cert('leaf1', NOW, 'ca1', 400);
    let trusted: readonly string[] = ['ca1'];
    let now = NOW + 200;
    const steps: string[] = [];
    for (let i = 0; i < 40 && !(steps.includes('drop-old') && trusted.length === 1); i += 1) {
      const step = nextStep({ ca: state, leaf, sans: ['w'], trusted, overlap: 20, grace: 50, now });
      if (step.kind !== 'wait') steps.push(step.kind);
      if (step.kind === 'wait') now = Math.max(now + 1, Math.min(step.until, now + 10));
      if (step.kind === 'make-next-ca') state = { ...state, next: cert('ca2', now) };
      if (step.kind === 'publish') {
        trusted = step.bundle.map((c) => c.fingerprint);
        if (state.next !== undefined) state = { ...state, publishedAt: state.publishedAt ?? now };
      }
      if (step.kind === 'issue-leaf') leaf = cert('leaf2', now, step.by === 'next' ? 'ca2' : 'ca1', 400);
      if (step.kind === 'promote-next')
        state = { current: state.next, next: undefined, old: state.current, publishedAt: undefined, switchedAt: now };
      if (step.kind === 'drop-old') state = { ...state, old: undefined };
      expect(bundleOf(state, now).some((c) => leaf.signedBy(c) && trusted.includes(c.fingerprint))).toBe(true);
    }
    expect(steps).toEqual(['make-next-ca', 'publish', 'issue-leaf', 'promote-next', 'drop-old', 'publish']);
    expect(trusted).toEqual(['ca2']);
  });
});
