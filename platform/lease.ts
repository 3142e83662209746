// Leader election on a Lease, with client-go's rules. The age of another holder's record counts
// from when this replica saw the record change, never from the holder's clock. A takeover is a
// compare-and-swap, and a holder trusts its lease only until its own renewal deadline.
import { setTimeout as sleep } from 'node:timers/promises';
import { isConflict, isAlreadyExists, isNotFound, type Kube } from './kube.ts';
import type { Log } from './log.ts';

interface LeaseObject {
  metadata: { name: string; namespace: string; resourceVersion?: string };
  spec?: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    acquireTime?: string;
    renewTime?: string;
    leaseTransitions?: number;
  };
}

export interface LeaseOptions {
  readonly kube: Kube;
  readonly namespace: string;
  readonly name: string;
  readonly identity: string;
  /**
   * How long others wait for a silent holder, ms. The holder itself gives up after two thirds of
   * it.
   */
  readonly durationMs: number;
  readonly log: Log;
  /**
   * Milliseconds of the machine's clock: it goes on while the machine sleeps, and may be set back
   * or forward.
   */
  readonly now?: () => number;
}

export interface Leadership {
  readonly identity: string;
  /**
   * True only while the last renewal is younger than the renewal deadline: computed at each read.
   * Listeners hear of every value that is read, so that what a reader leaves undone because of a
   * renewal that came late is looked at again.
   */
  readonly held: boolean;
  onChange(listener: (held: boolean) => void): void;
  /** Takes part until the signal; then gives the Lease back. */
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Takes the Lease from its holder, and resolves once the former holder has lost it by its own
 * rules. The Lease is held and renewed until the signal.
 */
export async function takeOver(options: LeaseOptions, signal: AbortSignal): Promise<Leadership> {
  const former = await seize(options, signal);
  const leadership = leaseElection(options);
  void leadership.run(signal);
  // The former holder trusts its last renewal for less than this. Its clock began before ours.
  await sleep(former, undefined, { signal });
  while (!leadership.held) await sleep(100, undefined, { signal });
  return leadership;
}

/** Writes our name over the holder's; returns how long that holder may trust its Lease, ms. */
async function seize({ kube, namespace, name, identity, durationMs }: LeaseOptions, signal: AbortSignal) {
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const spec = {
    holderIdentity: identity,
    leaseDurationSeconds: Math.max(1, Math.ceil(durationMs / 1000)),
    renewTime: new Date().toISOString().replace('Z', '000Z'),
  };
  for (;;) {
    try {
      const lease = await kube.request<LeaseObject>('GET', `${collection}/${name}`, { signal });
      await kube.request('PUT', `${collection}/${name}`, {
        signal,
        body: { ...lease, spec: { ...lease.spec, ...spec } },
      });
      return lease.spec?.holderIdentity ? (lease.spec.leaseDurationSeconds ?? durationMs / 1000) * 1000 : 0;
    } catch (error) {
      if (isConflict(error)) continue;
      if (!isNotFound(error)) throw error;
    }
    const body = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace }, spec };
    try {
      await kube.request('POST', collection, { signal, body });
      return 0;
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
  }
}

/** One participant. */
export function leaseElection(options: LeaseOptions): Leadership {
  const now = options.now ?? Date.now;
  const deadline = (options.durationMs * 2) / 3;
  const retry = options.durationMs / 7;
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${options.namespace}/leases`;
  const path = `${collection}/${options.name}`;
  const listeners: ((held: boolean) => void)[] = [];
  let renewed: { readonly wall: number; readonly steady: number } | undefined;
  let told = false;
  let seen: { record: string; at: number } | undefined;

  // The steady clock stands still while the machine sleeps, the other one may be set back:
  // whichever says more counts against us.
  const held = (): boolean =>
    renewed !== undefined && Math.max(now() - renewed.wall, performance.now() - renewed.steady) < deadline;
  const tell = (): boolean => {
    const value = held();
    if (value === told) return value;
    told = value;
    options.log.info(value ? 'leading' : 'not leading any more', { identity: options.identity });
    for (const listener of listeners) listener(value);
    return value;
  };
  const microTime = (): string => new Date(now()).toISOString().replace('Z', '000Z');

  /**
   * One try to take or renew; the time before the call counts, so that a slow answer shortens the
   * claim.
   */
  const attempt = async (signal: AbortSignal): Promise<void> => {
    const asked = { wall: now(), steady: performance.now() };
    let lease: LeaseObject | undefined;
    const call = { signal, timeoutMs: Math.max(1000, deadline / 2) };
    try {
      lease = await options.kube.request<LeaseObject>('GET', path, call);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    const spec = {
      holderIdentity: options.identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(options.durationMs / 1000)),
      renewTime: microTime(),
    };
    if (lease === undefined) {
      const body = {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name: options.name, namespace: options.namespace },
        spec: { ...spec, acquireTime: spec.renewTime, leaseTransitions: 0 },
      };
      await options.kube.request('POST', collection, { ...call, body });
      renewed = asked;
      return;
    }
    const holder = lease.spec?.holderIdentity ?? '';
    // Only the steady clock counts against another: one set forward would end its time too early.
    const record = JSON.stringify(lease.spec);
    if (seen?.record !== record) seen = { record, at: performance.now() };
    const mine = holder === options.identity;
    // The holder's own duration, which may be another one than ours: during an upgrade, say.
    const theirs = lease.spec?.leaseDurationSeconds;
    const patience = theirs === undefined ? options.durationMs : theirs * 1000;
    if (!mine && holder !== '' && performance.now() - seen.at < patience) return;
    const body: LeaseObject = {
      ...lease,
      spec: {
        ...lease.spec,
        ...spec,
        acquireTime: mine ? (lease.spec?.acquireTime ?? spec.renewTime) : spec.renewTime,
        leaseTransitions: (lease.spec?.leaseTransitions ?? 0) + (mine ? 0 : 1),
      },
    };
    await options.kube.request('PUT', path, { ...call, body });
    renewed = asked;
  };

  const giveBack = async (): Promise<void> => {
    if (!held()) return;
    renewed = undefined;
    tell();
    try {
      const lease = await options.kube.request<LeaseObject>('GET', path, { timeoutMs: 2000 });
      if (lease.spec?.holderIdentity !== options.identity) return;
      await options.kube.request('PUT', path, {
        timeoutMs: 2000,
        body: { ...lease, spec: { ...lease.spec, holderIdentity: '' } },
      });
    } catch (error) {
      options.log.error('lease not given back: the next leader waits for it to run out', { error });
    }
  };

  return {
    identity: options.identity,
    get held() {
      return tell();
    },
    onChange: (listener) => void listeners.push(listener),
    async run(signal) {
      // Tells the loss in time also while a call hangs or the process was stopped.
      const watchdog = setInterval(tell, Math.max(50, retry / 2));
      let failures = 0;
      while (!signal.aborted) {
        try {
          await attempt(signal);
          failures = 0;
        } catch (error) {
          if (signal.aborted) break;
          failures += 1;
          if (!isConflict(error) && !isAlreadyExists(error) && (failures === 1 || failures % 20 === 0))
            options.log.error('lease not renewed, trying again', { error });
        }
        tell();
        await sleep(retry * (0.9 + Math.random() / 5), undefined, { signal }).catch(() => undefined);
      }
      clearInterval(watchdog);
      await giveBack();
    },
  };
}
