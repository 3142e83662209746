import { describe, expect, it } from 'vitest';
import { EXPLAIN_USAGE, parseExplainArgs, type ExplainArgs } from '../../explain/args.ts';

const parsed = (args: readonly string[], env: Record<string, string> = {}): Partial<ExplainArgs> => {
  const found = parseExplainArgs(args, env);
  if (!found.ok) throw new Error(found.because);
  return found.args;
};

describe('the arguments of explain', () => {
  it.each<[string, readonly string[], Record<string, string>, Partial<ExplainArgs>]>([
    ['leaves the namespace to the context', ['p'], {}, { pod: 'p', namespace: undefined, output: 'text' }],
    ['takes a namespace', ['p', '-n', 'team'], {}, { namespace: 'team' }],
    ['takes the kubeconfig at home', ['p'], { HOME: '/h' }, { kubeconfigs: ['/h/.kube/config'] }],
    ['an empty KUBECONFIG is none', ['p'], { HOME: '/h', KUBECONFIG: '' }, { kubeconfigs: ['/h/.kube/config'] }],
    ['takes each path of KUBECONFIG once', ['p'], { KUBECONFIG: '/a::/b:/a' }, { kubeconfigs: ['/a', '/b'] }],
    ['takes --kubeconfig as one path', ['p', '--kubeconfig', '/a:b'], { KUBECONFIG: '/c' }, { kubeconfigs: ['/a:b'] }],
    ['excludes kube-system', ['p'], {}, { excludedNamespaces: ['kube-system'] }],
    [
      'excludes the namespaces that gpu-gate excludes',
      ['p', '--excluded-namespaces', 'a, b,'],
      {},
      { excludedNamespaces: ['a', 'b'] },
    ],
    [
      "takes gpu-gate's namespaces",
      ['p', '--own-namespace', 'x', '--operand-namespace', 'y'],
      {},
      { ownNamespace: 'x', operandNamespace: 'y' },
    ],
  ])('%s', (_, args, env, expected) => expect(parsed(args, env)).toMatchObject(expected));

  it.each([
    ['no pod', []],
    ['two pods', ['a', 'b']],
    ['another output', ['p', '-o', 'yaml']],
    ['an option that does not exist', ['p', '--verbose']],
  ])('says what is wrong with %s', (_, args) => expect(() => parsed(args)).toThrow(/write: explain POD|--verbose/));

  it('lists every option', () => {
    for (const flag of [
      'namespace',
      'output',
      'kubeconfig',
      'own-namespace',
      'operand-namespace',
      'excluded-namespaces',
    ])
      expect(EXPLAIN_USAGE).toContain(`--${flag}`);
  });
});
