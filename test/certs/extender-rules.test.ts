import { describe, expect, it } from 'vitest';
import { bundleOf, type Authority } from '../../certs/authority.ts';
import type { CertFacts } from '../../certs/cert.ts';
import type { ChainInput, ReadingOnce, Step } from '../../certs/chain.ts';
import { restartBy } from '../../certs/extender-rules.ts';
import { nextStep } from '../../certs/rules.ts';
import { aCert, anAuthority, readOnce, serving, type ReadOnceInput } from '../builders/certs.ts';

const DAY = 86_400_000;
const NOW = 1_000 * DAY;
const GRACE = 600_000;
/** Made at `from` for a life in days, signed by the CA of that fingerprint. */
const cert = (fingerprint: string, from: number, days: number, by?: string): CertFacts =>
  aCert(fingerprint, from, days * DAY, by, ['e']);
const OLD = cert('old', NOW - 2000 * DAY, 3000);
const NEW = cert('new', NOW, 3000);
const leaf = (by: string, from = NOW): CertFacts => cert(`leaf of ${by}`, from, 90, by);
const client = (by: string, from = NOW): CertFacts => cert(`client of ${by}`, from, 90, by);
const LEAF = leaf('new', NOW - DAY);
const SETTLED: ReadOnceInput = {
  ca: anAuthority(NEW),
  leaf: LEAF,
  leafProblem: undefined,
  sans: ['e'],
  replicas: serving(LEAF),
  known: [NEW],
  graceMs: GRACE,
  now: NOW,
  client: client('new', NOW - DAY),
  handedOut: { configMap: ['new'], serving: ['new'], client: ['new'] },
  handedOutSince: NOW,
  overlapMs: 60 * DAY,
};
const quiet = (more: Partial<ReadOnceInput> = {}): ChainInput<ReadingOnce> => readOnce({ ...SETTLED, ...more });
const BOTH = ['new', 'old'];
const OLD_LEAF = leaf('old', NOW - 10 * DAY);
/** After the change from old to new at NOW. */
const changing = (more: Partial<ReadOnceInput> = {}, of: Partial<Authority> = {}): ChainInput<ReadingOnce> =>
  quiet({
    ca: anAuthority(NEW, { previous: [OLD], previousSigns: true, changedAt: NOW, ...of }),
    leaf: OLD_LEAF,
    client: client('old', NOW - 10 * DAY),
    known: [NEW, OLD],
    handedOut: { configMap: BOTH, serving: BOTH, client: BOTH },
    replicas: serving(OLD_LEAF),
    ...more,
  });
/** The change is over but for the previous CA: everything in use is of the newest one. */
const changed = (more: Partial<ReadOnceInput> = {}, of: Partial<Authority> = {}): ChainInput<ReadingOnce> => {
  const at = NOW + 60 * DAY;
  return changing(
    {
      leaf: leaf('new', at),
      client: client('new', NOW + 50 * DAY),
      replicas: serving(leaf('new', at)),
      now: at,
      ...more,
    },
    of,
  );
};
/** Ten days ago the CA's Secret was lost: the previous CA is known, its key is gone. */
const keyLost = (more: Partial<ReadOnceInput> = {}): ChainInput<ReadingOnce> =>
  changing(
    {
      leaf: undefined,
      client: client('new', NOW - 9 * DAY),
      replicas: serving(OLD_LEAF, OLD_LEAF),
      ...more,
    },
    { previousSigns: false, changedAt: NOW - 10 * DAY, current: cert('new', NOW - 10 * DAY, 3000) },
  );
const told = (step: Step): string =>
  step.kind === 'wait'
    ? `wait for ${step.on}`
    : step.kind === 'issue-leaf' || step.kind === 'issue-client'
      ? `${step.kind} by ${step.by}`
      : 'previous' in step
        ? `${step.kind} after ${step.previous.map(({ fingerprint }) => fingerprint).join()}`
        : step.kind;

describe('the next step for the extender', () => {
  it.each([
    ['none while all is fine', quiet(), 'wait for nothing'],
    ['a CA where there is none', quiet({ ca: anAuthority(undefined), known: [] }), 'make-ca after '],
    [
      'a CA at two thirds of its life, the previous one kept',
      quiet({
        ca: anAuthority(OLD),
        known: [OLD],
        leaf: OLD_LEAF,
        client: client('old', NOW - DAY),
        handedOut: { configMap: ['old'], serving: ['old'], client: ['old'] },
      }),
      'make-ca after old',
    ],
    [
      'a CA where it was lost: the one that schedulers know is kept while something of it is in use, and no other',
      changing({ ca: anAuthority(undefined), known: [OLD, cert('foreign', NOW, 10)] }),
      'make-ca after old',
    ],
    [
      'a CA where it was lost: every one that schedulers know is kept while the serving Secret is lost too',
      changing({ ca: anAuthority(undefined), leaf: undefined, known: [OLD, NEW] }),
      'make-ca after old,new',
    ],
    [
      "every one is kept while the client's Secret is lost: a scheduler may show a certificate of any",
      changing({ ca: anAuthority(undefined), client: undefined, known: [OLD, NEW] }),
      'make-ca after old,new',
    ],
    [
      'every one is kept where a Secret is younger than the grace time',
      changing({ ca: anAuthority(undefined), client: client('new', NOW - 1), known: [OLD, NEW] }),
      'make-ca after old,new',
    ],
    [
      'taking the CA along that schedulers know, where the Secret was replaced',
      changing({}, { previous: [], previousSigns: false, changedAt: undefined }),
      'adopt after old',
    ],
    ['handing both out', changing({ handedOut: { configMap: ['old'], serving: ['old'], client: ['old'] } }), 'publish'],
    [
      'telling replicas of both before a caller shows a certificate of the new one',
      changing({ handedOut: { configMap: BOTH, serving: ['old'], client: ['old'] }, now: NOW + GRACE }),
      'hand-out',
    ],
    [
      'telling replicas of both also while there is no certificate',
      keyLost({ handedOut: { configMap: BOTH, serving: [], client: BOTH } }),
      'hand-out',
    ],
    ['patience: schedulers that mount Secrets lag behind', changing({ now: NOW + GRACE - 1 }), 'wait for schedulers'],
    ['a client certificate of the new one after that', changing({ now: NOW + GRACE }), 'issue-client by current'],
    [
      'patience where replicas received the CA later than the change began',
      changing({ now: NOW + GRACE, handedOutSince: NOW + 1 }),
      'wait for schedulers',
    ],
    [
      'patience where no replica is known to have received the CA',
      changing({ now: NOW + GRACE, handedOutSince: undefined }),
      'wait for schedulers',
    ],
    [
      'no client certificate of the new CA within the grace time, though two thirds of the life of the old one are over',
      changing({ client: client('old', NOW - 70 * DAY), now: NOW + GRACE - 1 }, { previousSigns: false }),
      'wait for schedulers',
    ],
    [
      'one of the previous CA then, where its key is there',
      changing({ client: client('old', NOW - 70 * DAY), now: NOW + GRACE - 1 }),
      'issue-client by previous',
    ],
    [
      'one of the previous CA where it is lost in that time',
      changing({ client: undefined }),
      'issue-client by previous',
    ],
    [
      'patience where it is lost in that time and the key of the previous CA too: schedulers go on with the mounted one',
      changing({ client: undefined }, { previousSigns: false }),
      'wait for schedulers',
    ],
    [
      'one at once if the client certificate has expired, because no caller can be harmed',
      changing({ client: client('old', NOW - 91 * DAY) }, { previousSigns: false }),
      'issue-client by current',
    ],
    [
      'a serving certificate of the previous one where it is due',
      changing({ client: client('new'), now: NOW + 50 * DAY }),
      'issue-leaf by previous',
    ],
    ['and where it is lost', changing({ leaf: undefined }), 'issue-leaf by previous'],
    [
      'one of the new CA on the day that was stated',
      changing({ client: client('new'), leaf: leaf('old', NOW + 50 * DAY), now: NOW + 60 * DAY }),
      'issue-leaf by current',
    ],
    [
      'none before that where the key of the previous one is lost, though two thirds are over',
      changing({ client: client('new', NOW + 50 * DAY), now: NOW + 78 * DAY }, { previousSigns: false }),
      'wait for schedulers',
    ],
    [
      'one of the new CA a day before its end then',
      changing({ client: client('new', NOW + 50 * DAY), now: NOW + 79 * DAY }, { previousSigns: false }),
      'issue-leaf by current',
    ],
    [
      'none where certificate and key of the previous one are lost while replicas serve a good one',
      keyLost(),
      'wait for schedulers',
    ],
    [
      'none where a ready replica does not show what it serves',
      keyLost({ replicas: serving(undefined) }),
      'wait for schedulers',
    ],
    [
      'none if the replicas are unknown',
      keyLost({ replicas: { kind: 'unknown', because: 'no' } }),
      'wait for schedulers',
    ],
    ['one of the new CA where no replica serves anything', keyLost({ replicas: serving() }), 'issue-leaf by current'],
    [
      'one of the new CA where the only replica turns handshakes down: it has no certificate',
      keyLost({ replicas: { kind: 'known', served: [{ address: 'r', leaf: undefined, idle: true }] } }),
      'issue-leaf by current',
    ],
    [
      'one of the new CA if replicas serve a certificate that no caller trusts',
      keyLost({ replicas: serving(leaf('foreign')) }),
      'issue-leaf by current',
    ],
    [
      'one of the new CA a day before the end of what replicas serve',
      keyLost({ now: NOW + 79 * DAY, client: client('new', NOW + 50 * DAY) }),
      'issue-leaf by current',
    ],
    ['patience while a replica serves the previous CA', changed({ replicas: serving(OLD_LEAF) }), 'wait for replicas'],
    ['the note that nothing of it is served', changed(), 'retire'],
    ['keeping the previous one for the grace time', changed({}, { retiredAt: NOW + 60 * DAY }), 'wait for grace'],
    [
      'dropping it after that',
      changed({ now: NOW + 60 * DAY + GRACE }, { retiredAt: NOW + 60 * DAY, previousSigns: false }),
      'drop-old',
    ],
    [
      'not dropping it while the client certificate is young',
      changed(
        { now: NOW + 60 * DAY + GRACE, client: client('new', NOW + 60 * DAY + 1) },
        { retiredAt: NOW + 60 * DAY, previousSigns: false },
      ),
      'wait for grace',
    ],
    [
      'not dropping it while schedulers show a certificate of it',
      changed(
        { now: NOW + 60 * DAY + GRACE, client: client('old', NOW + 50 * DAY), handedOutSince: undefined },
        { retiredAt: NOW + 60 * DAY, previousSigns: false },
      ),
      'wait for schedulers',
    ],
    [
      'one of the new CA where the client certificate is of a foreign CA and nothing else can sign',
      changing({ client: client('foreign', NOW - DAY) }, { previousSigns: false }),
      'issue-client by current',
    ],
    [
      'not dropping it before the day that was stated, where the certificate had to be replaced earlier',
      changed(
        { now: NOW + 59 * DAY, leaf: leaf('new', NOW + 10 * DAY), client: client('new', NOW + DAY) },
        { retiredAt: NOW + 11 * DAY, previousSigns: false },
      ),
      'wait for schedulers',
    ],
    [
      'one of the new CA at once where one of a foreign CA replaced it: replicas take that unverified',
      keyLost({ leaf: leaf('foreign'), replicas: serving(undefined, OLD_LEAF) }),
      'issue-leaf by current',
    ],
    ['a certificate where one is of a foreign CA', quiet({ leaf: leaf('foreign') }), 'issue-leaf by current'],
    ['a client certificate where it is of one', quiet({ client: client('foreign') }), 'issue-client by current'],
    ['a certificate with the names of today', quiet({ sans: ['e', 'x'] }), 'issue-leaf by current'],
    ['a certificate at two thirds of its life', quiet({ now: NOW + 60 * DAY }), 'issue-leaf by current'],
    [
      'a client certificate at two thirds of its life',
      quiet({ client: client('new', NOW - 60 * DAY) }),
      'issue-client by current',
    ],
    ['a certificate that is not valid yet', quiet({ leaf: leaf('new', NOW + 2 * 3_600_000) }), 'issue-leaf by current'],
  ])('%s', (_, given, step) => expect(told(nextStep(given))).toBe(step));

  it('says until when schedulers must be restarted, and what a replica that starts now is in for', () => {
    const { because } = nextStep(keyLost());
    expect(because).toContain(new Date(NOW + 79 * DAY).toISOString());
    expect(because).toContain('A replica that starts before has no certificate.');
  });
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
    ['the end of what replicas serve where the certificate is lost as well', keyLost(), NOW - 10 * DAY + 89 * DAY],
    ['the stated time if no replica shows what it serves', keyLost({ replicas: serving(undefined) }), NOW + 50 * DAY],
    [
      'the time when the certificate had to be replaced, for as long as the previous CA is handed out',
      changing({ leaf: leaf('new', NOW + DAY), now: NOW + 2 * DAY }),
      NOW + DAY,
    ],
    ['none once the previous CA is dropped', quiet({ leaf: leaf('new') }), undefined],
  ])('%s', (_, given, day) => expect(restartBy(given)).toBe(day));
});

describe("a change of the extender's CA", () => {
  const after = (step: Step, given: ReadOnceInput, now: number): ReadOnceInput => {
    const prints = bundleOf(given.ca, now).map(({ fingerprint }) => fingerprint);
    const name = (by: string): string => (by === 'current' ? 'new' : 'old');
    switch (step.kind) {
      case 'make-ca':
        return { ...given, ca: anAuthority(NEW, { previous: step.previous, previousSigns: true, changedAt: now }) };
      case 'publish':
        return { ...given, handedOut: { ...given.handedOut, configMap: prints } };
      case 'hand-out':
        return { ...given, handedOut: { ...given.handedOut, serving: prints, client: prints }, handedOutSince: now };
      case 'issue-leaf': {
        const made = leaf(name(step.by), now);
        return { ...given, leaf: made, replicas: serving(made) };
      }
      case 'issue-client':
        return { ...given, client: client(name(step.by), now) };
      case 'retire':
        return { ...given, ca: { ...given.ca, previousSigns: false, retiredAt: now } };
      case 'drop-old':
        return { ...given, ca: anAuthority(NEW) };
      case 'adopt':
      case 'confirm':
      case 'issue-canary':
      case 'wait':
        return given;
    }
  };

  it('serves by the previous CA for the whole time, then by the new one, and ends', () => {
    const first = leaf('old', NOW - 40 * DAY);
    let given: ReadOnceInput = {
      ...SETTLED,
      ca: anAuthority(OLD),
      leaf: first,
      replicas: serving(first),
      client: client('old', NOW - 40 * DAY),
      known: [OLD],
      handedOut: { configMap: ['old'], serving: ['old'], client: ['old'] },
    };
    const steps: string[] = [];
    let switched = 0;
    for (let now = NOW; now < NOW + 70 * DAY; now += DAY / 4) {
      for (let i = 0; i < 12; i += 1) {
        given = { ...given, now };
        const step = nextStep(readOnce(given));
        if (step.kind === 'wait') break;
        steps.push('by' in step ? `${step.kind} by ${step.by}` : step.kind);
        if (step.kind === 'issue-leaf' && step.by === 'current' && switched === 0) switched = now;
        given = after(step, given, now);
      }
      const by = now < NOW + 60 * DAY ? OLD : NEW;
      expect(given.leaf?.signedBy(by), `${(now - NOW) / DAY} days`).toBe(true);
      expect(given.leaf !== undefined && now < given.leaf.to).toBe(true);
    }
    expect(steps).toEqual([
      'make-ca',
      'publish',
      'hand-out',
      'issue-client by current',
      'issue-leaf by previous',
      'issue-leaf by current',
      'retire',
      'issue-client by current',
      'drop-old',
      'publish',
      'hand-out',
    ]);
    expect(switched).toBe(NOW + 60 * DAY);
  });
});
