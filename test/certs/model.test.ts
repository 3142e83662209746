// Histories of losses, corruptions, jumps of the clock, leader changes and followers that lag. A
// caller that trusts what was published never fails, unless the table in docs/certificates.md says
// so; a history that ends quietly converges.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { histories } from '../support/histories.ts';
import { DAY, EXCUSES, HOUR, MINUTE, SECOND, Violation, World, type Mistake } from './world.ts';

const HISTORIES = histories(500, 2000);
/** A mistake ends the search, so that a long one costs nothing. */
const SEARCHED = 2000;
/**
 * Fixed, so that a run of all tests judges the change and not the draw. Another one explores
 * further.
 */
const SEED = Number(process.env['GPU_GATE_TEST_SEED'] ?? 12);

/** Every kind of harm, and the row of the docs' table that says what comes of it. */
const HARMS: Readonly<Record<string, { readonly row: string; readonly harm: (w: World, n: number) => void }>> = {
  "the webhook's Secret lost": {
    row: "the webhook's Secret deleted, corrupted, truncated, or without the right name",
    harm: (w) => w.writeWebhookSecret({ leaf: undefined, beside: [] }),
  },
  "the webhook's Secret corrupted": {
    row: "the webhook's Secret deleted, corrupted, truncated, or without the right name",
    harm: (w) => w.writeWebhookSecret({ ...w.webhookSecret, leaf: undefined }),
  },
  "the webhook's Secret of a foreign CA": {
    row: "the webhook's Secret replaced by a valid one of a foreign CA",
    harm: (w) => w.writeWebhookSecret(w.foreignLeaf()),
  },
  "the CA's Secret lost": {
    row: "the CA's Secret deleted, corrupted, truncated, its key missing, also together with the webhook's Secret",
    harm: (w) => {
      w.webhookCa = { previous: [] };
      w.extenderCa = { previous: [] };
    },
  },
  "the CA's key lost": {
    row: "the CA's Secret deleted, corrupted, truncated, its key missing, also together with the webhook's Secret",
    harm: (w, n) => {
      if (n % 2 === 0) w.webhookCa = { ...w.webhookCa, key: undefined };
      else w.extenderCa = { ...w.extenderCa, key: undefined };
    },
  },
  "the CA's Secret corrupted": {
    row: "the CA's Secret deleted, corrupted, truncated, its key missing, also together with the webhook's Secret",
    harm: (w) => {
      w.webhookCa = { ...w.webhookCa, current: undefined };
      w.extenderCa = { ...w.extenderCa, current: undefined };
    },
  },
  "the CA's Secret replaced": {
    row: "the CA's Secret replaced by a foreign CA",
    harm: (w, n) => {
      const ca = w.foreignCa();
      const stored = { current: ca, key: ca.fingerprint, previous: [] };
      if (n % 2 === 0) w.webhookCa = stored;
      else w.extenderCa = stored;
    },
  },
  'both Secrets lost': {
    row: "the CA's Secret deleted, corrupted, truncated, its key missing, also together with the webhook's Secret",
    harm: (w) => {
      w.webhookCa = { previous: [] };
      w.extenderCa = { previous: [] };
      w.writeWebhookSecret({ leaf: undefined, beside: [] });
    },
  },
  'both Secrets lost seconds after the switch of a change': {
    row: "the CA's Secret deleted, corrupted, truncated, its key missing, also together with the webhook's Secret",
    harm: (w, n) => {
      for (const [i, { secret, configuration }] of w.webhooks.entries()) {
        secret.lag = (((i * n) % 3) + 1) * 4 * SECOND;
        configuration.lag = (n % 4) * 10 * SECOND;
      }
      w.webhookCa = { previous: [] };
      const switches = (): number => w.steps.filter((step) => step === 'webhook issue-leaf').length;
      const before = switches();
      for (let i = 0; i < 300 && switches() === before; i += 1) w.live(SECOND);
      w.live((n % 12) * SECOND);
      w.webhookCa = { previous: [] };
      w.writeWebhookSecret({ leaf: undefined, beside: [] });
    },
  },
  'the leader reaches no replica': {
    row: 'both lost while the leader reaches no replica',
    harm: (w) => {
      w.blind = !w.blind;
    },
  },
  "the extender's Secret lost": {
    row: "the extender's Secret deleted, corrupted, truncated",
    harm: (w) => w.writeExtenderSecret({ leaf: undefined, beside: [] }),
  },
  "the CA's and the extender's Secret lost": {
    row: "the extender's Secret lost after the CA's or with it",
    harm: (w) => {
      w.extenderCa = { previous: [] };
      w.writeExtenderSecret({ leaf: undefined, beside: [] });
    },
  },
  "the extender's Secret of a foreign CA": {
    row: "the extender's Secret replaced by one of a foreign CA",
    harm: (w) => w.writeExtenderSecret(w.foreignLeaf()),
  },
  'the ConfigMap lost': {
    row: 'ConfigMap `gpu-gate-extender-ca` deleted, also during a change of that CA',
    harm: (w) => {
      w.configMap = [];
    },
  },
  'the client Secret lost': {
    row: "Secret of the canary or of the scheduler's client deleted",
    harm: (w) => w.writeClientSecret({ leaf: undefined, beside: [] }),
  },
  "the CA's and the client's Secret lost": {
    row: "Secret of the canary or of the scheduler's client deleted",
    harm: (w, n) => {
      for (const { secret } of w.extenders) secret.lag = (n % 30) * SECOND;
      w.extenderCa = n % 2 === 0 ? { previous: [] } : { ...w.extenderCa, key: undefined };
      w.writeClientSecret({ leaf: undefined, beside: [] });
    },
  },
  'the canary Secret lost': {
    row: "Secret of the canary or of the scheduler's client deleted",
    harm: (w) => w.writeCanarySecret({ leaf: undefined, beside: [] }),
  },
  'the configuration deleted and put back': {
    row: 'the webhook configuration deleted',
    harm: (w, n) => {
      const before = w.configuration;
      if (before === undefined) return;
      w.writeConfiguration(undefined);
      w.live(n * SECOND);
      w.writeConfiguration(before);
    },
  },
  "the CA's Secret lost while the configuration is deleted": {
    row: 'the webhook configuration deleted',
    harm: (w, n) => {
      const before = w.configuration;
      if (before === undefined) return;
      w.writeConfiguration(undefined);
      w.live(n * SECOND);
      w.webhookCa = { previous: [] };
      w.extenderCa = { previous: [] };
      w.live(n * SECOND);
      w.writeConfiguration(before);
    },
  },
  'caBundle wiped': {
    row: '`caBundle` wiped',
    harm: (w) => {
      if (w.configuration !== undefined) w.writeConfiguration({ trusted: [], canary: [], harmed: true });
    },
  },
  'a long sleep': {
    row: 'certificate expired during a long sleep',
    harm: (w, n) => w.sleep(n * DAY),
  },
  'a short sleep': {
    row: 'the leader was asleep or lost its lease during the confirmation',
    harm: (w, n) => w.sleep(n * MINUTE),
  },
  'another leader': { row: 'the leader dies after any write', harm: (w) => w.newLeader() },
  'a leader that dies in the middle': {
    row: 'the leader dies after any write',
    harm: (w, n) => {
      for (let i = 0; i < n % 7; i += 1) w.step(n % 2 === 0 ? 'webhook' : 'extender');
      w.leads = false;
      w.live(n * SECOND);
      w.leads = true;
      w.newLeader();
    },
  },
  'an API server lags': {
    row: 'one of two API servers hears of the change late, also where both are behind one address',
    harm: (w, n) => {
      for (const [i, { watch }] of w.servers.entries()) watch.lag = i === n % 2 ? n * 3 * SECOND : SECOND;
    },
  },
  'replicas lag': {
    row: 'the leader dies after any write',
    harm: (w, n) => {
      for (const [i, { secret, configuration }] of [...w.webhooks, ...w.extenders].entries()) {
        secret.lag = ((i * n) % 7) * 5 * SECOND;
        configuration.lag = ((i + n) % 5) * 5 * SECOND;
      }
      for (const [i, { mount }] of w.schedulers.entries()) mount.lag = ((i + n) % 3) * 45 * SECOND;
    },
  },
  'a replica restarts': {
    row: "the webhook's Secret deleted, corrupted, truncated, or without the right name",
    harm: (w, n) => w.restartReplica(n % 2 === 0 ? 'webhook' : 'extender', Math.floor(n / 2) % 3),
  },
  'the extender rolls out': {
    row: "the extender's Secret lost after the CA's or with it",
    harm: (w, n) => {
      for (const i of [0, 1]) {
        w.restartReplica('extender', i);
        w.live(n * SECOND);
      }
    },
  },
  'a scheduler restarts': {
    row: "the extender's Secret lost after the CA's or with it",
    harm: (w, n) => w.restartScheduler(n % 2),
  },
};

interface Event {
  readonly what: string;
  readonly n: number;
  /** How long the world lives on afterwards. */
  readonly lives: number;
}
const pause = fc.oneof(
  fc.integer({ min: 0, max: 20 }).map((n) => n * SECOND),
  fc.integer({ min: 0, max: 20 }).map((n) => n * MINUTE),
  fc.integer({ min: 1, max: 70 }).map((n) => n * DAY),
);
const eventOf = (...kinds: readonly string[]): fc.Arbitrary<Event> =>
  fc.record({ what: fc.constantFrom(...kinds), n: fc.integer({ min: 0, max: 59 }), lives: pause });
const historyOf = (event: fc.Arbitrary<Event>): fc.Arbitrary<Event[]> =>
  fc.array(event, { minLength: 1, maxLength: 6 });
const anyEvent = eventOf(...Object.keys(HARMS));
const history = historyOf(anyEvent);
const described = (events: readonly Event[]): string =>
  events.map(({ what, n, lives }) => `${what} (${n}), ${lives / 1000} s`).join('; ');

/** A world on which everything is in order and some days old. */
function sound(mistake: Mistake | undefined): World {
  const world = new World(mistake);
  world.writeConfiguration(world.configuration);
  world.live(MINUTE);
  world.live(2 * MINUTE);
  for (const i of [0, 1]) world.restartScheduler(i);
  world.live(2 * DAY);
  if (mistake === undefined && world.unsound() !== undefined) throw new Error(`no sound start: ${world.unsound()}`);
  return world;
}

function lived(events: readonly Event[], mistake?: Mistake): World {
  const world = sound(mistake);
  try {
    for (const { what, n, lives } of events) {
      world.diary.push(`-- ${what} (${n})`);
      HARMS[what]?.harm(world, n);
      world.live(lives);
    }
    // Quiet: the leader reaches replicas, nothing lags, schedulers are restarted as they were asked
    // to.
    world.diary.push('-- quiet');
    world.blind = false;
    for (const follower of [...world.servers.map(({ watch }) => watch), ...world.schedulers.map(({ mount }) => mount)])
      follower.lag = SECOND;
    for (const { secret, configuration } of [...world.webhooks, ...world.extenders]) {
      secret.lag = SECOND;
      configuration.lag = SECOND;
    }
    world.live(HOUR);
    for (const i of [0, 1]) world.restartScheduler(i);
    world.live(200 * DAY, DAY);
  } catch (error) {
    if (error instanceof Violation) error.message += `\n${world.diary.slice(-40).join('\n')}`;
    throw error;
  }
  return world;
}

/** Rows of the docs' table "When something is broken": what happened, what comes of it. */
const TABLE = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'certificates.md'), 'utf8')
  .split('## When something is broken')[1]
  ?.split('\n## ')[0]
  ?.split('\n')
  .flatMap((line) => {
    const [, happened, outcome] = line.split('|').map((cell) => cell.trim());
    return happened === undefined || outcome === undefined ? [] : [{ happened, outcome }];
  });
const outcomeOf = (row: string): string | undefined => TABLE?.find(({ happened }) => happened.includes(row))?.outcome;

describe('certificates', () => {
  it.each(Object.entries(HARMS))('the docs say what comes of it: %s', (_, { row }) =>
    expect(outcomeOf(row)).toBeDefined(),
  );

  it.each(EXCUSES)('the docs say that calls fail: %s', (row) => expect(outcomeOf(row)).toMatch(/calls fail/));

  it(`${HISTORIES} histories: no caller fails but as the docs say, and every quiet history converges`, () => {
    console.log(`certificates, model test: seed ${SEED}`);
    const excused = new Map<string, number>();
    const kinds = new Map<string, number>();
    fc.assert(
      fc.property(history, (events) => {
        const world = lived(events);
        for (const row of world.excused) excused.set(row, (excused.get(row) ?? 0) + 1);
        for (const kind of new Set(world.steps)) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        const why = world.unsound();
        if (why !== undefined)
          throw new Violation(`not sound at the end: ${why}\n${world.diary.slice(-40).join('\n')}`);
      }),
      {
        numRuns: HISTORIES,
        seed: SEED,
        endOnFailure: true,
        reporter: ({ failed, counterexample, counterexamplePath, errorInstance }) => {
          if (failed)
            throw new Error(
              `seed ${SEED}, path ${counterexamplePath}: ${String((errorInstance as Error | undefined)?.message)}\nhistory: ${described(counterexample?.[0] ?? [])}`,
            );
        },
      },
    );
    console.log(`excused by the docs: ${[...excused].map(([row, n]) => `${row} ${n}`).join(', ')}`);
    console.log(`histories with each step: ${[...kinds].map(([kind, n]) => `${kind} ${n}`).join(', ')}`);
    expect([...kinds.keys()].sort()).toContain('extender issue-leaf');
  });

  // The harm that shows the mistake comes more often, so that no draw of histories misses it.
  it.each<[Mistake, string]>([
    ['takes-away-what-is-served', "the CA's and the extender's Secret lost"],
    ['keeps-only-what-it-saw', 'both Secrets lost seconds after the switch of a change'],
    ['knows-only-the-configuration', "the CA's Secret lost while the configuration is deleted"],
    ['renews-clients-in-haste', "the CA's and the client's Secret lost"],
    ['stops-stating-the-day', 'the extender rolls out'],
  ])('catches a keeper that %s', (mistake, shownBy) => {
    const event = fc.oneof({ weight: 1, arbitrary: eventOf(shownBy) }, { weight: 2, arbitrary: anyEvent });
    const outcome = fc.check(
      fc.property(historyOf(event), (events) => void lived(events, mistake)),
      { numRuns: SEARCHED, seed: SEED, endOnFailure: true },
    );
    expect(outcome.failed).toBe(true);
    console.log(`${mistake}: caught by history ${outcome.numRuns} of ${SEARCHED}`);
  });
});
