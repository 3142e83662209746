// A real Prometheus and a real Alertmanager beside a test cluster, and a receiver of the test.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { freePort, type ControlPlane } from '../../lab/cluster/control-plane.ts';
import { untilReady } from '../../lab/cluster/lifetime.ts';

const [PROMETHEUS, ALERTMANAGER] = ['prometheus', 'prometheus-alertmanager'];

/** What is missing here, as one sentence; undefined where both can run. */
export const lacksPrometheus = (): string | undefined => {
  const missing = [PROMETHEUS, ALERTMANAGER].filter((program) => spawnSync(program, ['--version']).status !== 0);
  return missing.length === 0
    ? undefined
    : `${missing.join(' and ')} is missing here (npm test -- --install brings it)`;
};

/** One series of an answer; the values are those of a range. */
export interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value?: readonly [at: number, value: string];
  readonly values?: readonly (readonly [at: number, value: string])[];
}

export interface Prometheus {
  readonly url: string;
  query(expr: string): Promise<readonly Series[]>;
  /** The last minutes, in steps of 5 s. */
  range(expr: string, minutes: number): Promise<readonly Series[]>;
  /** How each alert stood when the receiver last heard of it. */
  readonly alerts: ReadonlyMap<string, 'firing' | 'resolved'>;
}

/**
 * Scrapes those addresses and the API server each second, and sends what the rules say to a
 * receiver.
 */
export async function startPrometheus(
  cp: ControlPlane,
  metricsUrls: readonly string[],
  groups: unknown,
): Promise<Prometheus> {
  const alerts = new Map<string, 'firing' | 'resolved'>();
  const receiver = createServer((request, answer) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const sent = JSON.parse(body) as { alerts: { status: 'firing' | 'resolved'; labels: { alertname: string } }[] };
      for (const { status, labels } of sent.alerts) alerts.set(labels.alertname, status);
      answer.end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  cp.lifetime.onStop(async () => {
    receiver.closeAllConnections();
    receiver.close();
  });
  const [port, alertPort] = [await freePort(), await freePort()];
  const write = (name: string, content: unknown): string => {
    const file = join(cp.dir, name);
    writeFileSync(file, typeof content === 'string' ? content : stringify(content));
    return file;
  };

  const { port: receiverPort } = receiver.address() as AddressInfo;
  const alertmanagerConfig = write('alertmanager.yaml', {
    route: { receiver: 'test', group_by: ['alertname'], group_wait: '0s', group_interval: '1s', repeat_interval: '1h' },
    receivers: [{ name: 'test', webhook_configs: [{ url: `http://127.0.0.1:${receiverPort}/`, send_resolved: true }] }],
  });
  const alertmanager = cp.lifetime.start('alertmanager', ALERTMANAGER, [
    `--config.file=${alertmanagerConfig}`,
    `--storage.path=${join(cp.dir, 'alertmanager')}`,
    `--web.listen-address=127.0.0.1:${alertPort}`,
    '--cluster.listen-address=',
  ]);
  await untilReady(alertmanager, async () => (await fetch(`http://127.0.0.1:${alertPort}/-/ready`)).ok);

  const { users } = parse(readFileSync(cp.kubeconfig, 'utf8')) as { users: { user: { token: string } }[] };
  write('rules.yaml', { groups });
  const config = write('prometheus.yaml', {
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: ['rules.yaml'],
    alerting: { alertmanagers: [{ static_configs: [{ targets: [`127.0.0.1:${alertPort}`] }] }] },
    scrape_configs: [
      { job_name: 'gpu-gate', static_configs: [{ targets: metricsUrls.map((url) => new URL(url).host) }] },
      {
        job_name: 'apiserver',
        scheme: 'https',
        // Tens of thousands of series in a second are no part of this.
        scrape_interval: '2s',
        scrape_timeout: '2s',
        authorization: { credentials_file: write('prometheus-token', users[0]?.user.token ?? '') },
        tls_config: { ca_file: cp.caFile },
        static_configs: [{ targets: [new URL(cp.server).host] }],
        metric_relabel_configs: [
          { source_labels: ['__name__'], regex: 'apiserver_admission_webhook_.*', action: 'keep' },
        ],
      },
    ],
  });
  const url = `http://127.0.0.1:${port}`;
  const prometheus = cp.lifetime.start('prometheus', PROMETHEUS, [
    `--config.file=${config}`,
    `--storage.tsdb.path=${join(cp.dir, 'prometheus')}`,
    `--web.listen-address=127.0.0.1:${port}`,
    '--log.level=warn',
  ]);
  await untilReady(prometheus, async () => (await fetch(`${url}/-/ready`)).ok);
  const ask = async (path: string, parameters: Readonly<Record<string, string>>): Promise<readonly Series[]> => {
    const answer = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(parameters).toString()}`);
    const { status, error, data } = (await answer.json()) as {
      status: string;
      error?: string;
      data?: { result: readonly Series[] };
    };
    if (status !== 'success') throw new Error(`${parameters['query']}: ${error}`);
    return data?.result ?? [];
  };
  return {
    url,
    alerts,
    query: (query) => ask('query', { query }),
    range(query, minutes) {
      const end = Math.floor(Date.now() / 1000);
      return ask('query_range', { query, start: String(end - minutes * 60), end: String(end), step: '5' });
    },
  };
}
