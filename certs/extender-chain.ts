// The extender's chain: observes its Secrets, the ConfigMap for schedulers and the replicas, and
// takes the steps that rules.ts asks for.
import { adopted, bundleOf, dropped, EXTENDER_CA, readAuthority, renewed, retired, signerOf } from './authority.ts';
import { pemOf, printsOf, readBundle, readPair, type KeyPair } from './cert.ts';
import type { Change, ReadingOnce } from './chain.ts';
import { restartBy } from './extender-rules.ts';
import { issueCa, issueLeaf } from './issue.ts';
import type { Chain, ChainOptions, Seen } from './kept-chain.ts';
import { CA_SECRET, EXTENDER_CA_CONFIG_MAP, EXTENDER_SECRET, SCHEDULER_SECRET, type Stored } from './store.ts';

export interface ExtenderChainOptions extends ChainOptions {
  readonly extenderSans: readonly string[];
  readonly extenderCaLife: number;
  /** For how long (ms) after a change the previous CA goes on signing. */
  readonly extenderCaOverlap: number;
}

/** Common name of the client certificate of the chart's scheduler. */
const SCHEDULER_CLIENT = 'gpu-gate-scheduler';

interface ExtenderSeen extends Seen<ReadingOnce> {
  readonly caStored: Stored;
  readonly servingStored: Stored;
  readonly clientStored: Stored;
}

export class ExtenderChain implements Chain<ExtenderSeen> {
  readonly name = 'extender';
  readonly #options: ExtenderChainOptions;
  /** The newest CA that was seen beside the serving certificate, and since when. */
  #handedOut: { readonly ca: string; readonly since: number } | undefined;
  /** The day that was last logged. */
  #stated: number | undefined;

  constructor(options: ExtenderChainOptions) {
    this.#options = options;
  }

  begin(): void {}

  forget(because: 'clock' | 'leader'): void {
    this.#handedOut = undefined;
    if (because === 'leader') this.#stated = undefined;
  }

  async observe(now: () => number): Promise<ExtenderSeen> {
    const { store, probe, metrics, extenderSans: sans, extenderCaOverlap: overlapMs, caGrace } = this.#options;
    const [caStored, servingStored, clientStored, configMap, replicas] = await Promise.all([
      store.secret(CA_SECRET),
      store.secret(EXTENDER_SECRET),
      store.secret(SCHEDULER_SECRET),
      store.configMap(EXTENDER_CA_CONFIG_MAP),
      probe.replicas('extender'),
    ]);
    const ca = readAuthority(caStored.data, EXTENDER_CA);
    const published = readBundle(configMap['ca.crt']);
    const [beside, besideClient] = [servingStored, clientStored].map(({ data }) => readBundle(data['ca.crt']));
    const { cert: leaf, problem } = readPair(servingStored.data, 'tls');
    const handedOut = {
      configMap: printsOf(published),
      serving: printsOf(beside ?? []),
      client: printsOf(besideClient ?? []),
    };
    const time = now();
    this.#noteHandedOut(ca.current?.fingerprint, handedOut.serving, time);
    const input = {
      ca,
      leaf,
      leafProblem: problem === undefined ? undefined : `in Secret ${EXTENDER_SECRET} ${problem}`,
      sans,
      replicas,
      // Beside a foreign certificate there are foreign CAs: they count only where the ConfigMap is
      // lost.
      known: (published.length > 0 ? published : [...(beside ?? []), ...(besideClient ?? [])]).filter(
        ({ isCa }) => isCa,
      ),
      graceMs: caGrace,
      now: time,
      callers: {
        kind: 'read-once',
        client: readPair(clientStored.data, 'tls').cert,
        handedOut,
        handedOutSince: this.#handedOut?.since,
        overlapMs,
      },
    } as const;
    metrics.ends('extender-ca', ca.current?.to);
    metrics.ends('extender-ca-previous', ca.previous[0]?.to);
    metrics.ends('extender', leaf?.to);
    metrics.ends('scheduler-client', input.callers.client?.to);
    metrics.extenderBundle.set(bundleOf(ca, time).length);
    const day = restartBy(input);
    metrics.restartBy(day);
    this.#state(day);
    return { input, caStored, servingStored, clientStored };
  }

  #noteHandedOut(ca: string | undefined, beside: readonly string[], now: number): void {
    if (ca === undefined || !beside.includes(ca)) this.#handedOut = undefined;
    else if (this.#handedOut?.ca !== ca) this.#handedOut = { ca, since: now };
  }

  /** Logs the day once, and again when it moves. */
  #state(day: number | undefined): void {
    if (day !== undefined && day !== this.#stated)
      this.#options.log.error("the extender's CA changes: restart every scheduler that asks it", {
        until: new Date(day).toISOString(),
      });
    this.#stated = day;
  }

  async atRest(): Promise<void> {}

  async take(step: Change, seen: ExtenderSeen): Promise<boolean> {
    const { store, certLife, extenderCaLife, extenderSans: sans } = this.#options;
    const { input, caStored, servingStored, clientStored } = seen;
    const { data } = caStored;
    const { ca, now } = input;
    const bundle = pemOf(bundleOf(ca, now));
    const writeCa = (next: Readonly<Record<string, string>>): Promise<boolean> =>
      store.writeSecret(CA_SECRET, next, caStored);
    const write = (name: string, pair: KeyPair, stored: Stored): Promise<boolean> =>
      store.writeSecret(name, { 'tls.crt': pair.cert, 'tls.key': pair.key, 'ca.crt': bundle }, stored);
    switch (step.kind) {
      case 'make-ca': {
        const fresh = await issueCa('gpu-gate extender CA', extenderCaLife, now);
        return writeCa(renewed(data, EXTENDER_CA, fresh, step.previous, now));
      }
      case 'adopt':
        return writeCa(adopted(data, EXTENDER_CA, step.previous, now));
      case 'publish':
        await store.writeConfigMap(EXTENDER_CA_CONFIG_MAP, { 'ca.crt': bundle });
        return true;
      case 'hand-out': {
        const serving = () =>
          store.writeSecret(EXTENDER_SECRET, { ...servingStored.data, 'ca.crt': bundle }, servingStored);
        const client = () =>
          store.writeSecret(SCHEDULER_SECRET, { ...clientStored.data, 'ca.crt': bundle }, clientStored);
        const written = await Promise.all([serving(), ...(input.callers.client === undefined ? [] : [client()])]);
        return written.every(Boolean);
      }
      case 'issue-leaf': {
        const request = { name: sans[0] ?? 'gpu-gate-extender', sans, usage: 'server', life: certLife } as const;
        return write(
          EXTENDER_SECRET,
          await issueLeaf(signerOf(data, EXTENDER_CA, ca, step.by), request, now),
          servingStored,
        );
      }
      case 'issue-client': {
        const request = { name: SCHEDULER_CLIENT, sans: [], usage: 'client', life: certLife } as const;
        return write(
          SCHEDULER_SECRET,
          await issueLeaf(signerOf(data, EXTENDER_CA, ca, step.by), request, now),
          clientStored,
        );
      }
      case 'retire':
        return writeCa(retired(data, EXTENDER_CA, now));
      case 'drop-old':
        return writeCa(dropped(data, EXTENDER_CA));
      case 'confirm':
      case 'issue-canary':
        throw new Error(`the extender has no step ${step.kind}`);
    }
  }
}
