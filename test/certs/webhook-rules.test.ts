import { describe, expect, it } from 'vitest';
import { bundleOf, type Authority } from '../../certs/authority.ts';
import { BACKDATED, renewalOf, type CertFacts } from '../../certs/cert.ts';
import type { ChainInput, Configuration, Step, Watching } from '../../certs/chain.ts';
import { nextStep } from '../../certs/rules.ts';
import { CANARY_GAP } from '../../certs/webhook-rules.ts';
import { aCert, anAuthority, serving, watched, type WatchedInput } from '../builders/certs.ts';

const NOW = 1_000_000_000;
const GRACE = 50;
/** Made at `from` for a life of 300, signed by the CA of that fingerprint. */
const cert = (fingerprint: string, from: number, by?: string, life = 300): CertFacts =>
  aCert(fingerprint, from, life, by, ['w']);
const CA1 = cert('ca1', NOW);
const CA2 = cert('ca2', NOW);
const ca = (more: Partial<Authority> = {}): Authority => anAuthority(CA1, more);
/** A configuration whose canary trusts the newest CA alone. */
const carries = (trusted: readonly string[], canary = trusted.slice(0, 1)): Configuration => ({
  kind: 'present',
  trusted,
  canary,
});
/**
 * A configuration without an entry for the canary. An own builder, because a default argument
 * swallows `undefined`.
 */
const carriesNoCanary = (trusted: readonly string[]): Configuration => ({
  kind: 'present',
  trusted,
  canary: undefined,
});
const LEAF = cert('leaf1', NOW, 'ca1', 90);
/** Older than the grace time, so that no replica can still hold an earlier one. */
const SETTLED = cert('leaf1', NOW - GRACE, 'ca1', 140);
const quiet: WatchedInput = {
  ca: ca(),
  leaf: LEAF,
  leafProblem: undefined,
  sans: ['w'],
  canaryLeaf: cert('canary', NOW, 'ca1', 90),
  configuration: carries(['ca1']),
  replicas: serving(LEAF, LEAF),
  known: [],
  canary: undefined,
  published: undefined,
  windowMs: 20,
  graceMs: GRACE,
  now: NOW,
};
const input = (more: Partial<WatchedInput> = {}): ChainInput<Watching> => watched({ ...quiet, ...more });
/** In the middle of a change from ca1 to ca2. */
const changing = (more: Partial<WatchedInput> = {}, of: Partial<Authority> = {}): ChainInput<Watching> =>
  input({
    ca: ca({ current: CA2, previous: [CA1], previousSigns: true, ...of }),
    configuration: carries(['ca2', 'ca1']),
    canaryLeaf: cert('canary2', NOW, 'ca2', 90),
    ...more,
  });
const LEAF2 = cert('leaf2', NOW, 'ca2', 90);
const kindOf = (step: Step): string =>
  step.kind === 'wait' ? `wait for ${step.on}` : step.kind === 'issue-leaf' ? `issue-leaf by ${step.by}` : step.kind;
const series = (since: number | undefined, problem?: string, last = NOW) => ({ ca: 'ca2', since, last, problem });

describe('the next step', () => {
  it.each([
    ['none while all is fine', input(), 'wait for nothing'],
    ['a CA where there is none', input({ ca: ca({ current: undefined }) }), 'make-ca'],
    ['a CA where it has expired', input({ now: NOW + 301 }), 'make-ca'],
    ['a CA where a clock went back before it', input({ now: NOW - BACKDATED - 1 }), 'make-ca'],
    [
      'a CA at two thirds of its life',
      input({
        now: NOW + 200,
        leaf: cert('l', NOW + 190, 'ca1', 90),
        canaryLeaf: cert('c', NOW + 190, 'ca1', 90),
        replicas: serving(),
      }),
      'make-ca',
    ],
    ['publishing where nothing is trusted', input({ configuration: carries([]) }), 'publish'],
    ['publishing where another CA is trusted', input({ configuration: carries(['other']) }), 'publish'],
    ['publishing where too much is trusted', input({ configuration: carries(['ca1', 'other']) }), 'publish'],
    [
      'publishing where the canary trusts more than the newest',
      changing({ configuration: carries(['ca2', 'ca1'], ['ca2', 'ca1']) }),
      'publish',
    ],
    ['no publishing where there is no configuration', input({ configuration: { kind: 'absent' } }), 'wait for nothing'],
    ['a certificate for the canary', input({ canaryLeaf: undefined }), 'issue-canary'],
    [
      'none for a canary that is not configured',
      input({ canaryLeaf: undefined, configuration: carriesNoCanary(['ca1']) }),
      'wait for nothing',
    ],
    [
      'patience in a change where no canary is configured: it could never be confirmed',
      changing({ canaryLeaf: undefined, configuration: carriesNoCanary(['ca2', 'ca1']) }),
      'wait for configuration',
    ],
    ['a certificate where there is none', input({ leaf: undefined }), 'issue-leaf by current'],
    [
      'a certificate where it has expired',
      input({ now: NOW + 91, replicas: serving(), canaryLeaf: cert('c', NOW + 90, 'ca1', 90) }),
      'issue-leaf by current',
    ],
    [
      'a certificate where a name is missing',
      input({ sans: ['w', 'x'], canaryLeaf: { ...cert('c', NOW, 'ca1', 90), sans: ['w', 'x'] } }),
      'issue-leaf by current',
    ],
    [
      'a certificate where it is of an unknown CA',
      input({ leaf: cert('l', NOW, 'other', 90), replicas: serving() }),
      'issue-leaf by current',
    ],
    [
      'leaving a certificate of an unknown CA if the trusted CAs are unknown',
      input({ leaf: cert('l', NOW, 'other', 90), configuration: { kind: 'unknown', because: 'no' } }),
      'wait for configuration',
    ],
    [
      'a certificate at two thirds of its life',
      input({ now: NOW + 60, canaryLeaf: cert('c', NOW + 50, 'ca1', 90) }),
      'issue-leaf by current',
    ],
    [
      'keeping a trusted CA of which something is served',
      input({
        ca: ca({ current: CA2 }),
        configuration: carries(['ca2']),
        canaryLeaf: cert('c', NOW, 'ca2', 90),
        known: [CA1],
      }),
      'adopt',
    ],
    [
      'patience while the canary has not come back',
      changing({ canary: series(undefined, 'server b is behind') }),
      'wait for confirmation',
    ],
    [
      'patience while it has not come back for long enough',
      changing({ canary: series(NOW - 19) }),
      'wait for confirmation',
    ],
    [
      'patience where it came back for the CA before',
      changing({ canary: { ...series(NOW - 30), ca: 'ca1' } }),
      'wait for confirmation',
    ],
    ['the note that every API server has it', changing({ canary: series(NOW - 20) }), 'confirm'],
    [
      'patience where the canary came back for long enough, but long ago',
      changing({ canary: series(NOW - 3_600_000, undefined, NOW - CANARY_GAP) }),
      'wait for confirmation',
    ],
    [
      'patience if the series is as long only because nothing checked',
      changing({ canary: series(NOW - 21, undefined, NOW - 2) }),
      'wait for confirmation',
    ],
    [
      'patience where the series began before the configuration was written',
      changing({ canary: series(NOW - 30), published: NOW - 25 }),
      'wait for confirmation',
    ],
    [
      'the note where it began after the configuration was written',
      changing({ canary: series(NOW - 25), published: NOW - 25 }),
      'confirm',
    ],
    [
      'no certificate of a new CA while the configuration is not there: it may come back with the old one',
      changing({ configuration: { kind: 'absent' } }, { confirmed: 'ca2' }),
      'wait for configuration',
    ],
    [
      'no new CA while the configuration is not there',
      input({
        configuration: { kind: 'absent' },
        now: NOW + 200,
        leaf: cert('l', NOW + 190, 'ca1', 90),
        replicas: serving(),
      }),
      'wait for configuration',
    ],
    [
      'a first certificate also where the configuration is not there',
      input({ configuration: { kind: 'absent' }, leaf: undefined, replicas: serving() }),
      'issue-leaf by current',
    ],
    [
      'nothing where an address is written in another way',
      input({
        sans: ['w', '0:0:0:0:0:0:0:1'],
        leaf: { ...LEAF, sans: ['w', '::1'] },
        canaryLeaf: { ...cert('c', NOW, 'ca1', 90), sans: ['w', '::1'] },
      }),
      'wait for nothing',
    ],
    ['a certificate of the new CA once that is noted', changing({}, { confirmed: 'ca2' }), 'issue-leaf by current'],
    [
      'a certificate of the CA before where one is due meanwhile',
      changing({ now: NOW + 60, canaryLeaf: cert('c', NOW + 50, 'ca2', 90) }),
      'issue-leaf by previous',
    ],
    [
      'a certificate of the CA before where it was lost meanwhile',
      changing({ leaf: undefined }),
      'issue-leaf by previous',
    ],
    [
      'patience where CA and certificate are lost and replicas serve a good one',
      changing({ leaf: undefined }, { previousSigns: false }),
      'wait for confirmation',
    ],
    [
      'a certificate at once where nothing good is served',
      changing({ leaf: undefined, replicas: serving() }, { previousSigns: false }),
      'issue-leaf by current',
    ],
    [
      'patience where CA and certificate are lost and a ready replica answers no handshake',
      changing({ leaf: undefined, replicas: serving(undefined) }, { previousSigns: false }),
      'wait for confirmation',
    ],
    [
      'patience if they are lost and the replicas are unknown',
      changing({ leaf: undefined, replicas: { kind: 'unknown', because: 'no' } }, { previousSigns: false }),
      'wait for confirmation',
    ],
    [
      'a first certificate at once where a replica that has none answers no handshake',
      input({ leaf: undefined, replicas: serving(undefined) }),
      'issue-leaf by current',
    ],
    [
      'no patience where no canary could end it',
      changing(
        { leaf: undefined, replicas: serving(undefined), configuration: carriesNoCanary(['ca2', 'ca1']) },
        { previousSigns: false },
      ),
      'issue-leaf by current',
    ],
    [
      'no certificate of a previous CA that would last no longer than the one that is there',
      changing({
        now: NOW + 250,
        leaf: cert('l', NOW, 'ca1', 300),
        replicas: serving(cert('l', NOW, 'ca1', 300)),
        canaryLeaf: cert('c', NOW + 240, 'ca2', 90),
      }),
      'wait for confirmation',
    ],
    [
      'patience where the CA was lost while the configuration is not there, and what is served is of a CA that may come back',
      changing({ configuration: { kind: 'absent' } }, { previousSigns: false }),
      'wait for configuration',
    ],
    [
      'no change of CA without permission on the configuration',
      changing({ configuration: { kind: 'unknown', because: 'no' } }),
      'wait for configuration',
    ],
    [
      'no new CA without permission on the configuration',
      input({
        configuration: { kind: 'unknown', because: 'no' },
        now: NOW + 200,
        leaf: cert('l', NOW + 190, 'ca1', 90),
        replicas: serving(),
      }),
      'wait for configuration',
    ],
    [
      'a first certificate also without permission',
      input({ configuration: { kind: 'unknown', because: 'no' }, leaf: undefined, replicas: serving() }),
      'issue-leaf by current',
    ],
    [
      'patience while a replica serves the CA before',
      changing({ leaf: LEAF2, replicas: serving(LEAF2, LEAF) }, { confirmed: 'ca2' }),
      'wait for replicas',
    ],
    [
      'patience while a replica does not answer',
      changing({ leaf: LEAF2, replicas: serving(LEAF2, undefined) }, { confirmed: 'ca2' }),
      'wait for replicas',
    ],
    [
      'patience while the replicas are not known',
      changing({ leaf: LEAF2, replicas: { kind: 'unknown', because: 'no' } }, { confirmed: 'ca2' }),
      'wait for replicas',
    ],
    [
      'the note that nothing of it is served',
      changing({ leaf: LEAF2, replicas: serving(LEAF2, LEAF2) }, { confirmed: 'ca2' }),
      'retire',
    ],
    [
      'patience for the grace time',
      changing({ leaf: LEAF2, replicas: serving(LEAF2) }, { confirmed: 'ca2', retiredAt: NOW - 49 }),
      'wait for grace',
    ],
    [
      'dropping it after that',
      changing(
        { leaf: cert('leaf2', NOW - 60, 'ca2', 200), replicas: serving(cert('leaf2', NOW - 60, 'ca2', 200)) },
        { confirmed: 'ca2', retiredAt: NOW - 50 },
      ),
      'drop-old',
    ],
    [
      'not dropping it where a certificate changed within the grace time: a replica may still hold the previous one',
      changing({ leaf: LEAF2, replicas: serving(LEAF2) }, { confirmed: 'ca2', retiredAt: NOW - 50 }),
      'wait for grace',
    ],
    [
      'no dropping where a replica fell back',
      changing({ leaf: LEAF2, replicas: serving(LEAF) }, { confirmed: 'ca2', retiredAt: NOW - 50 }),
      'wait for replicas',
    ],
  ])('%s', (_, given, kind) => expect(kindOf(nextStep(given))).toBe(kind));

  it('takes what a lost CA signed along, but no foreign CA', () => {
    const step = nextStep(
      input({
        ca: ca({ current: undefined }),
        leaf: SETTLED,
        replicas: serving(SETTLED),
        known: [CA1, cert('foreign', NOW)],
      }),
    );
    expect(step.kind === 'make-ca' && step.previous.map(({ fingerprint }) => fingerprint)).toEqual(['ca1']);
  });

  it.each([
    [
      'all replicas show what they serve: one may be about to take a certificate that its watch has yet to deliver',
      serving(LEAF, LEAF),
    ],
    ['replicas answer no handshake', serving(LEAF, undefined)],
    ['there are none', serving()],
    ['the replicas are unknown', { kind: 'unknown' as const, because: 'no' }],
  ])('takes every trusted CA along where CA and certificate are lost and %s', (_, replicas) => {
    const known = [CA1, cert('older', NOW), cert('expired', NOW - 400)];
    const step = nextStep(input({ ca: ca({ current: undefined }), leaf: undefined, known, replicas }));
    expect(step.kind === 'make-ca' && step.previous.map(({ fingerprint }) => fingerprint)).toEqual(['ca1', 'older']);
  });

  it('takes every trusted CA along where the certificate is so young that a replica may still hold the previous one', () => {
    const step = nextStep(input({ ca: ca({ current: undefined }), known: [CA1, CA2] }));
    expect(step.kind === 'make-ca' && step.previous.map(({ fingerprint }) => fingerprint)).toEqual(['ca1', 'ca2']);
  });

  it.each([
    ['the CA', input({ ca: anAuthority(undefined, { problem: 'tls.key is not the key of tls.crt' }) })],
    ['the certificate', input({ leaf: undefined, leafProblem: 'in Secret x tls.crt is not a PEM certificate' })],
  ])('says in one sentence what is broken in the Secret of %s', (_, given) =>
    expect(nextStep(given).because).toMatch(/^there is no usable (CA|certificate): .*tls\.(crt|key) is not/),
  );

  it('counts two thirds of a life from when a certificate was made', () => expect(renewalOf(LEAF)).toBe(NOW + 60));
});

const YOUNG = cert('leaf1', NOW + 190, 'ca1', 90);
interface World {
  ca: Authority;
  leaf: CertFacts;
  canaryLeaf: CertFacts;
  configuration: Extract<Configuration, { kind: 'present' }>;
  replicas: CertFacts[];
  /** What each API server holds of the configuration. */
  servers: Extract<Configuration, { kind: 'present' }>[];
  now: number;
}

/** The effect of a step on the world, as the keeper writes it. */
function apply(step: Step, world: World): void {
  const made = `${step.kind}@${world.now}`;
  switch (step.kind) {
    case 'make-ca':
      world.ca = ca({ current: cert(made, world.now), previous: step.previous, previousSigns: true });
      return;
    case 'publish':
      if (!world.configuration.trusted.includes(world.ca.current?.fingerprint ?? ''))
        world.ca = { ...world.ca, confirmed: undefined };
      world.configuration = {
        kind: 'present',
        trusted: step.bundle.map(({ fingerprint }) => fingerprint),
        canary: step.bundle.slice(0, 1).map(({ fingerprint }) => fingerprint),
      };
      return;
    case 'issue-canary':
      world.canaryLeaf = cert(made, world.now, world.ca.current?.fingerprint, 90);
      return;
    case 'confirm':
      world.ca = { ...world.ca, confirmed: world.ca.current?.fingerprint };
      return;
    case 'issue-leaf': {
      const signer = step.by === 'current' ? world.ca.current : world.ca.previous[0];
      world.leaf = cert(made, world.now, signer?.fingerprint, 90);
      return;
    }
    case 'retire':
      world.ca = { ...world.ca, previousSigns: false, retiredAt: world.now };
      return;
    case 'drop-old':
      world.ca = ca({ current: world.ca.current, confirmed: world.ca.confirmed });
      return;
    case 'adopt':
    case 'hand-out':
    case 'issue-client':
    case 'wait':
  }
}

describe('a change of CA', () => {
  // Every order in which three API servers and three replicas may learn of a change, as far as a
  // counter's digits make one.
  it.each(Array.from({ length: 64 }, (_, seed) => [seed]))(
    'drops nothing, however late servers and replicas learn of it (%i)',
    (seed) => {
      const world: World = {
        ca: ca(),
        leaf: YOUNG,
        canaryLeaf: cert('canary', NOW + 190, 'ca1', 90),
        configuration: { kind: 'present', trusted: ['ca1'], canary: ['ca1'] },
        replicas: [YOUNG, YOUNG, YOUNG],
        servers: [],
        now: NOW + 199,
      };
      world.servers = [world.configuration, world.configuration, world.configuration];
      let since: number | undefined;
      const steps: string[] = [];
      for (let i = 0; i < 400 && !(steps.includes('drop-old') && world.configuration.trusted.length === 1); i += 1) {
        world.now += 1;
        // One of six learns at each tick.
        const turn = (i * 7 + seed * 5 + Math.floor(i / 6) * seed) % 6;
        if (turn < 3) world.servers[turn] = world.configuration;
        else world.replicas[turn - 3] = world.leaf;
        const newest = world.ca.current;
        const canaryBack = world.servers.every(
          ({ canary }) =>
            newest !== undefined && canary?.[0] === newest.fingerprint && world.canaryLeaf.signedBy(newest),
        );
        since = canaryBack ? (since ?? world.now) : undefined;
        const { servers: _, ...rest } = world;
        const step = nextStep(
          input({
            ...rest,
            replicas: serving(...world.replicas),
            canary: { ca: newest?.fingerprint ?? '', since, last: world.now, problem: undefined },
            windowMs: 3,
            graceMs: 20,
          }),
        );
        if (step.kind !== 'wait') steps.push(step.kind);
        apply(step, world);
        // Any server may call any replica.
        for (const { trusted } of world.servers)
          for (const leaf of world.replicas)
            expect(
              trusted.some((print) => leaf.signedBy(cert(print, 0)) && leaf.to > world.now),
              `${steps.join()} at ${i}`,
            ).toBe(true);
        expect(bundleOf(world.ca, world.now).some((known) => world.leaf.signedBy(known))).toBe(true);
      }
      expect(steps.filter((kind) => kind !== 'issue-leaf' && kind !== 'issue-canary')).toEqual([
        'make-ca',
        'publish',
        'confirm',
        'retire',
        'drop-old',
        'publish',
      ]);
    },
  );
});
