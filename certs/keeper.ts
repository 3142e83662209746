// The leader's loop over both chains: observe, ask rules.ts for the next step, read the API
// server's clock, take the step, count it, until nothing is due. Checks at fixed wall-clock times
// and when woken, so that a process that was suspended for a day finds out at its next check.
import { setTimeout as sleep } from 'node:timers/promises';
import { explainError } from '../platform/log.ts';
import type { Step } from './chain.ts';
import { serverClock, type ServerClock } from './clock.ts';
import { ExtenderChain, type ExtenderChainOptions } from './extender-chain.ts';
import type { Chain } from './kept-chain.ts';
import { nextStep } from './rules.ts';
import { NotPermitted } from './store.ts';
import { WebhookChain, type WebhookChainOptions } from './webhook-chain.ts';

export interface KeeperOptions extends WebhookChainOptions, ExtenderChainOptions {
  readonly leads: () => boolean;
  readonly now: () => number;
  readonly checkEvery: number;
}

/** Pause (ms) between canaries while a change of CA waits for them. */
const CANARY_EVERY = 1000;
/**
 * Minimum pause (ms) between checks, so that another controller fighting over the same objects
 * cannot spin this loop.
 */
const MIN_PAUSE = 200;
/**
 * A full rotation takes fewer steps. Hitting the limit means that another writer is undoing our
 * changes; the next check continues.
 */
const MAX_STEPS = 16;

/** What was last logged of a chain, so that a state that persists is logged once. */
interface Logged {
  wait: string;
  denied: string | undefined;
}

export class CertKeeper {
  readonly #options: KeeperOptions;
  readonly #clock: ServerClock;
  readonly #webhook: Chain;
  readonly #chains: readonly Chain[];
  readonly #logged = new Map<Chain, Logged>();
  #woken = false;
  #wake: () => void = () => undefined;

  constructor(options: KeeperOptions) {
    const { probe, now, log, metrics } = options;
    this.#options = options;
    this.#clock = serverClock({ serverTime: () => probe.serverTime(), now, log, metrics });
    this.#webhook = new WebhookChain(options);
    this.#chains = [this.#webhook, new ExtenderChain(options)];
  }

  /** One of the objects has changed: the next check comes at once. */
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
      let pause = Math.min(checkEvery, MIN_PAUSE);
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
    const minimum = Math.min(ms, MIN_PAUSE);
    await sleep(minimum, undefined, { signal }).catch(() => undefined);
    if (this.#woken || signal.aborted || ms === minimum) return;
    const cut = new AbortController();
    this.#wake = () => cut.abort();
    await sleep(ms - minimum, undefined, { signal: AbortSignal.any([signal, cut.signal]) }).catch(() => undefined);
    this.#wake = () => undefined;
  }

  /** Another process leads now. What was seen here is old by the time this one leads again. */
  #forget(): void {
    for (const chain of this.#chains) chain.forget('leader');
    this.#logged.clear();
    this.#options.metrics.forget();
  }

  /**
   * Takes every step that is due now in both chains. Returns the webhook's last one, `wait` if
   * nothing more is due.
   */
  async check(): Promise<Step> {
    const failures: unknown[] = [];
    let webhook: Step | undefined;
    for (const chain of this.#chains) {
      try {
        const step = await this.#advance(chain);
        if (chain === this.#webhook) webhook = step;
      } catch (error) {
        // Trouble in one chain does not stop the other.
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
    return webhook ?? { kind: 'wait', on: 'nothing', because: 'no step was tried' };
  }

  async #advance(chain: Chain): Promise<Step | undefined> {
    chain.begin();
    let step: Step | undefined;
    for (let steps = 0; steps < MAX_STEPS && step?.kind !== 'wait'; steps += 1) step = await this.step(chain);
    return step;
  }

  /** One turn: observes a chain and takes the step that is due, or reports what is awaited. */
  async step(chain: Chain = this.#webhook): Promise<Step> {
    const { log, metrics } = this.#options;
    const now = (): number => this.#clock.now();
    let seen = await chain.observe(now);
    let step = nextStep(seen.input);
    // What is made, published or dropped is dated by the clock that verifies it.
    if ((step.kind !== 'wait' || this.#clock.corrected) && (await this.#clock.read())) {
      chain.forget('clock');
      seen = await chain.observe(now);
      step = nextStep(seen.input);
    }
    metrics.step(chain.name, step);
    const logged = this.#logged.get(chain) ?? { wait: '', denied: undefined };
    this.#logged.set(chain, logged);
    if (step.kind === 'wait') {
      const text = `${step.on}: ${step.because}`;
      if (step.on !== 'nothing' && text !== logged.wait)
        log.info('certificates wait', { chain: chain.name, on: step.on, because: step.because });
      logged.wait = text;
      if (step.on === 'nothing') await chain.atRest(seen);
      return step;
    }
    // A step that is not permitted is tried at each check and logged once.
    const hushed = step.kind === 'publish' && logged.denied !== undefined;
    if (!hushed) {
      log.info('certificate step', { chain: chain.name, step: step.kind, because: step.because });
      logged.wait = '';
    }
    let result = 'error';
    try {
      result = (await chain.take(step, seen)) ? 'ok' : 'conflict';
      if (step.kind === 'publish') logged.denied = undefined;
    } catch (error) {
      if (!(error instanceof NotPermitted)) throw error;
      metrics.lastError.set(now() / 1000);
      if (logged.denied !== error.message) log.error('the webhook configuration cannot be written', { error });
      logged.denied = error.message;
    } finally {
      metrics.rotations.inc({ chain: chain.name, kind: step.kind, result });
    }
    return step;
  }
}
