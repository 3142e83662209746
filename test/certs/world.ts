// A cluster as values, for the model test of the certificates' rules: objects that can be lost, API
// servers, replicas and schedulers that hear of a change late, leaders that are replaced, and a
// clock. It judges every call that could be made.
import { bundleOf, type Authority } from '../../certs/authority.ts';
import { validAt, type CertFacts } from '../../certs/cert.ts';
import type { ChainInput, Change, ReadingOnce, Replicas, Step, Watching } from '../../certs/chain.ts';
import { restartBy } from '../../certs/extender-rules.ts';
import { refusal } from '../../certs/judge.ts';
import { nextStep } from '../../certs/rules.ts';
import { CANARY_GAP } from '../../certs/webhook-rules.ts';
import { aCert, anAuthority } from '../builders/certs.ts';

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
const GRACE = 10 * MINUTE;
const WINDOW = MINUTE;
const OVERLAP = 60 * DAY;
const LIVES = { ca: 5 * 365 * DAY, extenderCa: 10 * 365 * DAY, leaf: 90 * DAY };
const NAMES = ['n'];
const MAX_STEPS = 16;

/**
 * A CA as a Secret holds it. The keys are named by the fingerprint of the CA that they belong to.
 */
interface StoredCa {
  readonly current?: CertFacts | undefined;
  readonly key?: string | undefined;
  readonly previous: readonly CertFacts[];
  readonly previousKey?: string | undefined;
  readonly confirmed?: string | undefined;
  readonly changedAt?: number | undefined;
  readonly retiredAt?: number | undefined;
}
const NO_CA: StoredCa = { previous: [] };
interface StoredLeaf {
  readonly leaf: CertFacts | undefined;
  readonly beside: readonly CertFacts[];
}
const NO_LEAF: StoredLeaf = { leaf: undefined, beside: [] };
interface Bundles {
  readonly trusted: readonly CertFacts[];
  readonly canary: readonly CertFacts[];
  /** An outsider wrote it, and calls fail until the leader has answered. */
  readonly harmed: boolean;
}

/** Receives each value after a delay, in order. */
class Follower<T> {
  readonly #take: (value: T) => void;
  readonly #queue: { readonly at: number; readonly value: T }[] = [];
  /** Delay before a value is delivered. */
  lag = SECOND;
  constructor(take: (value: T) => void) {
    this.#take = take;
  }
  hear(value: T, now: number): void {
    this.#queue.push({ at: Math.max(now + this.lag, this.#queue.at(-1)?.at ?? 0), value });
  }
  deliver(now: number): void {
    while ((this.#queue[0]?.at ?? Infinity) <= now) this.#take((this.#queue.shift() as { value: T }).value);
  }
  /** Takes the value now and drops what is still on its way. */
  restart(value: T): void {
    this.#queue.length = 0;
    this.#take(value);
  }
  get coming(): readonly T[] {
    return this.#queue.map(({ value }) => value);
  }
  get behind(): boolean {
    return this.#queue.length > 0;
  }
}

class Replica {
  served: CertFacts | undefined;
  offered: CertFacts | undefined;
  clientCas: readonly CertFacts[] = [];
  trusted: readonly CertFacts[] = [];
  readonly secret: Follower<StoredLeaf>;
  readonly configuration: Follower<Bundles | undefined>;
  constructor(now: () => number) {
    this.secret = new Follower<StoredLeaf>(({ leaf, beside }) => {
      this.offered = leaf;
      if (leaf === undefined && beside.length > 0 && this.served !== undefined) this.clientCas = beside;
      this.judge(now(), beside);
    });
    this.configuration = new Follower<Bundles | undefined>((bundles) => {
      this.trusted = bundles?.trusted ?? [];
      this.judge(now());
    });
  }
  judge(now: number, beside?: readonly CertFacts[]): void {
    const { offered, served, trusted } = this;
    if (offered === undefined) return;
    if (refusal({ offered, keyFits: true, names: NAMES, served, trusted, now }) !== undefined) return;
    this.served = offered;
    if (beside !== undefined) this.clientCas = beside;
  }
  ready(now: number): boolean {
    return validAt(this.served, now);
  }
}

interface Scheduler {
  /** What it read at its start. */
  cas: readonly CertFacts[];
  client: CertFacts | undefined;
  /** A stated day has come since it started, and it does not know the newest CA. */
  warned: boolean;
  readonly mount: Follower<CertFacts | undefined>;
}

type Target = 'webhook' | 'extender';
export type Mistake =
  | 'takes-away-what-is-served'
  | 'keeps-only-what-it-saw'
  | 'knows-only-the-configuration'
  | 'renews-clients-in-haste'
  | 'stops-stating-the-day';

/** Rows of the docs' table by which a call may fail. */
export const EXCUSES = [
  '`caBundle` wiped',
  "the webhook's Secret replaced by a valid one of a foreign CA",
  "the extender's Secret replaced by one of a foreign CA",
  'a scheduler not restarted by the stated day',
] as const;
type Excuse = (typeof EXCUSES)[number];

export class Violation extends Error {}

const prints = (certs: readonly CertFacts[]): readonly string[] => certs.map(({ fingerprint }) => fingerprint);
const signedByOne = (cert: CertFacts, cas: readonly CertFacts[], now: number): boolean =>
  cas.some((ca) => validAt(ca, now) && cert.signedBy(ca));

export class World {
  now = 1_700_000_000_000;
  webhookCa: StoredCa = NO_CA;
  extenderCa: StoredCa = NO_CA;
  webhookSecret = NO_LEAF;
  canarySecret = NO_LEAF;
  extenderSecret = NO_LEAF;
  clientSecret = NO_LEAF;
  configMap: readonly CertFacts[] = [];
  configuration: Bundles | undefined = { trusted: [], canary: [], harmed: true };
  /** The leader reaches no replica. */
  blind = false;
  leads = true;
  readonly servers: { view: Bundles | undefined; readonly watch: Follower<Bundles | undefined> }[];
  readonly webhooks: readonly Replica[];
  readonly canaries: { served: CertFacts | undefined; readonly secret: Follower<StoredLeaf> }[];
  readonly extenders: readonly Replica[];
  readonly schedulers: readonly Scheduler[];
  readonly steps: string[] = [];
  /** Which of the excuses of the docs' table were needed. */
  readonly excused = new Set<string>();
  /** What happened so far, for the report. */
  readonly diary: string[] = [];
  #canary: Watching['canary'];
  #published: number | undefined;
  #handedOut: { readonly ca: string; readonly since: number } | undefined;
  readonly #foreign = new Set<string>();
  /**
   * Certificates in use of whose CA nothing is left: it was lost together with all that names it.
   */
  readonly #orphans = new Set<string>();
  #made = 0;
  readonly #mistake: Mistake | undefined;

  constructor(mistake?: Mistake) {
    this.#mistake = mistake;
    const now = (): number => this.now;
    this.servers = [0, 1].map(() => {
      const server: { view: Bundles | undefined; watch: Follower<Bundles | undefined> } = {
        view: undefined,
        watch: new Follower<Bundles | undefined>((bundles) => (server.view = bundles)),
      };
      return server;
    });
    this.webhooks = [0, 1, 2].map(() => new Replica(now));
    this.canaries = [0, 1, 2].map(() => {
      const port: { served: CertFacts | undefined; secret: Follower<StoredLeaf> } = {
        served: undefined,
        secret: new Follower<StoredLeaf>(({ leaf }) => (port.served = leaf ?? port.served)),
      };
      return port;
    });
    this.extenders = [0, 1].map(() => new Replica(now));
    this.schedulers = [0, 1].map(() => {
      const scheduler: Scheduler = {
        cas: [],
        client: undefined,
        warned: false,
        mount: new Follower<CertFacts | undefined>((client) => (scheduler.client = client ?? scheduler.client)),
      };
      return scheduler;
    });
  }

  // --- what others do

  cert(life: number, by: string | undefined): CertFacts {
    this.#made += 1;
    return aCert(`${by === undefined ? 'ca' : 'leaf'}${this.#made}`, this.now, life, by, NAMES);
  }
  foreignCa(): CertFacts {
    return this.cert(LIVES.ca, undefined);
  }
  foreignLeaf(): StoredLeaf {
    const ca = this.foreignCa();
    const leaf = this.cert(LIVES.leaf, ca.fingerprint);
    this.#foreign.add(leaf.fingerprint);
    return { leaf, beside: [ca] };
  }
  writeWebhookSecret(secret: StoredLeaf): void {
    this.webhookSecret = secret;
    for (const replica of this.webhooks) replica.secret.hear(secret, this.now);
  }
  writeCanarySecret(secret: StoredLeaf): void {
    this.canarySecret = secret;
    for (const port of this.canaries) port.secret.hear(secret, this.now);
  }
  writeExtenderSecret(secret: StoredLeaf): void {
    this.extenderSecret = secret;
    for (const replica of this.extenders) replica.secret.hear(secret, this.now);
  }
  writeClientSecret(secret: StoredLeaf): void {
    this.clientSecret = secret;
    for (const { mount } of this.schedulers) mount.hear(secret.leaf, this.now);
  }
  writeConfiguration(bundles: Bundles | undefined): void {
    this.configuration = bundles;
    for (const { watch } of this.servers) watch.hear(bundles, this.now);
    for (const { configuration } of this.webhooks) configuration.hear(bundles, this.now);
  }
  restartReplica(target: Target, i: number): void {
    const replica = (target === 'webhook' ? this.webhooks : this.extenders)[i];
    if (replica === undefined) return;
    replica.served = undefined;
    replica.clientCas = [];
    if (target === 'webhook') {
      replica.configuration.restart(this.configuration);
      replica.secret.restart(this.webhookSecret);
    } else replica.secret.restart(this.extenderSecret);
  }
  /** A scheduler whose Secret is missing does not start: its pod waits for the volume. */
  restartScheduler(i: number): void {
    const scheduler = this.schedulers[i];
    if (scheduler === undefined || this.clientSecret.leaf === undefined || this.configMap.length === 0) return;
    scheduler.cas = this.configMap;
    scheduler.warned = false;
    scheduler.mount.restart(this.clientSecret.leaf);
  }
  newLeader(): void {
    this.#canary = undefined;
    this.#published = undefined;
    this.#handedOut = undefined;
  }

  // --- time

  /**
   * Lives on for that long and judges every call on the way. Looks less often at a state that
   * persists.
   */
  live(ms: number, coarse = 6 * HOUR): void {
    const end = this.now + ms;
    let last = '';
    let same = 0;
    while (this.now < end) {
      this.#noteOrphans();
      const waits = this.leads ? this.#check() : [];
      this.judge();
      const confirms = waits.includes('confirmation');
      const soon = confirms || this.#behind;
      const pause = soon ? SECOND : waits.some((on) => on === 'grace' || on === 'replicas') ? MINUTE : coarse;
      const state = `${pause} ${waits.join()}`;
      same = state === last ? same + 1 : 0;
      last = state;
      // Canaries further apart than the gap would never confirm anything.
      const slower = confirms ? Math.min(8, 2 ** Math.floor(same / 90)) : 2 ** Math.floor(same / 20);
      this.now = Math.min(end, this.now + Math.min(coarse, pause * slower));
      this.#deliver();
      this.judge();
    }
  }
  /** Nobody runs for that long, as where a machine sleeps. Whatever was on its way arrives. */
  sleep(ms: number): void {
    this.now += ms;
    this.#deliver();
  }
  get #followers(): readonly Follower<never>[] {
    return [
      ...this.servers.map(({ watch }) => watch),
      ...this.webhooks.flatMap(({ secret, configuration }) => [secret, configuration]),
      ...this.canaries.map(({ secret }) => secret),
      ...this.extenders.map(({ secret }) => secret),
      ...this.schedulers.map(({ mount }) => mount),
    ] as unknown as Follower<never>[];
  }
  get #behind(): boolean {
    return this.#followers.some(({ behind }) => behind);
  }
  #deliver(): void {
    for (const follower of this.#followers) follower.deliver(this.now);
    for (const replica of [...this.webhooks, ...this.extenders]) replica.judge(this.now);
  }

  // --- the leader

  #check(): readonly string[] {
    return [this.#advance('webhook'), this.#advance('extender')];
  }
  #advance(chain: Target): string {
    for (let i = 0; i < MAX_STEPS; i += 1) {
      const step = this.step(chain);
      if (step.kind === 'wait') return step.on;
    }
    return 'limit';
  }
  /** One step of the leader: what it does and nothing more. */
  step(chain: Target): Step {
    if (chain === 'webhook') {
      let input = this.webhookInput();
      let step = this.#next(input);
      if (step.kind === 'wait' && step.on === 'confirmation' && input.callers.canaryLeaf !== undefined) {
        this.#sendCanary(input.callers.canaryLeaf, input.ca.current);
        input = this.webhookInput();
        step = this.#next(input);
      }
      if (step.kind !== 'wait') this.#takeWebhook(step, input);
      return step;
    }
    const input = this.extenderInput();
    const step = this.#next(input);
    if (step.kind !== 'wait') this.#takeExtender(step, input);
    return step;
  }

  #authority({ current, key, previous, previousKey, ...state }: StoredCa): Authority {
    return anAuthority(current !== undefined && key === current.fingerprint ? current : undefined, {
      previous,
      previousSigns: previous[0] !== undefined && previousKey === previous[0].fingerprint,
      confirmed: state.confirmed,
      changedAt: state.changedAt,
      retiredAt: state.retiredAt,
    });
  }
  #seen(replicas: readonly Replica[]): Replicas {
    const ready = replicas.map((replica, i) => ({ replica, i })).filter(({ replica }) => replica.ready(this.now));
    return {
      kind: 'known',
      served: ready.map(({ replica, i }) => ({ address: `r${i}`, leaf: this.blind ? undefined : replica.served })),
    };
  }
  webhookInput(): ChainInput<Watching> {
    const { configuration } = this;
    const beside = [...this.webhookSecret.beside, ...this.canarySecret.beside];
    const published = configuration?.trusted ?? [];
    const fallback = this.#mistake === 'knows-only-the-configuration' ? [] : beside;
    return {
      ca: this.#authority(this.webhookCa),
      leaf: this.webhookSecret.leaf,
      leafProblem: undefined,
      sans: NAMES,
      replicas: this.#seen(this.webhooks),
      known: published.length > 0 ? published : fallback,
      graceMs: GRACE,
      now: this.now,
      callers: {
        kind: 'watch',
        configuration:
          configuration === undefined
            ? { kind: 'absent' }
            : { kind: 'present', trusted: prints(configuration.trusted), canary: prints(configuration.canary) },
        canaryLeaf: this.canarySecret.leaf,
        canary: this.#canary,
        published: this.#published,
        windowMs: WINDOW,
      },
    };
  }
  extenderInput(): ChainInput<ReadingOnce> {
    const ca = this.#authority(this.extenderCa);
    const { beside } = this.extenderSecret;
    const current = ca.current?.fingerprint;
    if (current === undefined || !prints(beside).includes(current)) this.#handedOut = undefined;
    else if (this.#handedOut?.ca !== current) this.#handedOut = { ca: current, since: this.now };
    return {
      ca,
      leaf: this.extenderSecret.leaf,
      leafProblem: undefined,
      sans: NAMES,
      replicas: this.#seen(this.extenders),
      known: this.configMap.length > 0 ? this.configMap : [...beside, ...this.clientSecret.beside],
      graceMs: GRACE,
      now: this.now,
      callers: {
        kind: 'read-once',
        client: this.clientSecret.leaf,
        handedOut: {
          configMap: prints(this.configMap),
          serving: prints(beside),
          client: prints(this.clientSecret.beside),
        },
        handedOutSince: this.#handedOut?.since,
        overlapMs: OVERLAP,
      },
    };
  }
  /**
   * The rules, or what they were before each of the faults that the mistakes are named after was
   * corrected.
   */
  #next(input: ChainInput): Step {
    const step = nextStep(this.#mistake === 'keeps-only-what-it-saw' ? this.#onlySeen(input) : input);
    const { callers, ca, now } = input;
    switch (this.#mistake) {
      case 'takes-away-what-is-served':
        return step.kind === 'wait' && step.on === 'schedulers' && input.leaf === undefined
          ? { kind: 'issue-leaf', by: 'current', because: this.#mistake }
          : step;
      case 'renews-clients-in-haste': {
        const client = callers.kind === 'read-once' ? callers.client : undefined;
        const due = client === undefined || now >= client.to - LIVES.leaf / 3;
        return callers.kind === 'read-once' && step.kind === 'wait' && ca.previous.length > 0 && due
          ? { kind: 'issue-client', by: 'current', because: this.#mistake }
          : step.kind === 'issue-client'
            ? { ...step, by: 'current' }
            : step;
      }
      case 'knows-only-the-configuration': {
        const known = input.leaf !== undefined && signedByOne(input.leaf, bundleOf(ca, now), now);
        return callers.kind === 'watch' && callers.configuration.kind === 'absent' && step.kind === 'wait' && !known
          ? { kind: 'issue-leaf', by: 'current', because: this.#mistake }
          : step;
      }
      case 'keeps-only-what-it-saw':
      case 'stops-stating-the-day':
      case undefined:
        return step;
    }
  }
  /**
   * As if every certificate in use were one that is seen: in a Secret, or in a handshake with each
   * replica.
   */
  #onlySeen(input: ChainInput): ChainInput {
    const { leaf, callers, replicas, known } = input;
    const served = replicas.kind === 'known' ? replicas.served.map((replica) => replica.leaf) : [];
    if (leaf === undefined && (served.length === 0 || served.includes(undefined))) return input;
    const seen = [leaf, callers.kind === 'read-once' ? callers.client : undefined, ...served];
    return { ...input, known: known.filter((ca) => seen.some((cert) => cert?.signedBy(ca) === true)) };
  }
  statedDay(): number | undefined {
    const input = this.extenderInput();
    const { current } = input.ca;
    if (this.#mistake === 'stops-stating-the-day' && current !== undefined && input.leaf?.signedBy(current) === true)
      return undefined;
    return restartBy(input);
  }

  #sendCanary(leaf: CertFacts, ca: CertFacts | undefined): void {
    const back = this.servers.every(
      ({ view }, i) =>
        view !== undefined &&
        view.canary.some((known) => leaf.signedBy(known)) &&
        this.canaries[(i + Math.floor(this.now / SECOND)) % this.canaries.length]?.served === leaf,
    );
    const last = this.#canary;
    const goesOn = last !== undefined && last.ca === ca?.fingerprint && this.now - last.last < CANARY_GAP;
    const since = back ? ((goesOn ? last.since : undefined) ?? this.now) : undefined;
    this.#canary = { ca: ca?.fingerprint ?? '', since, last: this.now, problem: back ? undefined : 'not back' };
  }

  #renewed(stored: StoredCa, fresh: CertFacts, previous: readonly CertFacts[]): StoredCa {
    const [signer] = previous;
    const kept = [stored.key, stored.previousKey].find((key) => key !== undefined && key === signer?.fingerprint);
    return {
      current: fresh,
      key: fresh.fingerprint,
      previous,
      previousKey: kept,
      changedAt: signer === undefined ? undefined : this.now,
    };
  }
  /** What both chains do with their CA. `undefined` for another step. */
  #takeCa(step: Change, stored: StoredCa, life: number): StoredCa | undefined {
    switch (step.kind) {
      case 'make-ca':
        return this.#renewed(stored, this.cert(life, undefined), step.previous);
      case 'adopt':
        return {
          ...stored,
          previous: step.previous,
          confirmed: undefined,
          retiredAt: undefined,
          changedAt: stored.changedAt ?? this.now,
        };
      case 'confirm':
        return { ...stored, confirmed: stored.current?.fingerprint };
      case 'retire':
        return { ...stored, previousKey: undefined, retiredAt: this.now };
      case 'drop-old':
        return { current: stored.current, key: stored.key, previous: [], confirmed: stored.confirmed };
      case 'publish':
      case 'hand-out':
      case 'issue-canary':
      case 'issue-leaf':
      case 'issue-client':
        return undefined;
    }
  }
  #note(chain: Target, step: Change): void {
    this.steps.push(`${chain} ${step.kind}`);
    this.diary.push(`${this.#day} ${chain}: ${step.kind}${'by' in step ? ` by ${step.by}` : ''} (${step.because})`);
  }
  get #day(): string {
    return new Date(this.now).toISOString();
  }
  #leafBy(ca: Authority, by: 'current' | 'previous'): StoredLeaf {
    const signer = by === 'current' ? ca.current : ca.previous[0];
    if (signer === undefined || (by === 'previous' && !ca.previousSigns)) throw new Violation('nothing to sign with');
    const life = Math.min(LIVES.leaf, signer.to - this.now);
    return { leaf: this.cert(life, signer.fingerprint), beside: bundleOf(ca, this.now) };
  }

  #takeWebhook(step: Change, input: ChainInput<Watching>): void {
    this.#note('webhook', step);
    const ca = this.#takeCa(step, this.webhookCa, LIVES.ca);
    if (ca !== undefined) this.webhookCa = ca;
    else if (step.kind === 'publish') {
      const holds = prints(this.configuration?.trusted ?? []).includes(input.ca.current?.fingerprint ?? '');
      if (!holds) this.webhookCa = { ...this.webhookCa, confirmed: undefined };
      this.#canary = undefined;
      this.#published = this.now;
      this.writeConfiguration({ trusted: step.bundle, canary: step.bundle.slice(0, 1), harmed: false });
    } else if (step.kind === 'issue-canary') {
      const { leaf } = this.#leafBy(input.ca, 'current');
      this.writeCanarySecret({ leaf, beside: input.ca.current === undefined ? [] : [input.ca.current] });
    } else if (step.kind === 'issue-leaf') this.writeWebhookSecret(this.#leafBy(input.ca, step.by));
    else throw new Violation(`the webhook has no step ${step.kind}`);
  }

  #takeExtender(step: Change, input: ChainInput<ReadingOnce>): void {
    this.#note('extender', step);
    const bundle = bundleOf(input.ca, this.now);
    const ca = this.#takeCa(step, this.extenderCa, LIVES.extenderCa);
    if (ca !== undefined) this.extenderCa = ca;
    else if (step.kind === 'publish') this.configMap = bundle;
    else if (step.kind === 'hand-out') {
      this.writeExtenderSecret({ ...this.extenderSecret, beside: bundle });
      if (this.clientSecret.leaf !== undefined) this.writeClientSecret({ ...this.clientSecret, beside: bundle });
    } else if (step.kind === 'issue-leaf') {
      this.#mayTakeAway(step.by, input);
      this.writeExtenderSecret(this.#leafBy(input.ca, step.by));
    } else if (step.kind === 'issue-client') this.writeClientSecret(this.#leafBy(input.ca, step.by));
    else throw new Violation(`the extender has no step ${step.kind}`);
  }

  /**
   * Before the stated day a certificate of the newest CA may only come where nothing good is served
   * any more.
   */
  #mayTakeAway(by: 'current' | 'previous', input: ChainInput<ReadingOnce>): void {
    const day = restartBy(input);
    // Replicas have taken a foreign one already, or will.
    if (this.#foreign.has(input.leaf?.fingerprint ?? '')) return;
    if (by === 'previous' || input.ca.previous.length === 0 || (day !== undefined && day <= this.now)) return;
    const { current } = input.ca;
    const good = this.extenders.filter(
      ({ served }) =>
        validAt(served, this.now) &&
        signedByOne(served, input.ca.previous, this.now) &&
        current !== undefined &&
        !served.signedBy(current),
    );
    const inUse = this.extenders.some(({ served }) => current !== undefined && served?.signedBy(current) === true);
    if (good.length > 0 && !inUse)
      throw new Violation('a good certificate is taken from replicas before the stated day');
  }

  // --- the judge

  #noteOrphans(): void {
    const { configuration, webhookCa, webhookSecret, canarySecret } = this;
    if (configuration !== undefined && !configuration.harmed) return;
    const { current, previous } = webhookCa;
    const named = [
      ...(configuration?.trusted ?? []),
      ...webhookSecret.beside,
      ...canarySecret.beside,
      ...previous,
      ...(current === undefined ? [] : [current]),
    ];
    for (const leaf of this.webhooks.flatMap(({ served, secret }) => [served, ...secret.coming.map((one) => one.leaf)]))
      if (leaf !== undefined && !named.some((ca) => leaf.signedBy(ca))) this.#orphans.add(leaf.fingerprint);
  }

  #excuse(row: Excuse): void {
    this.excused.add(row);
  }

  /** Every call that could be made now succeeds, unless the docs' table says that it fails. */
  judge(): void {
    this.servers.forEach(({ view }, s) => {
      if (view === undefined) return;
      this.webhooks.forEach((replica, r) => {
        const { served } = replica;
        if (!validAt(served, this.now) || signedByOne(served, view.trusted, this.now)) return;
        if (view.harmed || this.#orphans.has(served.fingerprint)) return this.#excuse('`caBundle` wiped');
        if (this.#foreign.has(served.fingerprint))
          return this.#excuse("the webhook's Secret replaced by a valid one of a foreign CA");
        throw new Violation(
          `API server ${s} trusts ${prints(view.trusted).join()} and replica ${r} serves ${served.fingerprint}`,
        );
      });
    });
    const day = this.statedDay();
    const stated = day !== undefined && day <= this.now;
    const newest = this.extenderCa.current?.fingerprint;
    if (stated)
      for (const scheduler of this.schedulers)
        scheduler.warned ||= !scheduler.cas.some(({ fingerprint }) => fingerprint === newest);
    this.extenders.forEach((replica, r) => {
      const { served, clientCas } = replica;
      if (!validAt(served, this.now)) return;
      if (this.#foreign.has(served.fingerprint))
        return this.#excuse("the extender's Secret replaced by one of a foreign CA");
      this.schedulers.forEach((scheduler, s) => {
        // It waits for its Secret and has never started.
        if (scheduler.cas.length === 0) return;
        const usable = scheduler.cas.filter((ca) => validAt(ca, this.now));
        if (!signedByOne(served, usable, this.now)) {
          if (scheduler.warned || stated) return this.#excuse('a scheduler not restarted by the stated day');
          throw new Violation(
            `scheduler ${s} knows ${prints(usable).join()} and replica ${r} serves ${served.fingerprint}, stated day ${day === undefined ? 'none' : new Date(day).toISOString()}`,
          );
        }
        const { client } = scheduler;
        if (!validAt(client, this.now) || signedByOne(client, clientCas, this.now)) return;
        throw new Violation(
          `replica ${r} accepts clients of ${prints(clientCas).join()} and scheduler ${s} shows ${client.fingerprint}`,
        );
      });
    });
  }

  /**
   * Why this is not the state in which nothing is due and everything in use is of the newest CAs.
   */
  unsound(): string | undefined {
    for (const input of [this.webhookInput(), this.extenderInput()]) {
      const step = nextStep(input);
      if (step.kind !== 'wait' || step.on !== 'nothing') return `${input.callers.kind}: ${step.kind}: ${step.because}`;
      if (input.ca.previous.length > 0) return `${input.callers.kind}: previous CAs are left`;
    }
    const { current } = this.webhookCa;
    const { current: extenderCa } = this.extenderCa;
    if (current === undefined || extenderCa === undefined) return 'no CA';
    if (this.webhooks.some(({ served }) => !validAt(served, this.now) || !served.signedBy(current)))
      return 'a replica of the webhook serves another CA';
    if (this.extenders.some(({ served }) => !validAt(served, this.now) || !served.signedBy(extenderCa)))
      return 'a replica of the extender serves another CA';
    return this.servers.some(({ view }) => view?.trusted.length !== 1) ? 'an API server trusts more' : undefined;
  }
}
