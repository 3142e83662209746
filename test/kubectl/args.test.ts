import { describe, expect, it } from 'vitest';
import { COMMANDS, parseCommand, usage } from '../../kubectl/args.ts';
import { completion } from '../../kubectl/completion.ts';

const env = { HOME: '/home/ada' };
const command = (...args: string[]) => {
  const parsed = parseCommand(args, env);
  if (!parsed.ok || 'help' in parsed) throw new Error(JSON.stringify(parsed));
  return parsed.command;
};
const refusal = (...args: string[]): string => {
  const parsed = parseCommand(args, env);
  if (parsed.ok) throw new Error('it was accepted');
  return parsed.because;
};

describe('help', () => {
  it.each([
    ['nothing', [], 'Commands:'],
    ['help', ['help'], 'Commands:'],
    ['help of a command', ['help', 'wait'], 'kubectl gpu-gate wait '],
    ['--help', ['--help'], 'Commands:'],
    ['-h', ['-h'], 'Commands:'],
    ['--help of a command', ['hold', '--help'], 'kubectl gpu-gate hold '],
  ])('comes for %s', (_, args, text) => {
    const parsed = parseCommand(args, env);
    expect(parsed.ok && 'help' in parsed ? parsed.help : '').toContain(text);
  });
});

describe('the command line of kubectl gpu-gate', () => {
  it.each([
    ['status', ['status'], { kind: 'status', watch: false, output: 'text', namespace: undefined }],
    ['status that follows', ['status', '-w'], { kind: 'status', watch: true }],
    ['nodes as JSON', ['nodes', '-o', 'json'], { kind: 'nodes', output: 'json' }],
    ['one node', ['node', 'gpu-1', '--context', 'prod'], { kind: 'node', node: 'gpu-1', context: 'prod' }],
    [
      'explain',
      ['explain', 'train', '-n', 'team'],
      { kind: 'explain', pod: 'train', namespace: 'team', file: undefined },
    ],
    [
      'explain a manifest',
      ['explain', '-f', 'pod.yaml', '--why-not', 'gpu-1'],
      { kind: 'explain', file: 'pod.yaml', whyNot: 'gpu-1' },
    ],
    [
      'wait',
      ['wait', 'a', 'b', '--timeout', '90s'],
      { kind: 'wait', nodes: ['a', 'b'], timeoutMs: 90_000, all: false },
    ],
    [
      'wait for all',
      ['wait', '--all', '--timeout', '1h'],
      { kind: 'wait', nodes: [], timeoutMs: 3_600_000, all: true },
    ],
    [
      'hold with a reason',
      ['hold', 'a', '--reason', 'swap fans'],
      { kind: 'mark', what: 'hold', reason: 'swap fans', dryRun: undefined },
    ],
    ['release', ['release', 'a', '--yes'], { kind: 'mark', what: 'release', dryRun: false }],
    ['retry, dry', ['retry', '--all', '--dry-run'], { kind: 'mark', what: 'retry', dryRun: true, all: true }],
    ['prove', ['prove', 'a'], { kind: 'mark', what: 'prove', level: 'full' }],
    ['prove the driver', ['prove', 'a', '--level', 'driver'], { what: 'prove', level: 'driver' }],
    ['completion', ['completion', 'zsh'], { kind: 'completion', shell: 'zsh' }],
  ])('reads %s', (_, args, expected) => expect(command(...args)).toMatchObject(expected));

  it.each([
    ['an unknown command', ['stauts'], 'there is no command "stauts": write one of status, nodes'],
    ['an unknown flag', ['nodes', '--wide'], 'see kubectl gpu-gate nodes --help'],
    [
      'an unknown output',
      ['nodes', '-o', 'xml'],
      '--output xml is not known: write one of text, wide, json, yaml, name',
    ],
    ['an unknown colour', ['nodes', '--color', 'pink'], '--color pink is not known: write auto, never or always'],
    ['an argument of status', ['status', 'gpu-1'], 'status takes no argument'],
    ['no node', ['node'], 'name one node: kubectl gpu-gate node NAME'],
    ['two nodes', ['node', 'a', 'b'], 'name one node'],
    ['no pod', ['explain'], 'name one pod, or a manifest'],
    ['a pod and a manifest', ['explain', 'train', '-f', 'pod.yaml'], 'name one pod, or a manifest'],
    [
      'a bad time',
      ['wait', 'a', '--timeout', 'soon'],
      '--timeout soon is not a duration: write one such as 90s, 30m or 1h',
    ],
    ['no node to wait for', ['wait'], 'name nodes, or give --all'],
    ['names and all', ['hold', 'a', '--all'], 'name nodes, or give --all'],
    [
      'a write that is none',
      ['retry', 'a', '--yes', '--dry-run'],
      '--yes and --dry-run contradict each other: give one',
    ],
    ['an unknown level', ['prove', 'a', '--level', '3'], '--level 3 is not known: write driver or full'],
    ['an unknown shell', ['completion', 'tcsh'], 'name a shell: kubectl gpu-gate completion bash, zsh or fish'],
  ])('refuses %s, and says what to write', (_, args, sentence) => expect(refusal(...args)).toContain(sentence));

  it('takes kubeconfigs as kubectl does', () => {
    expect(command('status').kubeconfigs).toEqual(['/home/ada/.kube/config']);
    expect(command('status', '--kubeconfig', '/x').kubeconfigs).toEqual(['/x']);
    const parsed = parseCommand(['status'], { KUBECONFIG: '/a:/b::/a' });
    expect(parsed.ok && 'command' in parsed && parsed.command.kubeconfigs).toEqual(['/a', '/b']);
  });

  it('prints no colour if NO_COLOR is set, unless asked', () => {
    const colour = (...args: string[]) => {
      const parsed = parseCommand(args, { NO_COLOR: '1' });
      return parsed.ok && 'command' in parsed && parsed.command.colour;
    };
    expect(colour('status')).toBe('never');
    expect(colour('status', '--color', 'always')).toBe('always');
  });

  it('explains every command and every flag of it', () => {
    for (const { name, help, flags } of COMMANDS) {
      expect(usage()).toContain(help);
      for (const flag of flags) expect(usage(name)).toContain(`--${flag.name}`);
      expect(parseCommand([name, '--help'], env)).toEqual({ ok: true, help: usage(name) });
    }
  });
});

describe('completion', () => {
  it.each(['bash', 'zsh', 'fish'] as const)('of %s knows every command and flag', (shell) => {
    const script = completion(shell);
    for (const { name, flags } of COMMANDS) {
      expect(script).toContain(name);
      for (const flag of flags) expect(script).toMatch(new RegExp(`(--|-l )${flag.name}`));
    }
  });
});
