import { describe, expect, it } from 'vitest';
import { OPTIONS, optionsHelp, parseOptions, variableOf } from '../../app/options.ts';

const problems = (args: string[], env: Record<string, string> = {}): readonly string[] => {
  const parsed = parseOptions(args, env);
  return parsed.ok ? [] : parsed.problems;
};

describe('options', () => {
  it('have defaults that parse', () => {
    const parsed = parseOptions([], {});
    expect(parsed.ok && parsed.options.webhookPort).toBe(8443);
    expect(parsed.ok && parsed.options.certLife).toBe(90 * 86_400_000);
  });
  it('come from a flag before the environment, and in both spellings', () => {
    const parsed = parseOptions(['--webhook-port=1', '--extender-port', '2'], {
      GPU_GATE_WEBHOOK_PORT: '3',
      GPU_GATE_METRICS_PORT: '4',
    });
    expect(parsed.ok && [parsed.options.webhookPort, parsed.options.extenderPort, parsed.options.metricsPort]).toEqual([
      1, 2, 4,
    ]);
  });
  it('are refused with every problem at once', () => {
    const said = problems(['--bogus', 'x', '--webhook-port', '99999', '--roles', 'webhook,cook'], {
      GPU_GATE_LOG_LEVEL: 'loud',
      GPU_GATE_WEBHOK_PORT: '1',
    });
    expect(said).toHaveLength(5);
    expect(said.join('\n')).toMatch(/--bogus[\s\S]*GPU_GATE_WEBHOK_PORT[\s\S]*cook[\s\S]*99999[\s\S]*loud/);
  });
  it('ignore what Kubernetes sets for Services of our name', () =>
    expect(
      problems([], {
        GPU_GATE_WEBHOOK_SERVICE_HOST: '10.0.0.1',
        GPU_GATE_WEBHOOK_PORT_443_TCP: 'tcp://10.0.0.1:443',
        GPU_GATE_WEBHOOK_PORT: 'tcp://10.0.0.1:443',
      }),
    ).toEqual([]));
  it('say when a value is missing', () =>
    expect(problems(['--namespace', '--roles', 'webhook'])).toEqual(['--namespace needs a value']));
  it('are all in the help', () => {
    for (const option of Object.values(OPTIONS)) expect(optionsHelp()).toContain(`--${option.flag}`);
    expect(variableOf('lease-duration')).toBe('GPU_GATE_LEASE_DURATION');
  });
});
