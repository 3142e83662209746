// The leader's part: reads the objects, asks renewal.ts for the next step, takes it, until nothing is due. A wall-clock check
// at fixed times is all the timing there is: a process that was suspended for a day finds out at its next check.
import { setTimeout as sleep } from 'node:timers/promises';
import { explainError } from '../platform/log.ts';
import { serverClock, type ServerClock } from './clock.ts';
import { keepExtenderChain, type ExtenderChainOptions } from './extender-chain.ts';
import { issueCa, issueLeaf } from './issue.ts';
import { keyMatches, readBundle, type CertFacts } from './read.ts';
import { caOf, leafOf, numberOf, pairOf, pemOf, without } from './material.ts';
import type { Probe } from './probe.ts';
import {
  bundleOf,
  CANARY_GAP,
  nextStep,
  type CanarySeries,
  type CaState,
  type Configuration,
  type RenewalInput,
  type Step,
} from './webhook-rules.ts';
import { CA_SECRET, CANARY_SECRET, NotPermitted, WEBHOOK_SECRET, type Bundles, type Stored } from './store.ts';

export interface KeeperOptions extends ExtenderChainOptions {
  readonly probe: Probe;
  readonly leads: () => boolean;
  readonly now: () => number;
  readonly webhookSans: readonly string[];
  /** ms */
  readonly caLife: number;
  readonly canaryWindow: number;
  readonly checkEvery: number;
}

/** Between canaries while they are awaited, ms. */
const CANARY_EVERY = 1000;
/** Between two checks at the least, ms: whoever writes against us is not to keep us busy. */
const LEAST_PAUSE = 200;
/** The canary's way is tried now and then, lest years later the rotation be the first to find it shut. */
const REHEARSAL_EVERY = 3_600_000;

interface Seen {
  readonly input: RenewalInput;
  readonly caStored: Stored;
  readonly leafStored: Stored;
  readonly canaryStored: Stored;
}
type Taken = Exclude<Step, { kind: 'wait' }>;

export class CertKeeper {
  readonly #options: KeeperOptions;
  readonly #clock: ServerClock;
  #canary: CanarySeries | undefined;
  /** When the configuration was last written here, by the API server's clock. */
  #published: number | undefined;
  /** Why the configuration could not be written at this check. */
  #denied: string | undefined;
  /** The same, since it was said. */
  #deniedTold: string | undefined;
  #rehearsed = Number.NEGATIVE_INFINITY;
  #told = '';
  #woken = false;
  #wake: () => void = () => undefined;

  constructor(options: KeeperOptions) {
    const { probe, now, log, metrics } = options;
    this.#options = options;
    this.#clock = serverClock({ serverTime: () => probe.serverTime(), now, log, metrics });
  }

  /** Something that is looked at has changed: the next check comes at once. */
  wake(): void {
    this.#woken = true;
    this.#wake();
  }

  /** Checks at fixed times, and when woken, while leading, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { leads, log, checkEvery, metrics, now } = this.#options;
    let failed = '';
    let led = false;
    while (!signal.aborted) {
      let pause = Math.min(checkEvery, LEAST_PAUSE);
      this.#woken = false;
      if (led && !leads()) this.#forget();
      led = leads();
      if (led) {
        pause = checkEvery;
        try {
          const step = await this.check();
          if (step.kind === 'wait' && step.on === 'confirmation') pause = Math.min(checkEvery, CANARY_EVERY);
          failed = '';
        } catch (error) {
          metrics.lastError.set(now() / 1000);
          const message = explainError(error);
          if (message !== failed) log.error('certificates not checked, trying again', { error });
          failed = message;
        }
      }
      await this.#pause(pause, signal);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const least = Math.min(ms, LEAST_PAUSE);
    await sleep(least, undefined, { signal }).catch(() => undefined);
    if (this.#woken || signal.aborted || ms === least) return;
    const cut = new AbortController();
    this.#wake = () => cut.abort();
    await sleep(ms - least, undefined, { signal: AbortSignal.any([signal, cut.signal]) }).catch(() => undefined);
    this.#wake = () => undefined;
  }

  /** Another one leads now: what was seen here is old when this one leads again. */
  #forget(): void {
    this.#canary = undefined;
    this.#published = undefined;
    this.#deniedTold = undefined;
    this.#rehearsed = Number.NEGATIVE_INFINITY;
    this.#told = '';
    this.#options.metrics.forget();
  }

  /** Takes every step that is due now; returns the last one, `wait` where nothing more is. */
  async check(): Promise<Step> {
    this.#denied = undefined;
    let step: Step | undefined;
    let failure: unknown;
    try {
      // More steps than a whole rotation has mean that somebody writes against us; the next check goes on.
      for (let steps = 0; steps < 16 && step?.kind !== 'wait'; steps += 1) step = await this.step();
    } catch (error) {
      failure = error;
    }
    // The extender's are no part of the webhook's troubles.
    await keepExtenderChain(this.#options, this.#clock);
    if (failure !== undefined) throw failure;
    if (step?.kind === 'wait' && step.on === 'nothing') await this.#rehearse();
    return step ?? { kind: 'wait', on: 'nothing', because: 'no step was tried' };
  }

  /** One step of the webhook's chain. */
  async step(): Promise<Step> {
    const { log, metrics } = this.#options;
    const seen = await this.#observe();
    let { input } = seen;
    let step = nextStep(input);
    // Whatever is made, published or dropped is so by the clock that verifies it.
    if (step.kind !== 'wait' || this.#clock.corrected) {
      if (await this.#clock.read()) this.#canary = undefined;
      input = { ...input, canary: this.#canary, now: this.#now() };
      step = nextStep(input);
    }
    if (step.kind === 'wait' && step.on === 'confirmation' && input.canaryLeaf !== undefined) {
      await this.#sendCanary(input.canaryLeaf, input.ca.current);
      input = { ...input, canary: this.#canary, now: this.#now() };
      step = nextStep(input);
    }
    this.#tell(step);
    if (step.kind === 'wait') return step;
    // Tried at each check, and said once.
    const refused = step.kind === 'publish' && this.#deniedTold !== undefined;
    if (!refused) log.info('certificate step', { step: step.kind, because: step.because });
    let result = 'error';
    try {
      result = (await this.#take(step, { ...seen, input })) ? 'ok' : 'conflict';
      if (step.kind === 'publish') this.#deniedTold = undefined;
      if (!refused) this.#told = '';
    } catch (error) {
      if (!(error instanceof NotPermitted)) throw error;
      this.#denied = error.message;
      metrics.lastError.set(this.#now() / 1000);
      if (this.#deniedTold !== error.message) log.error('the webhook configuration cannot be written', { error });
      this.#deniedTold = error.message;
    } finally {
      metrics.rotations.inc({ kind: step.kind, result });
    }
    return step;
  }

  #now(): number {
    return this.#clock.now();
  }

  async #observe(): Promise<Seen> {
    const { store, probe, metrics, webhookSans: sans, canaryWindow: window, caGrace: grace } = this.#options;
    const [caStored, leafStored, canaryStored, bundles, replicas] = await Promise.all([
      store.secret(CA_SECRET),
      store.secret(WEBHOOK_SECRET),
      store.secret(CANARY_SECRET),
      store.bundles(),
      probe.replicas(),
    ]);
    const { data } = caStored;
    const previous = readBundle(data['previous.crt']).filter(({ isCa }) => isCa);
    const ca: CaState = {
      current: caOf(data, 'tls'),
      previous,
      previousSigns: previous[0] !== undefined && keyMatches({ cert: previous[0].pem, key: data['previous.key'] }),
      confirmed: data['confirmed'],
      retiredAt: numberOf(data['retired']),
    };
    const published = bundles.kind === 'present' ? bundles.entries : [];
    const input: RenewalInput = {
      ca,
      leaf: leafOf(leafStored.data),
      sans,
      canaryLeaf: leafOf(canaryStored.data),
      configuration: this.#configuration(bundles),
      replicas,
      known: published.flatMap(readBundle).filter(({ isCa }) => isCa),
      canary: this.#canary,
      published: this.#published,
      window,
      grace,
      now: this.#now(),
    };
    metrics.ends('webhook-ca', ca.current?.to);
    metrics.ends('webhook-ca-previous', previous[0]?.to);
    metrics.ends('webhook', input.leaf?.to);
    metrics.ends('canary', input.canaryLeaf?.to);
    if (input.configuration.kind === 'present') metrics.bundle.set(input.configuration.trusted.length);
    return { input, caStored, leafStored, canaryStored };
  }

  #configuration(bundles: Bundles): Configuration {
    if (bundles.kind === 'absent') return bundles;
    if (bundles.kind === 'forbidden') return { kind: 'unknown', because: bundles.because };
    if (this.#denied !== undefined) return { kind: 'unknown', because: this.#denied };
    const prints = (bundle: string): readonly string[] => readBundle(bundle).map(({ fingerprint }) => fingerprint);
    const [first = [], ...rest] = bundles.entries.map(prints);
    // An entry that differs makes it none: all are written anew.
    const same = rest.every((set) => set.length === first.length && set.every((print) => first.includes(print)));
    return {
      kind: 'present',
      trusted: same ? first : [],
      canary: bundles.canary === undefined ? undefined : prints(bundles.canary),
    };
  }

  async #sendCanary(leaf: CertFacts, ca: CertFacts | undefined): Promise<void> {
    const began = this.#now();
    const problem = await this.#options.probe.canary(leaf);
    this.#options.metrics.canary.set(problem === undefined ? 1 : 0);
    const before = this.#canary;
    const goesOn =
      before?.ca === ca?.fingerprint && began - (before?.last ?? 0) < CANARY_GAP && (before?.since ?? began) <= began;
    const since = problem === undefined ? ((goesOn ? before?.since : undefined) ?? began) : undefined;
    this.#canary = { ca: ca?.fingerprint ?? '', since, problem, last: began };
  }

  async #rehearse(): Promise<void> {
    const { store, probe, metrics, log } = this.#options;
    if (this.#now() - this.#rehearsed < REHEARSAL_EVERY) return;
    const leaf = leafOf((await store.secret(CANARY_SECRET)).data);
    if (leaf === undefined) return;
    const problem = await probe.canary(leaf);
    // Right after an installation API servers and replicas may be a moment behind.
    if (problem !== undefined && this.#rehearsed === Number.NEGATIVE_INFINITY)
      this.#rehearsed = this.#now() - REHEARSAL_EVERY + 60_000;
    else this.#rehearsed = this.#now();
    metrics.canary.set(problem === undefined ? 1 : 0);
    if (problem !== undefined) log.error('a change of CA could not be confirmed now', { because: problem });
  }

  /** Says what is awaited once, not at every check. */
  #tell(step: Step): void {
    const { metrics, log } = this.#options;
    metrics.step.reset();
    metrics.step.set({ step: step.kind === 'wait' ? `wait-${step.on}` : step.kind }, 1);
    if (step.kind !== 'wait') return;
    const told = `${step.on}: ${step.because}`;
    if (step.on !== 'nothing' && told !== this.#told)
      log.info('certificates wait', { on: step.on, because: step.because });
    this.#told = told;
  }

  async #take(step: Taken, seen: Seen): Promise<boolean> {
    const { store, certLife, caLife, webhookSans: sans } = this.#options;
    const { input, caStored, leafStored, canaryStored } = seen;
    const { data } = caStored;
    const at = input.now;
    const serving = { name: sans[0] ?? 'gpu-gate-webhook', sans, usage: 'server', life: certLife } as const;
    switch (step.kind) {
      case 'make-ca': {
        const fresh = await issueCa('gpu-gate webhook CA', caLife, at);
        const [signer] = step.previous;
        const key = [data['tls.key'], data['previous.key']].find(
          (candidate) => signer !== undefined && keyMatches({ cert: signer.pem, key: candidate }),
        );
        return store.writeSecret(
          CA_SECRET,
          {
            ...without(data, 'previous.crt', 'previous.key', 'confirmed', 'retired'),
            'tls.crt': fresh.cert,
            'tls.key': fresh.key,
            ...(signer === undefined ? {} : { 'previous.crt': pemOf(step.previous) }),
            ...(key === undefined ? {} : { 'previous.key': key }),
          },
          caStored,
        );
      }
      case 'adopt':
        return store.writeSecret(
          CA_SECRET,
          { ...without(data, 'confirmed', 'retired'), 'previous.crt': pemOf(step.previous) },
          caStored,
        );
      case 'publish': {
        // What was confirmed was another configuration, unless the newest CA is in this one too. Forgotten first: killed in
        // between, the next leader publishes.
        const holds =
          data['confirmed'] === undefined ||
          (input.configuration.kind === 'present' &&
            input.configuration.trusted.includes(input.ca.current?.fingerprint ?? ''));
        if (!holds && !(await store.writeSecret(CA_SECRET, without(data, 'confirmed'), caStored))) return false;
        // Canaries from before show what API servers held before.
        this.#canary = undefined;
        const written = await store.writeBundles(pemOf(step.bundle), pemOf(step.bundle.slice(0, 1)));
        this.#published = this.#now();
        return written;
      }
      case 'issue-canary': {
        const leaf = await issueLeaf(pairOf(data, 'tls'), { ...serving, name: 'gpu-gate canary' }, at);
        return store.writeSecret(
          CANARY_SECRET,
          { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': data['tls.crt'] ?? '' },
          canaryStored,
        );
      }
      case 'confirm':
        return store.writeSecret(CA_SECRET, { ...data, confirmed: input.ca.current?.fingerprint ?? '' }, caStored);
      case 'issue-leaf': {
        const signer = pairOf(
          { ...data, 'previous.crt': input.ca.previous[0]?.pem ?? '' },
          step.by === 'current' ? 'tls' : 'previous',
        );
        const leaf = await issueLeaf(signer, serving, at);
        return store.writeSecret(
          WEBHOOK_SECRET,
          { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': pemOf(bundleOf(input.ca, at)) },
          leafStored,
        );
      }
      case 'retire':
        return store.writeSecret(CA_SECRET, { ...without(data, 'previous.key'), retired: String(at) }, caStored);
      case 'drop-old':
        return store.writeSecret(CA_SECRET, without(data, 'previous.crt', 'previous.key', 'retired'), caStored);
    }
  }
}
