// The extender's certificates: reads the objects, asks extender-renewal.ts for the next step, takes it, until nothing is due.
import type { Log } from '../platform/log.ts';
import type { ServerClock } from './clock.ts';
import {
  nextExtenderStep,
  restartBy,
  extenderBundle,
  type ExtenderCa,
  type ExtenderInput,
  type ExtenderStep,
} from './extender-rules.ts';
import { issueCa, issueLeaf } from './issue.ts';
import { caOf, leafOf, numberOf, pairOf, pemOf, without } from './material.ts';
import type { CertMetrics } from './metrics.ts';
import { keyMatches, readBundle, type KeyPair } from './read.ts';
import {
  CA_SECRET,
  EXTENDER_CA_CONFIG_MAP,
  EXTENDER_SECRET,
  SCHEDULER_SECRET,
  type CertStore,
  type Stored,
} from './store.ts';

export interface ExtenderChainOptions {
  readonly store: CertStore;
  readonly log: Log;
  readonly metrics: CertMetrics;
  readonly extenderSans: readonly string[];
  /** ms */
  readonly certLife: number;
  readonly extenderCaLife: number;
  /** ms: for how long after a change the CA before goes on signing. */
  readonly extenderCaOverlap: number;
  /** ms: how long whoever mounts a Secret may be behind. */
  readonly caGrace: number;
}

/** Common name of the client certificate of the chart's scheduler. */
const SCHEDULER_CLIENT = 'gpu-gate-scheduler';
/** More steps than a whole change has mean that somebody writes against us; the next check goes on. */
const STEPS = 12;

interface Seen {
  readonly input: ExtenderInput;
  readonly caStored: Stored;
  readonly servingStored: Stored;
  readonly clientStored: Stored;
}

/** Takes every step that is due: CA, ConfigMap, serving and client certificate. */
export async function keepExtenderChain(options: ExtenderChainOptions, clock: ServerClock): Promise<void> {
  const { log, metrics } = options;
  let changed = false;
  for (let steps = 0; steps < STEPS; steps += 1) {
    const seen = await observe(options, clock);
    const until = restartBy(seen.input);
    if (changed && until !== undefined)
      log.error("the extender's CA changes: restart every scheduler that asks it", {
        until: new Date(until).toISOString(),
      });
    changed = false;
    if (nextExtenderStep(seen.input) === undefined) return;
    // What is made is dated by the clock that verifies it.
    await clock.read();
    const input = { ...seen.input, now: clock.now() };
    const step = nextExtenderStep(input);
    if (step === undefined) return;
    log.info('certificate step', { step: step.kind, because: step.because });
    let result = 'error';
    try {
      result = (await take(options, step, { ...seen, input })) ? 'ok' : 'conflict';
    } finally {
      metrics.rotations.inc({ kind: step.kind, result });
    }
    changed = step.kind === 'make-extender-ca' || step.kind === 'adopt-extender-ca';
  }
}

async function observe(options: ExtenderChainOptions, clock: ServerClock): Promise<Seen> {
  const { store, metrics, extenderSans: sans, extenderCaOverlap: overlap, caGrace: grace } = options;
  const [caStored, servingStored, clientStored, configMap] = await Promise.all([
    store.secret(CA_SECRET),
    store.secret(EXTENDER_SECRET),
    store.secret(SCHEDULER_SECRET),
    store.configMap(EXTENDER_CA_CONFIG_MAP),
  ]);
  const { data } = caStored;
  const previous = readBundle(data['extender-ca-previous.crt']).filter(({ isCa }) => isCa);
  const ca: ExtenderCa = {
    current: caOf(data, 'extender-ca'),
    previous,
    previousSigns:
      previous[0] !== undefined && keyMatches({ cert: previous[0].pem, key: data['extender-ca-previous.key'] }),
    changedAt: numberOf(data['extender-ca-changed']),
  };
  const published = readBundle(configMap['ca.crt']);
  const beside = readBundle(servingStored.data['ca.crt']);
  const prints = (certs: readonly { readonly fingerprint: string }[]): readonly string[] =>
    certs.map(({ fingerprint }) => fingerprint);
  const input: ExtenderInput = {
    ca,
    serving: leafOf(servingStored.data),
    client: leafOf(clientStored.data),
    sans,
    // Beside a foreign certificate there are foreign CAs: they count only where the ConfigMap is lost.
    known: (published.length > 0 ? published : beside).filter(({ isCa }) => isCa),
    handedOut: {
      configMap: prints(published),
      serving: prints(beside),
      client: prints(readBundle(clientStored.data['ca.crt'])),
    },
    overlap,
    grace,
    now: clock.now(),
  };
  metrics.ends('extender-ca', ca.current?.to);
  metrics.ends('extender-ca-previous', previous[0]?.to);
  metrics.ends('extender', input.serving?.to);
  metrics.ends('scheduler-client', input.client?.to);
  metrics.extenderBundle.set(extenderBundle(ca, input.now).length);
  metrics.restartBy(restartBy(input));
  return { input, caStored, servingStored, clientStored };
}

async function take(options: ExtenderChainOptions, step: ExtenderStep, seen: Seen): Promise<boolean> {
  const { store, certLife, extenderCaLife, extenderSans: sans } = options;
  const { input, caStored, servingStored, clientStored } = seen;
  const { data } = caStored;
  const { now } = input;
  const bundle = pemOf(extenderBundle(input.ca, now));
  const write = (name: string, pair: KeyPair, before: Stored): Promise<boolean> =>
    store.writeSecret(name, { 'tls.crt': pair.cert, 'tls.key': pair.key, 'ca.crt': bundle }, before);
  switch (step.kind) {
    case 'make-extender-ca': {
      const fresh = await issueCa('gpu-gate extender CA', extenderCaLife, now);
      const [before] = step.previous;
      const key = [data['extender-ca.key'], data['extender-ca-previous.key']].find(
        (candidate) => before !== undefined && keyMatches({ cert: before.pem, key: candidate }),
      );
      return store.writeSecret(
        CA_SECRET,
        {
          ...withoutPrevious(data),
          'extender-ca.crt': fresh.cert,
          'extender-ca.key': fresh.key,
          ...(before === undefined
            ? {}
            : { 'extender-ca-previous.crt': pemOf(step.previous), 'extender-ca-changed': String(now) }),
          ...(key === undefined ? {} : { 'extender-ca-previous.key': key }),
        },
        caStored,
      );
    }
    case 'adopt-extender-ca':
      return store.writeSecret(
        CA_SECRET,
        {
          ...data,
          'extender-ca-previous.crt': pemOf(step.previous),
          'extender-ca-changed': String(input.ca.changedAt ?? now),
        },
        caStored,
      );
    case 'publish-extender-ca':
      await store.writeConfigMap(EXTENDER_CA_CONFIG_MAP, { 'ca.crt': bundle });
      return true;
    case 'trust-extender-ca': {
      const stored: readonly (readonly [string, Stored])[] = [
        [EXTENDER_SECRET, servingStored],
        [SCHEDULER_SECRET, clientStored],
      ];
      const written = stored
        .filter(([, { data: of }]) => leafOf(of) !== undefined)
        .map(([name, before]) => write(name, pairOf(before.data, 'tls'), before));
      return (await Promise.all(written)).every(Boolean);
    }
    case 'issue-extender': {
      const before = { ...data, 'extender-ca-previous.crt': input.ca.previous[0]?.pem ?? '' };
      const signer = pairOf(before, step.by === 'current' ? 'extender-ca' : 'extender-ca-previous');
      const name = sans[0] ?? 'gpu-gate-extender';
      return write(
        EXTENDER_SECRET,
        await issueLeaf(signer, { name, sans, usage: 'server', life: certLife }, now),
        servingStored,
      );
    }
    case 'issue-scheduler-client': {
      const request = { name: SCHEDULER_CLIENT, sans: [], usage: 'client', life: certLife } as const;
      return write(SCHEDULER_SECRET, await issueLeaf(pairOf(data, 'extender-ca'), request, now), clientStored);
    }
    case 'drop-extender-ca':
      return store.writeSecret(CA_SECRET, withoutPrevious(data), caStored);
  }
}

const withoutPrevious = (data: Readonly<Record<string, string>>): Record<string, string> =>
  without(data, 'extender-ca-previous.crt', 'extender-ca-previous.key', 'extender-ca-changed');
