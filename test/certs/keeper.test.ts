// The leader's part on objects in memory, by a clock that the test sets: what a real API server
// cannot show within seconds. Everything else about it is in test/control-plane/certificates.
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { beforeAll, describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { CertKeeper, type KeeperOptions } from '../../certs/keeper.ts';
import { certMetrics } from '../../certs/metrics.ts';
import { readBundle, readCert } from '../../certs/cert.ts';
import type { Replicas } from '../../certs/chain.ts';
import {
  CA_SECRET,
  EXTENDER_SECRET,
  SCHEDULER_SECRET,
  WEBHOOK_SECRET,
  type CertStore,
  type Stored,
} from '../../certs/store.ts';
import { jsonLog } from '../../platform/log.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const SANS = ['w.svc', '::1'];

/**
 * What a cluster looks like on which nothing is due, and when that was; made once: keys take their
 * time.
 */
interface Snapshot {
  readonly now: number;
  readonly objects: readonly (readonly [string, Stored])[];
  readonly configMap: Readonly<Record<string, string>>;
  readonly bundles: { readonly entries: readonly string[]; readonly canary: string };
}
const NOTHING: Snapshot = {
  now: Date.parse('2026-11-24T10:00:00Z'),
  objects: [],
  configMap: {},
  bundles: { entries: [''], canary: '' },
};
let sound: Snapshot = NOTHING;
beforeAll(async () => {
  const w = world(NOTHING);
  await settle(w, w.keeper());
  sound = w.snapshot();
});

/**
 * A cluster in memory: replicas serve at once what is in the Secret, the one API server believes
 * its configuration at once.
 */
function world(from: Snapshot = sound) {
  const objects = new Map<string, Stored>(from.objects);
  let version = 1000 * objects.size;
  let { configMap, bundles } = from;
  const of = {
    /** The API server's clock. */
    now: from.now,
    /** What the leader's clock is ahead of it, ms. */
    ahead: 0,
    leads: true,
    canaryWorks: true,
    replicas: undefined as Replicas | undefined,
    extenders: undefined as Replicas | undefined,
    writes: [] as string[],
    lines: [] as string[],
    checks: 0,
    text: (name: string, key: string): string => objects.get(name)?.data[key] ?? '',
    set: (name: string, data: Readonly<Record<string, string>>): void => {
      version += 1;
      objects.set(name, { resourceVersion: String(version), type: 'kubernetes.io/tls', metadata: {}, data });
    },
    remove: (name: string): boolean => objects.delete(name),
    trusted: (): readonly string[] => readBundle(bundles.entries[0]).map(({ fingerprint }) => fingerprint),
    wipe: (): void => {
      bundles = { entries: [''], canary: '' };
    },
  };
  const store: CertStore = {
    secret: async (name) =>
      objects.get(name) ?? { resourceVersion: undefined, type: undefined, metadata: {}, data: {} },
    async writeSecret(name, data, before) {
      if (before.resourceVersion !== objects.get(name)?.resourceVersion) return false;
      of.writes.push(name);
      of.set(name, data);
      return true;
    },
    configMap: async () => configMap,
    async writeConfigMap(_, data) {
      configMap = data;
    },
    async bundles() {
      of.checks += 1;
      return { kind: 'present', ...bundles };
    },
    async writeBundles(bundle, canary) {
      of.writes.push('configuration');
      bundles = { entries: [bundle], canary };
      return true;
    },
  };
  const registry = new Registry();
  const now = (): number => of.now + of.ahead;
  const options: KeeperOptions = {
    store,
    probe: {
      replicas: async (chain) =>
        (chain === 'webhook' ? of.replicas : of.extenders) ?? {
          kind: 'known',
          served: [
            {
              address: 'r',
              leaf: readCert(of.text(chain === 'webhook' ? WEBHOOK_SECRET : EXTENDER_SECRET, 'tls.crt')),
            },
          ],
        },
      canary: async () => (of.canaryWorks ? undefined : 'it did not come back'),
      serverTime: async () => of.now,
    },
    log: jsonLog('info', (line) => void of.lines.push(line)),
    metrics: certMetrics(registry, now),
    leads: () => of.leads,
    now,
    webhookSans: SANS,
    extenderSans: ['e.svc', 'fd00:0:0::00AB'],
    certLife: 90 * DAY,
    caLife: 1000 * DAY,
    extenderCaLife: 3650 * DAY,
    extenderCaOverlap: 60 * DAY,
    canaryWindow: MINUTE,
    caGrace: 10 * MINUTE,
    checkEvery: HOUR,
  };
  const snapshot = (): Snapshot => ({ now: of.now, objects: [...objects], configMap, bundles });
  return { of, options, snapshot, metrics: () => registry.metrics(), keeper: () => new CertKeeper(options) };
}

type World = ReturnType<typeof world>;
/** Checks every second of the world's time until nothing is due. */
async function settle({ of }: World, keeper: CertKeeper): Promise<void> {
  for (let i = 0; i < 2000; i += 1) {
    const step = await keeper.check();
    if (step.kind === 'wait' && step.on === 'nothing') return;
    of.now += step.kind === 'wait' && step.on === 'grace' ? MINUTE : 1000;
  }
  throw new Error('it never settled');
}
const certOf = ({ of }: World, name: string) => readCert(of.text(name, 'tls.crt'));

describe('the leader', () => {
  it('writes nothing once all is well, addresses of IPv6 among the names', async () => {
    const w = world();
    w.of.writes = [];
    for (let i = 0; i < 3; i += 1) await w.keeper().check();
    expect(w.of.writes).toEqual([]);
  });

  it.each([
    ['ahead', 2 * HOUR],
    ['behind', -2 * HOUR],
  ])("dates what is the extender's by the API server's clock, its own two hours %s", async (_, ahead) => {
    const w = world();
    w.of.ahead = ahead;
    w.of.remove(EXTENDER_SECRET);
    w.of.remove(SCHEDULER_SECRET);
    await w.keeper().check();
    for (const name of [EXTENDER_SECRET, SCHEDULER_SECRET]) {
      expect(certOf(w, name)?.from).toBe(w.of.now - HOUR);
      expect(certOf(w, name)?.to).toBe(w.of.now + 90 * DAY);
    }
  });

  it("starts no change of the extender's CA because its own clock is years ahead", async () => {
    const w = world();
    const ca = w.of.text(CA_SECRET, 'extender-ca.crt');
    w.of.ahead = 3000 * DAY;
    await w.keeper().check();
    expect(w.of.text(CA_SECRET, 'extender-ca.crt')).toBe(ca);
  });

  it.each([['retire'], ['drop-old']])('takes the time from the API server before it is to %s', async (kind) => {
    const w = world();
    w.of.set(CA_SECRET, { ...(await w.options.store.secret(CA_SECRET)).data, 'tls.crt': 'junk' });
    const keeper = w.keeper();
    const steps: string[] = [];
    for (let i = 0; i < 200 && !steps.includes('retire'); i += 1) {
      w.of.now += 1000;
      if (kind === 'retire' && steps.includes('issue-leaf')) break;
      const step = await keeper.step();
      steps.push(step.kind);
    }
    w.of.ahead = 2 * HOUR;
    const retired = w.of.now;
    const other = w.keeper();
    for (let i = 0; i < 3; i += 1) await other.step();
    expect(Number(w.of.text(CA_SECRET, 'retired'))).toBeLessThanOrEqual(retired);
    expect(await other.step()).toMatchObject({ kind: 'wait', on: 'grace' });
    expect(w.of.trusted()).toHaveLength(2);
  });

  describe('confirms a new CA', () => {
    const changing = async (): Promise<{ w: World; keeper: CertKeeper; until: (kind: string) => Promise<void> }> => {
      const w = world();
      w.of.set(CA_SECRET, {
        ...(await w.options.store.secret(CA_SECRET)).data,
        'tls.crt': 'junk',
      });
      const keeper = w.keeper();
      const until = async (kind: string): Promise<void> => {
        for (let i = 0; i < 100; i += 1) {
          const step = await keeper.step();
          if (step.kind === kind || (step.kind === 'wait' && step.on === kind)) return;
          w.of.now += 1000;
        }
        throw new Error(`no ${kind}`);
      };
      return { w, keeper, until };
    };

    it('after a minute of canaries, and not after an hour in which the process was suspended', async () => {
      const { w, keeper, until } = await changing();
      await until('confirmation');
      w.of.now += 50_000;
      // Suspended; and what API servers hold has changed meanwhile.
      w.of.now += HOUR;
      w.of.canaryWorks = false;
      expect(await keeper.step()).toMatchObject({ kind: 'wait', on: 'confirmation' });
      w.of.canaryWorks = true;
      const began = w.of.now;
      await until('confirm');
      expect(w.of.now - began).toBeGreaterThanOrEqual(MINUTE);
    });

    it('by none of the canaries from before the configuration was written', async () => {
      const { w, keeper, until } = await changing();
      await until('confirmation');
      for (let i = 0; i < 59; i += 1) {
        w.of.now += 1000;
        await keeper.step();
      }
      w.of.wipe();
      w.of.now += 1000;
      expect((await keeper.step()).kind).toBe('publish');
      const began = w.of.now;
      w.of.now += 1000;
      await until('confirm');
      expect(w.of.now - began).toBeGreaterThanOrEqual(MINUTE);
    });

    it('by none of the canaries from before another one led', async () => {
      const { w, until } = await changing();
      await until('confirmation');
      const stop = new AbortController();
      const running = new CertKeeper({ ...w.options, checkEvery: 100 }).run(stop.signal);
      const later = async (ms: number): Promise<void> => {
        w.of.now += ms;
        await sleep(250);
      };
      const confirmed = (): boolean => w.of.text(CA_SECRET, 'confirmed') !== '';
      await later(0);
      await later(10_000);
      w.of.leads = false;
      await later(5000);
      w.of.leads = true;
      await later(0);
      for (let i = 0; i < 5; i += 1) await later(10_000);
      // More than a minute after the first one, less than one since it leads again.
      expect(confirmed()).toBe(false);
      await later(10_000);
      await later(10_000);
      expect(confirmed()).toBe(true);
      stop.abort();
      await running;
    });
  });

  it('keeps every trusted CA where both Secrets are lost and no replica answers it', async () => {
    const w = world();
    const [before = ''] = w.of.trusted();
    w.of.replicas = { kind: 'known', served: [{ address: 'r', leaf: undefined }] };
    w.of.remove(CA_SECRET);
    w.of.remove(WEBHOOK_SECRET);
    await w.keeper().check();
    expect(w.of.trusted()).toHaveLength(2);
    expect(w.of.trusted()).toContain(before);
  });

  it('checks when it is woken, and claims nothing once another one leads', async () => {
    const w = world();
    const stop = new AbortController();
    const keeper = w.keeper();
    const running = keeper.run(stop.signal);
    await sleep(500);
    expect(await w.metrics()).toMatch(/gpu_gate_certificate_step\{chain="webhook",step="wait-nothing"\} 1/);
    const { checks } = w.of;
    await sleep(300);
    expect(w.of.checks).toBe(checks);
    w.of.wipe();
    keeper.wake();
    await sleep(500);
    expect(w.of.trusted()).toHaveLength(1);
    w.of.leads = false;
    keeper.wake();
    await sleep(300);
    const claims = (await w.metrics())
      .split('\n')
      .filter((line) => /^gpu_gate_(certificate|ca_|extender_|schedulers_)/.test(line))
      .filter((line) => !/rotations_total|last_error/.test(line));
    expect(claims).toEqual([]);
    stop.abort();
    await running;
  });

  it('takes no foreign CA from beside a foreign certificate of the extender', async () => {
    const w = world();
    const foreign = await issueCa('foreign', DAY, w.of.now);
    const leaf = await issueLeaf(foreign, { name: 'x', sans: ['e.svc'], usage: 'server', life: DAY }, w.of.now);
    w.of.set(EXTENDER_SECRET, { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': foreign.cert });
    await w.keeper().check();
    expect(readBundle(w.of.text(EXTENDER_SECRET, 'ca.crt'))).toHaveLength(1);
    expect(w.of.text(EXTENDER_SECRET, 'ca.crt')).not.toContain(foreign.cert);
    expect(certOf(w, EXTENDER_SECRET)?.sans).toContain('fd00::ab');
  });
});
