import { describe, expect, it } from 'vitest';
import {
  extenderBundle,
  nextExtenderStep,
  restartBy,
  type ExtenderCa,
  type ExtenderInput,
  type ExtenderStep,
} from '../../certs/extender-rules.ts';
import type { CertFacts } from '../../certs/read.ts';
import { BACKDATED } from '../../certs/validity.ts';

const DAY = 86_400_000;
const NOW = 1_000 * DAY;
/** Made at `from` for a life in days, signed by the CA of that fingerprint. */
const cert = (fingerprint: string, from: number, days: number, by?: string): CertFacts => ({
  pem: fingerprint,
  fingerprint,
  from: from - BACKDATED,
  to: from + days * DAY,
  sans: ['e'],
  isCa: by === undefined,
  signedBy: (ca) => ca.fingerprint === by,
});
const OLD = cert('old', NOW - 2000 * DAY, 3000);
const NEW = cert('new', NOW, 3000);
const leaf = (by: string, from = NOW): CertFacts => cert(`leaf of ${by}`, from, 90, by);
const client = (by: string, from = NOW): CertFacts => cert(`client of ${by}`, from, 90, by);
const quiet = (more: Partial<ExtenderInput> = {}): ExtenderInput => ({
  ca: { current: NEW, previous: [], previousSigns: false, changedAt: undefined },
  serving: leaf('new'),
  client: client('new'),
  sans: ['e'],
  known: [NEW],
  handedOut: { configMap: ['new'], serving: ['new'], client: ['new'] },
  overlap: 60 * DAY,
  grace: 600_000,
  now: NOW,
  ...more,
});
const BOTH = ['new', 'old'];
const GRACE = 600_000;
/** After the change from old to new at NOW. */
const changing = (more: Partial<ExtenderInput> = {}, of: Partial<ExtenderCa> = {}): ExtenderInput =>
  quiet({
    ca: { current: NEW, previous: [OLD], previousSigns: true, changedAt: NOW, ...of },
    serving: leaf('old', NOW - 10 * DAY),
    client: client('old', NOW - 10 * DAY),
    known: [NEW, OLD],
    handedOut: { configMap: BOTH, serving: BOTH, client: BOTH },
    ...more,
  });
const told = (step: ExtenderStep | undefined): string =>
  step === undefined
    ? 'nothing'
    : step.kind === 'issue-extender'
      ? `${step.kind} by ${step.by}`
      : 'previous' in step
        ? `${step.kind} after ${step.previous.map(({ fingerprint }) => fingerprint).join()}`
        : step.kind;

describe('the next step for the extender', () => {
  it.each([
    ['none while all is fine', quiet(), 'nothing'],
    [
      'a CA where there is none',
      quiet({ ca: { current: undefined, previous: [], previousSigns: false, changedAt: undefined }, known: [] }),
      'make-extender-ca after ',
    ],
    [
      'a CA at two thirds of its life, the one before kept',
      quiet({ ca: { current: OLD, previous: [], previousSigns: false, changedAt: undefined }, known: [OLD] }),
      'make-extender-ca after old',
    ],
    [
      'a CA where it was lost: the one that schedulers know is kept while something of it is in use, and no other',
      changing(
        { known: [OLD, cert('foreign', NOW, 10)] },
        { current: undefined, previous: [], previousSigns: false, changedAt: undefined },
      ),
      'make-extender-ca after old',
    ],
    [
      'taking the CA along that schedulers know, where the Secret was replaced',
      changing({}, { previous: [], previousSigns: false, changedAt: undefined }),
      'adopt-extender-ca after old',
    ],
    [
      'handing both out',
      changing({ handedOut: { configMap: ['old'], serving: ['old'], client: ['old'] } }),
      'publish-extender-ca',
    ],
    [
      'telling replicas of both before a caller shows a certificate of the new one',
      changing({ handedOut: { configMap: BOTH, serving: ['old'], client: ['old'] }, now: NOW + GRACE }),
      'trust-extender-ca',
    ],
    ['patience: whoever mounts Secrets is behind', changing({ now: NOW + GRACE - 1 }), 'nothing'],
    ['a client certificate of the new one after that', changing({ now: NOW + GRACE }), 'issue-scheduler-client'],
    [
      'a serving certificate of the one before where it is due',
      changing({ client: client('new'), now: NOW + 50 * DAY }),
      'issue-extender by previous',
    ],
    ['and where it is lost', changing({ serving: undefined }), 'issue-extender by previous'],
    [
      'one of the new CA on the day that was told',
      changing({ client: client('new'), serving: leaf('old', NOW + 50 * DAY), now: NOW + 60 * DAY }),
      'issue-extender by current',
    ],
    [
      'none before that where the key of the one before is lost, though two thirds are over',
      changing({ client: client('new', NOW + 50 * DAY), now: NOW + 78 * DAY }, { previousSigns: false }),
      'nothing',
    ],
    [
      'one of the new CA a day before its end then',
      changing({ client: client('new', NOW + 50 * DAY), now: NOW + 79 * DAY }, { previousSigns: false }),
      'issue-extender by current',
    ],
    [
      'one of the new CA where certificate and key of the one before are lost',
      changing({ serving: undefined }, { previousSigns: false }),
      'issue-extender by current',
    ],
    [
      'keeping the one before while mounted Secrets may be of it',
      changing({ serving: leaf('new', NOW + 60 * DAY), client: client('new', NOW + 50 * DAY), now: NOW + 60 * DAY }),
      'nothing',
    ],
    [
      'dropping it after that',
      changing({
        serving: leaf('new', NOW + 60 * DAY),
        client: client('new', NOW + 50 * DAY),
        now: NOW + 60 * DAY + GRACE,
      }),
      'drop-extender-ca',
    ],
    [
      'not dropping it while the client certificate is young',
      changing({ serving: leaf('new', NOW - DAY), client: client('new', NOW + 1), now: NOW + GRACE }),
      'nothing',
    ],
    ['a certificate where one is of a foreign CA', quiet({ serving: leaf('foreign') }), 'issue-extender by current'],
    ['a client certificate where it is of one', quiet({ client: client('foreign') }), 'issue-scheduler-client'],
    ['a certificate with the names of today', quiet({ sans: ['e', 'x'] }), 'issue-extender by current'],
    ['a certificate at two thirds of its life', quiet({ now: NOW + 60 * DAY }), 'issue-extender by current'],
    [
      'a certificate that is not valid yet',
      quiet({ serving: leaf('new', NOW + 2 * BACKDATED) }),
      'issue-extender by current',
    ],
  ])('%s', (_, given, step) => expect(told(nextExtenderStep(given))).toBe(step));
});

describe('the day by which schedulers must have been restarted', () => {
  it.each([
    ['none while no change is under way', quiet(), undefined],
    ['the stated time after the change', changing(), NOW + 60 * DAY],
    [
      'not after the end of the CA that they know',
      changing({}, { previous: [cert('old', NOW - 2980 * DAY, 3000)] }),
      NOW + 19 * DAY,
    ],
    [
      'the end of what is served where the key is lost',
      changing({}, { previousSigns: false }),
      NOW - 10 * DAY + 89 * DAY,
    ],
    ['none once the new one is served', changing({ serving: leaf('new') }), undefined],
  ])('%s', (_, given, day) => expect(restartBy(given)).toBe(day));
});

describe("a change of the extender's CA", () => {
  it('serves by the CA before for the whole time, then by the new one, and ends', () => {
    let given = quiet({
      ca: { current: OLD, previous: [], previousSigns: false, changedAt: undefined },
      serving: leaf('old', NOW - 40 * DAY),
      client: client('old', NOW - 40 * DAY),
      known: [OLD],
      handedOut: { configMap: ['old'], serving: ['old'], client: ['old'] },
    });
    const steps: string[] = [];
    let switched = 0;
    for (let now = NOW; now < NOW + 70 * DAY; now += DAY / 4) {
      for (let i = 0; i < 12; i += 1) {
        given = { ...given, now };
        const step = nextExtenderStep(given);
        if (step === undefined) break;
        steps.push(step.kind === 'issue-extender' ? `${step.kind} by ${step.by}` : step.kind);
        if (step.kind === 'issue-extender' && step.by === 'current') switched = now;
        given = after(step, given, now);
      }
      // Replicas and schedulers: what is served is checked by the CA that was read, what is shown by those in the Secret.
      const by = now < NOW + 60 * DAY ? OLD : NEW;
      expect(given.serving?.signedBy(by), `${(now - NOW) / DAY} days`).toBe(true);
      expect(given.serving !== undefined && now < given.serving.to).toBe(true);
    }
    expect(steps).toEqual([
      'make-extender-ca',
      'publish-extender-ca',
      'trust-extender-ca',
      'issue-scheduler-client',
      'issue-extender by previous',
      'issue-extender by current',
      'issue-scheduler-client',
      'drop-extender-ca',
      'publish-extender-ca',
      'trust-extender-ca',
    ]);
    expect(switched).toBe(NOW + 60 * DAY);
  });

  const after = (step: ExtenderStep, given: ExtenderInput, now: number): ExtenderInput => {
    const prints = extenderBundle(given.ca, now).map(({ fingerprint }) => fingerprint);
    switch (step.kind) {
      case 'make-extender-ca':
        return { ...given, ca: { current: NEW, previous: step.previous, previousSigns: true, changedAt: now } };
      case 'publish-extender-ca':
        return { ...given, handedOut: { ...given.handedOut, configMap: prints } };
      case 'trust-extender-ca':
        return { ...given, handedOut: { ...given.handedOut, serving: prints, client: prints } };
      case 'issue-extender':
        return { ...given, serving: leaf(step.by === 'current' ? 'new' : 'old', now) };
      case 'issue-scheduler-client':
        return { ...given, client: client('new', now) };
      case 'drop-extender-ca':
        return { ...given, ca: { current: NEW, previous: [], previousSigns: false, changedAt: undefined } };
      case 'adopt-extender-ca':
        return given;
    }
  };
});
