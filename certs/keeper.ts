// The leader's part: reads the objects, asks renewal.ts for the next step, takes it, until nothing is due. A wall-clock check
// at fixed times is all the timing there is: a process that was suspended for a day finds out at its next check.
import { setTimeout as sleep } from 'node:timers/promises';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Log } from '../platform/log.ts';
import { issueCa, issueLeaf, keyMatches, readCert, splitBundle, type CertFacts, type KeyPair } from './issue.ts';
import { bundleOf, nextStep, renewalOf, type CaState, type Step } from './renewal.ts';
import {
  CA_SECRET,
  EXTENDER_CA_CONFIG_MAP,
  EXTENDER_SECRET,
  WEBHOOK_SECRET,
  type CertStore,
  type Stored,
} from './store.ts';

export interface KeeperOptions {
  readonly store: CertStore;
  readonly log: Log;
  readonly metrics: CertMetrics;
  readonly leads: () => boolean;
  readonly now: () => number;
  readonly webhookSans: readonly string[];
  readonly extenderSans: readonly string[];
  /** ms */
  readonly certLife: number;
  readonly caLife: number;
  readonly extenderCaLife: number;
  readonly caOverlap: number;
  readonly caGrace: number;
  readonly checkEvery: number;
}

export type CertMetrics = ReturnType<typeof certMetrics>;

export function certMetrics(registry: Registry) {
  const registers = [registry];
  return {
    notAfter: new Gauge({
      name: 'gpu_gate_certificate_not_after_seconds',
      help: 'When a certificate ends, seconds since the epoch.',
      labelNames: ['certificate'],
      registers,
    }),
    rotations: new Counter({
      name: 'gpu_gate_certificate_rotations_total',
      help: 'Steps of making and replacing certificates.',
      labelNames: ['kind', 'result'],
      registers,
    }),
    bundle: new Gauge({
      name: 'gpu_gate_ca_bundle_certificates',
      help: 'CAs that the webhook configuration trusts.',
      registers,
    }),
    lastError: new Gauge({
      name: 'gpu_gate_certificate_last_error_timestamp_seconds',
      help: 'When a step last failed.',
      registers,
    }),
  };
}

const TLS = 'kubernetes.io/tls';
const OPAQUE = 'Opaque';

/** A CA of which certificate and key are there and match. */
const readCa = (data: Readonly<Record<string, string>>, prefix: string): CertFacts | undefined => {
  const cert = readCert(data[`${prefix}.crt`]);
  return cert !== undefined && cert.isCa && keyMatches({ cert: cert.pem, key: data[`${prefix}.key`] })
    ? cert
    : undefined;
};
const readLeaf = (stored: Stored): CertFacts | undefined => {
  const cert = readCert(stored.data['tls.crt']);
  return cert !== undefined && keyMatches({ cert: cert.pem, key: stored.data['tls.key'] }) ? cert : undefined;
};
const pairOf = (data: Readonly<Record<string, string>>, prefix: string): KeyPair => ({
  cert: data[`${prefix}.crt`] ?? '',
  key: data[`${prefix}.key`] ?? '',
});
const without = (data: Readonly<Record<string, string>>, ...keys: string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(data).filter(([key]) => !keys.includes(key)));

export class CertKeeper {
  readonly #options: KeeperOptions;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Checks at fixed times while leading, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { leads, log, checkEvery, metrics, now } = this.#options;
    let failed = '';
    while (!signal.aborted) {
      if (leads()) {
        try {
          await this.check();
          failed = '';
        } catch (error) {
          metrics.lastError.set(now() / 1000);
          const message = error instanceof Error ? error.message : String(error);
          if (message !== failed) log.error('certificates not checked, trying again', { error });
          failed = message;
        }
      }
      await sleep(leads() ? checkEvery : Math.min(checkEvery, 200), undefined, { signal }).catch(() => undefined);
    }
  }

  /** Takes every step that is due now. */
  async check(): Promise<void> {
    // More steps than a whole rotation has mean that somebody writes against us; the next check goes on.
    for (let steps = 0; steps < 12; steps += 1) if (!(await this.#step())) break;
    await this.#extender();
  }

  /** One step of the webhook's chain; true where another one may be due at once. */
  async #step(): Promise<boolean> {
    const { store, now, log, metrics } = this.#options;
    const at = now();
    const caStored = await store.secret(CA_SECRET);
    const leafStored = await store.secret(WEBHOOK_SECRET);
    const bundles = await store.caBundles();
    const ca: CaState = {
      current: readCa(caStored.data, 'ca'),
      next: readCa(caStored.data, 'next'),
      old: readCert(caStored.data['old.crt']),
      publishedAt: numberOf(caStored.data['next.published']),
      switchedAt: numberOf(caStored.data['old.switched']),
    };
    const leaf = readLeaf(leafStored);
    const trusted = bundles === undefined ? undefined : commonOf([...bundles.values()]);
    if (ca.current !== undefined) metrics.notAfter.set({ certificate: 'webhook-ca' }, ca.current.to / 1000);
    if (leaf !== undefined) metrics.notAfter.set({ certificate: 'webhook' }, leaf.to / 1000);
    if (trusted !== undefined) metrics.bundle.set(trusted.length);
    const { caOverlap: overlap, caGrace: grace, webhookSans: sans } = this.#options;
    const step = nextStep({ ca, leaf, sans, trusted, overlap, grace, now: at });
    if (step.kind === 'wait') return false;
    log.info('certificate step', { step: step.kind, because: step.because });
    const done = await this.#take(step, ca, caStored, leafStored);
    metrics.rotations.inc({ kind: step.kind, result: done ? 'ok' : 'conflict' });
    return true;
  }

  async #take(
    step: Exclude<Step, { kind: 'wait' }>,
    ca: CaState,
    caStored: Stored,
    leafStored: Stored,
  ): Promise<boolean> {
    const { store, now, certLife, caLife, webhookSans } = this.#options;
    const at = now();
    const { data } = caStored;
    switch (step.kind) {
      case 'make-ca': {
        const fresh = await issueCa('gpu-gate webhook CA', caLife, at);
        // What may still be served was signed by the CA before: it stays trusted until the new leaf is out.
        const before = ca.current ?? readCert(leafStored.data['ca.crt']);
        const old = before === undefined ? {} : { 'old.crt': before.pem, 'old.switched': String(at) };
        return store.writeSecret(
          CA_SECRET,
          OPAQUE,
          { ...extenderPart(data), 'ca.crt': fresh.cert, 'ca.key': fresh.key, ...old },
          caStored,
        );
      }
      case 'make-next-ca': {
        const fresh = await issueCa('gpu-gate webhook CA', caLife, at);
        return store.writeSecret(
          CA_SECRET,
          OPAQUE,
          { ...data, 'next.crt': fresh.cert, 'next.key': fresh.key },
          caStored,
        );
      }
      case 'publish': {
        const written = await store.writeCaBundle(step.bundle.map((cert) => cert.pem).join(''));
        if (!written || ca.next === undefined || ca.publishedAt !== undefined) return written;
        return store.writeSecret(CA_SECRET, OPAQUE, { ...data, 'next.published': String(at) }, caStored);
      }
      case 'issue-leaf': {
        const signer = pairOf(data, step.by === 'next' ? 'next' : 'ca');
        const leaf = await issueLeaf(
          signer,
          { name: webhookSans[0] ?? 'gpu-gate-webhook', sans: webhookSans, usage: 'server', life: certLife },
          at,
        );
        const bundle = bundleOf(ca, at)
          .map((cert) => cert.pem)
          .join('');
        return store.writeSecret(
          WEBHOOK_SECRET,
          TLS,
          { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': bundle },
          leafStored,
        );
      }
      case 'promote-next':
        return store.writeSecret(
          CA_SECRET,
          OPAQUE,
          {
            ...extenderPart(data),
            'ca.crt': data['next.crt'] ?? '',
            'ca.key': data['next.key'] ?? '',
            'old.crt': data['ca.crt'] ?? '',
            'old.switched': String(at),
          },
          caStored,
        );
      case 'drop-old':
        return store.writeSecret(CA_SECRET, OPAQUE, without(data, 'old.crt', 'old.switched'), caStored);
    }
  }

  /** The extender's chain: its CA outlives schedulers that read it once, so only the leaf rotates. */
  async #extender(): Promise<void> {
    const { store, now, log, metrics, extenderCaLife, extenderSans, certLife } = this.#options;
    const at = now();
    let caStored = await store.secret(CA_SECRET);
    let ca = readCa(caStored.data, 'extender-ca');
    if (ca === undefined || at >= ca.to) {
      log.info('certificate step', {
        step: 'make-extender-ca',
        because: ca === undefined ? 'there is no usable CA' : 'the CA has expired; restart the schedulers that use it',
      });
      const fresh = await issueCa('gpu-gate extender CA', extenderCaLife, at);
      const done = await store.writeSecret(
        CA_SECRET,
        OPAQUE,
        { ...caStored.data, 'extender-ca.crt': fresh.cert, 'extender-ca.key': fresh.key },
        caStored,
      );
      metrics.rotations.inc({ kind: 'make-extender-ca', result: done ? 'ok' : 'conflict' });
      if (!done) return;
      caStored = await store.secret(CA_SECRET);
      ca = readCa(caStored.data, 'extender-ca');
      if (ca === undefined) return;
    }
    metrics.notAfter.set({ certificate: 'extender-ca' }, ca.to / 1000);
    await store.writeConfigMap(EXTENDER_CA_CONFIG_MAP, { 'ca.crt': ca.pem });
    const leafStored = await store.secret(EXTENDER_SECRET);
    const leaf = readLeaf(leafStored);
    if (leaf !== undefined) metrics.notAfter.set({ certificate: 'extender' }, leaf.to / 1000);
    const good =
      leaf !== undefined &&
      at < renewalOf(leaf) &&
      leaf.from <= at &&
      leaf.signedBy(ca) &&
      extenderSans.every((san) => leaf.sans.includes(san));
    if (good) return;
    const fresh = await issueLeaf(
      pairOf(caStored.data, 'extender-ca'),
      { name: extenderSans[0] ?? 'gpu-gate-extender', sans: extenderSans, usage: 'server', life: certLife },
      at,
    );
    const done = await store.writeSecret(
      EXTENDER_SECRET,
      TLS,
      { 'tls.crt': fresh.cert, 'tls.key': fresh.key, 'ca.crt': ca.pem },
      leafStored,
    );
    metrics.rotations.inc({ kind: 'issue-extender-leaf', result: done ? 'ok' : 'conflict' });
  }
}

const extenderPart = (data: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(data).filter(([key]) => key.startsWith('extender-ca.')));

const numberOf = (text: string | undefined): number | undefined =>
  text === undefined || !Number.isFinite(Number(text)) ? undefined : Number(text);

/** Fingerprints that every entry trusts; an entry without a bundle makes it none. */
const commonOf = (bundles: readonly string[]): readonly string[] => {
  const sets = bundles.map((bundle) => splitBundle(bundle).map((pem) => readCert(pem)?.fingerprint ?? ''));
  const [first = [], ...rest] = sets;
  const same = rest.every((set) => set.length === first.length && set.every((print) => first.includes(print)));
  return same ? first : [];
};
