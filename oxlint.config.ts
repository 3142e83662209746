// Lint: every product file is pure unless its name says that it is a shell, and imports point one
// way, core ← gate ← components ← app ← main. `test/lint.test.ts` plants violations and sees them
// fail.
import { defineConfig } from 'oxlint';
import { anyOf, COMPONENTS, PURE_FOLDERS, SHELLS } from './scripts/pure-files.ts';

interface Pattern {
  readonly group?: string[];
  readonly regex?: string;
  readonly allowTypeImports?: boolean;
  readonly message: string;
}
const only = (name: string, message: string): Pattern => ({ group: [name], message });
const FORGE = only('node-forge', 'only certs/issue.ts builds certificates');
const JSON_PATCH = only('fast-json-patch', 'only tests apply patches');
const EXPRESS = only('express', 'only routes and platform serve HTTP');
const LAYERS: Pattern = {
  regex: `^(\\.\\./)+(${COMPONENTS.join('|')}|app|main)(/|\\.ts)`,
  message: 'components never import each other: what two need is a noun in core or gate',
};
const ROOMS = ['node', 'pods', 'policies', 'operands'] as const;
/** The reconciler's controllers stand side by side. */
const SIDE_BY_SIDE: Pattern = {
  regex: `^(\\.\\./)+(${ROOMS.join('|')})/`,
  message: "the reconciler's controllers never import each other: what two need stands above them",
};
/** What pure code may not import. node:crypto, node:path and node:util only compute. */
const PURE: readonly Pattern[] = [
  { regex: '/platform/', message: 'pure files import no platform' },
  { regex: '^node:([abd-oq-tv-z]|c[^r]|p[^a]|u[^t])', message: 'pure files do no I/O' },
  { group: ['@kubernetes/client-node'], allowTypeImports: true, message: 'types only in pure files' },
  only('prom-client', 'pure files do no I/O'),
];
type Rules = NonNullable<Parameters<typeof defineConfig>[0]['rules']>;
const imports = (...patterns: readonly Pattern[]): Rules => ({
  'no-restricted-imports': ['error', { patterns: [...patterns] }],
});
const banned = (object: string, property: string, message: string) => ({ object, property, message });
const PURE_RULES: Rules = {
  'no-restricted-properties': [
    'error',
    banned('Date', 'now', 'the clock is an argument of pure code'),
    banned('Math', 'random', 'chance is an argument of pure code'),
  ],
  'no-restricted-globals': ['error', 'process', 'fetch', 'setTimeout', 'setInterval'],
};
const IMPURE_RULES: Rules = { 'no-restricted-properties': 'off', 'no-restricted-globals': 'off' };

export default defineConfig({
  plugins: ['typescript', 'import', 'unicorn', 'oxc', 'promise', 'node', 'vitest'],
  options: { typeAware: true },
  categories: { correctness: 'error', suspicious: 'error' },
  ignorePatterns: ['node_modules', 'coverage'],
  rules: {
    'consistent-return': 'off',
    'no-shadow': 'off',
    'typescript/no-unnecessary-type-parameters': 'off',
    'no-await-in-loop': 'off',
    'import/no-named-as-default-member': 'off',
    'oxc/no-async-endpoint-handlers': 'off',
    'vitest/no-standalone-expect': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'no-underscore-dangle': 'off',
    'unicorn/no-array-sort': 'off',
    'import/no-cycle': 'error',
    'import/no-default-export': 'error',
    'typescript/switch-exhaustiveness-check': 'error',
    'typescript/no-floating-promises': 'error',
    'typescript/consistent-type-imports': 'error',
    'typescript/no-unsafe-type-assertion': 'off',
    'node/no-process-env': 'error',
    'vitest/expect-expect': 'off',
    'vitest/valid-expect': ['error', { maxArgs: 2 }],
    'vitest/require-to-throw-message': 'off',
    'vitest/no-conditional-expect': 'off',
    'vitest/valid-title': 'off',
  },
  overrides: [
    { files: ['*.config.ts'], rules: { 'import/no-default-export': 'off' } },
    {
      files: ['main.ts', 'app/kubectl-gpu_gate.ts', 'app/kubectl-complete.ts', '{test,lab,scripts,bench}/**'],
      rules: { 'node/no-process-env': 'off' },
    },
    {
      files: ['{test,lab}/**'],
      rules: { 'no-restricted-properties': ['error', banned('vi', 'mock', 'no module mocks')] },
    },
    {
      files: ['test/**/*.test.ts'],
      rules: {
        'no-restricted-properties': [
          'error',
          banned('vi', 'mock', 'no module mocks'),
          banned('performance', 'now', 'no test measures how long anything takes: figures belong to npm run bench'),
          banned('process', 'hrtime', 'no test measures how long anything takes: figures belong to npm run bench'),
        ],
      },
    },
    {
      files: [`${anyOf(PURE_FOLDERS)}/**/*.ts`],
      rules: { ...PURE_RULES, ...imports(LAYERS, FORGE, JSON_PATCH, EXPRESS, ...PURE) },
    },
    {
      files: ['core/**/*.ts'],
      rules: imports(
        { regex: '^\\.\\./', message: 'core imports nothing but core' },
        FORGE,
        JSON_PATCH,
        EXPRESS,
        ...PURE,
      ),
    },
    {
      files: ['gate/**/*.ts'],
      rules: imports(
        { regex: '^\\.\\./([^c]|c[^o])', message: 'gate imports nothing but core' },
        FORGE,
        JSON_PATCH,
        EXPRESS,
        ...PURE,
      ),
    },
    { files: ['webhook/patch.ts'], rules: imports(LAYERS, FORGE, EXPRESS, ...PURE) },
    {
      files: [`${anyOf(COMPONENTS)}/**/${anyOf(SHELLS)}.ts`],
      rules: { ...IMPURE_RULES, ...imports(LAYERS, FORGE, JSON_PATCH, EXPRESS) },
    },
    {
      files: [`reconciler/${anyOf(ROOMS)}/**/*.ts`],
      rules: imports(LAYERS, SIDE_BY_SIDE, FORGE, JSON_PATCH, EXPRESS, ...PURE),
    },
    {
      files: [`reconciler/${anyOf(ROOMS)}/**/${anyOf(SHELLS)}.ts`],
      rules: imports(LAYERS, SIDE_BY_SIDE, FORGE, JSON_PATCH, EXPRESS),
    },
    {
      files: ['{webhook,extender,certs}/{routes,canary}.ts'],
      rules: imports(LAYERS, FORGE, JSON_PATCH),
    },
    { files: ['certs/issue.ts'], rules: imports(LAYERS, JSON_PATCH, EXPRESS, ...PURE) },
    {
      files: ['platform/**/*.ts'],
      rules: imports({ regex: '^\\.\\./', message: 'platform knows nothing of the product' }, FORGE, JSON_PATCH),
    },
  ],
});
