// The webhook's chain: observes its Secrets, the webhook configuration, the replicas and the
// canary, and takes the steps that rules.ts asks for.
import {
  adopted,
  bundleOf,
  confirmedAs,
  dropped,
  readAuthority,
  renewed,
  retired,
  signerOf,
  without,
} from './authority.ts';
import { WEBHOOK_CA } from './authority.ts';
import { pairOf, pemOf, printsOf, readBundle, readCas, readPair, type CertFacts } from './cert.ts';
import type { CanarySeries, Change, ChainInput, Configuration, Watching } from './chain.ts';
import { issueCa, issueLeaf } from './issue.ts';
import type { Chain, ChainOptions, Seen } from './kept-chain.ts';
import { nextStep } from './rules.ts';
import { CA_SECRET, CANARY_SECRET, NotPermitted, WEBHOOK_SECRET, type Bundles, type Stored } from './store.ts';
import { CANARY_GAP } from './webhook-rules.ts';

export interface WebhookChainOptions extends ChainOptions {
  readonly webhookSans: readonly string[];
  readonly caLife: number;
  readonly canaryWindow: number;
}

/** While no change is under way the canary is rehearsed this often (ms). */
const REHEARSAL_EVERY = 3_600_000;
/**
 * The same after a first rehearsal that failed: right after an installation API servers and
 * replicas may lag.
 */
const FIRST_AGAIN = 60_000;

interface WebhookSeen extends Seen<Watching> {
  readonly caStored: Stored;
  readonly leafStored: Stored;
  readonly canaryStored: Stored;
}

export class WebhookChain implements Chain<WebhookSeen> {
  readonly name = 'webhook';
  readonly #options: WebhookChainOptions;
  #canary: CanarySeries | undefined;
  /** When the configuration was last written here. */
  #published: number | undefined;
  /** Why the configuration could not be written in this check. */
  #denied: string | undefined;
  #rehearsed: number | undefined;

  constructor(options: WebhookChainOptions) {
    this.#options = options;
  }

  begin(): void {
    this.#denied = undefined;
  }

  forget(because: 'clock' | 'leader'): void {
    this.#canary = undefined;
    if (because === 'clock') return;
    this.#published = undefined;
    this.#rehearsed = undefined;
  }

  async observe(now: () => number): Promise<WebhookSeen> {
    const { store, probe, metrics, webhookSans: sans, canaryWindow: windowMs, caGrace: graceMs } = this.#options;
    const [caStored, leafStored, canaryStored, bundles, replicas] = await Promise.all([
      store.secret(CA_SECRET),
      store.secret(WEBHOOK_SECRET),
      store.secret(CANARY_SECRET),
      store.bundles(),
      probe.replicas('webhook'),
    ]);
    const ca = readAuthority(caStored.data, WEBHOOK_CA);
    const { cert: leaf, problem } = readPair(leafStored.data, 'tls');
    const published = bundles.kind === 'present' ? bundles.entries.flatMap(readCas) : [];
    const beside = [leafStored, canaryStored].flatMap(({ data }) => readCas(data['ca.crt']));
    const callers: Watching = {
      kind: 'watch',
      configuration: this.#configuration(bundles),
      canaryLeaf: readPair(canaryStored.data, 'tls').cert,
      canary: this.#canary,
      published: this.#published,
      windowMs,
    };
    let input: ChainInput<Watching> = {
      ca,
      leaf,
      leafProblem: problem === undefined ? undefined : `in Secret ${WEBHOOK_SECRET} ${problem}`,
      sans,
      replicas,
      // A configuration that is not there, or that was wiped, may come back with the CAs that it
      // had.
      known: published.length > 0 ? published : beside,
      graceMs,
      now: now(),
      callers,
    };
    const step = nextStep(input);
    if (step.kind === 'wait' && step.on === 'confirmation' && callers.canaryLeaf !== undefined) {
      await this.#sendCanary(callers.canaryLeaf, ca.current, now);
      input = { ...input, callers: { ...callers, canary: this.#canary }, now: now() };
    }
    metrics.ends('webhook-ca', ca.current?.to);
    metrics.ends('webhook-ca-previous', ca.previous[0]?.to);
    metrics.ends('webhook', leaf?.to);
    metrics.ends('canary', callers.canaryLeaf?.to);
    if (callers.configuration.kind === 'present') metrics.bundle.set(callers.configuration.trusted.length);
    return { input, caStored, leafStored, canaryStored };
  }

  #configuration(bundles: Bundles): Configuration {
    if (bundles.kind === 'absent') return bundles;
    if (bundles.kind === 'forbidden') return { kind: 'unknown', because: bundles.because };
    if (this.#denied !== undefined) return { kind: 'unknown', because: this.#denied };
    const [first = [], ...rest] = bundles.entries.map((bundle) => printsOf(readBundle(bundle)));
    // If one entry differs, none counts: all of them are written again.
    const same = rest.every((set) => set.length === first.length && set.every((print) => first.includes(print)));
    return {
      kind: 'present',
      trusted: same ? first : [],
      canary: bundles.canary === undefined ? undefined : printsOf(readBundle(bundles.canary)),
    };
  }

  async #sendCanary(leaf: CertFacts, ca: CertFacts | undefined, now: () => number): Promise<void> {
    const began = now();
    const problem = await this.#options.probe.canary(leaf);
    this.#options.metrics.canary.set(problem === undefined ? 1 : 0);
    const last = this.#canary;
    const goesOn =
      last !== undefined &&
      last.ca === ca?.fingerprint &&
      began - last.last < CANARY_GAP &&
      (last.since ?? began) <= began;
    const since = problem === undefined ? ((goesOn ? last.since : undefined) ?? began) : undefined;
    this.#canary = { ca: ca?.fingerprint ?? '', since, problem, last: began };
  }

  /**
   * Rehearses the canary once an hour. CA rotations are years apart, so without this a blocked path
   * would only surface in the middle of a rotation.
   */
  async atRest({ input }: WebhookSeen): Promise<void> {
    const { probe, metrics, log } = this.#options;
    const leaf = input.callers.canaryLeaf;
    if (leaf === undefined || (this.#rehearsed !== undefined && input.now - this.#rehearsed < REHEARSAL_EVERY)) return;
    const problem = await probe.canary(leaf);
    const first = this.#rehearsed === undefined && problem !== undefined;
    this.#rehearsed = first ? input.now - REHEARSAL_EVERY + FIRST_AGAIN : input.now;
    metrics.canary.set(problem === undefined ? 1 : 0);
    if (problem !== undefined) log.error('a change of CA could not be confirmed now', { because: problem });
  }

  async take(step: Change, seen: WebhookSeen): Promise<boolean> {
    const { store, certLife, caLife, webhookSans: sans } = this.#options;
    const { input, caStored, leafStored, canaryStored } = seen;
    const { data } = caStored;
    const { ca, now } = input;
    const serving = { name: sans[0] ?? 'gpu-gate-webhook', sans, usage: 'server', life: certLife } as const;
    const writeCa = (next: Readonly<Record<string, string>>): Promise<boolean> =>
      store.writeSecret(CA_SECRET, next, caStored);
    switch (step.kind) {
      case 'make-ca': {
        const fresh = await issueCa('gpu-gate webhook CA', caLife, now);
        return writeCa(renewed(data, WEBHOOK_CA, fresh, step.previous, now));
      }
      case 'adopt':
        return writeCa(adopted(data, WEBHOOK_CA, step.previous, now));
      case 'publish':
        return this.#publish(step.bundle, seen);
      case 'issue-canary': {
        const leaf = await issueLeaf(pairOf(data, WEBHOOK_CA.current), { ...serving, name: 'gpu-gate canary' }, now);
        const beside = data[`${WEBHOOK_CA.current}.crt`] ?? '';
        return store.writeSecret(
          CANARY_SECRET,
          { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': beside },
          canaryStored,
        );
      }
      case 'confirm':
        return ca.current !== undefined && writeCa(confirmedAs(data, WEBHOOK_CA, ca.current));
      case 'issue-leaf': {
        const leaf = await issueLeaf(signerOf(data, WEBHOOK_CA, ca, step.by), serving, now);
        const beside = pemOf(bundleOf(ca, now));
        return store.writeSecret(
          WEBHOOK_SECRET,
          { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': beside },
          leafStored,
        );
      }
      case 'retire':
        return writeCa(retired(data, WEBHOOK_CA, now));
      case 'drop-old':
        return writeCa(dropped(data, WEBHOOK_CA));
      case 'hand-out':
      case 'issue-client':
        throw new Error(`the webhook has no step ${step.kind}`);
    }
  }

  async #publish(bundle: readonly CertFacts[], { input, caStored }: WebhookSeen): Promise<boolean> {
    const { store } = this.#options;
    const { ca, callers, now } = input;
    const { configuration } = callers;
    // What was confirmed was another configuration, unless this one has the newest CA too.
    // Forgotten first: if the leader is killed in between, the next one publishes.
    const holds =
      ca.confirmed === undefined ||
      (configuration.kind === 'present' && configuration.trusted.includes(ca.current?.fingerprint ?? ''));
    if (!holds && !(await store.writeSecret(CA_SECRET, without(caStored.data, WEBHOOK_CA.confirmed), caStored)))
      return false;
    // Earlier canaries show what API servers held before.
    this.#canary = undefined;
    try {
      return await store.writeBundles(pemOf(bundle), pemOf(bundle.slice(0, 1)));
    } catch (error) {
      if (error instanceof NotPermitted) this.#denied = error.message;
      throw error;
    } finally {
      this.#published = now;
    }
  }
}
