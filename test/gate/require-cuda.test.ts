import { describe, expect, it } from 'vitest';
import {
  MAX_ALTERNATIVES,
  MAX_TEXT,
  MAX_TEXTS,
  meets,
  parseRequireCuda,
  requirementsOf,
  requireVariables,
} from '../../gate/require-cuda.ts';

describe('what the variables of a pod require', () => {
  it.each([
    ['cuda>=12.4,driver>=550 cuda>=11', [['cuda>=12.4', 'driver>=550'], ['cuda>=11']], []],
    ['cuda>=12.4,brand=tesla,arch!=arm64', [['cuda>=12.4']], []],
    ['brand=tesla', [[]], []],
    ['cuda>=v14', [], ['cuda>=v14']],
    ['cuda >= 14', [], ['cuda', '>=', '14']],
    ['driver>=600.1a,cuda>=12 cuda>=13', [['cuda>=13']], ['driver>=600.1a,cuda>=12']],
    ['cuda>=12, cuda>=13', [['cuda>=13']], ['cuda>=12,']],
    ['sm>=9', [], ['sm>=9']],
    ['  ', [], []],
  ])('NVIDIA_REQUIRE_CUDA %j: a space is OR, a comma AND, what cannot be read is reported', (text, judged, unread) => {
    const { requirement, unread: told } = parseRequireCuda(text);
    expect(requirement.map((limits) => limits.map(({ what, operator, version }) => what + operator + version))).toEqual(
      judged,
    );
    expect(told).toEqual(unread);
  });

  it.each([
    ['cuda>=13.1', true],
    ['cuda>13.1', false],
    ['cuda>13', true],
    ['cuda<=13.1', true],
    ['cuda<=13', false],
    ['cuda<13.2', true],
    ['cuda<13.1', false],
    ['cuda=13.1.0', true],
    ['cuda=13', false],
    ['cuda!=13.1', false],
    ['cuda!=13', true],
    ['driver>=590,driver<600', true],
    ['driver>=600', false],
    ['driver>=600 cuda>=13', true],
  ])('a node with driver 595.1 and CUDA 13.1 meets %s: %j', (text, met) =>
    expect(meets([parseRequireCuda(text).requirement], { driver: '595.1', cuda: '13.1' })).toBe(met),
  );
  it('a version that is not known meets everything, because the toolkit checks it again', () =>
    expect(meets([parseRequireCuda('cuda>=99,driver>=999').requirement], { driver: undefined, cuda: undefined })).toBe(
      true,
    ));

  const env = (...pairs: readonly (readonly [string, unknown])[]) => pairs.map(([name, value]) => ({ name, value }));
  it.each([
    ['no environment', undefined, []],
    ['an environment that is not a list', 'NVIDIA_REQUIRE_CUDA', []],
    ['entries that are not variables', [null, 7, {}, { name: 7 }], []],
    ['other variables', env(['CUDA', '1'], ['NVIDIA_VISIBLE_DEVICES', 'all']), []],
    ['every variable of that prefix', env(['NVIDIA_REQUIRE_CUDA', 'a'], ['NVIDIA_REQUIRE_DRIVER', 'b']), ['a', 'b']],
    [
      'none that is for Jetson boards',
      env(['NVIDIA_REQUIRE_JETPACK', 'x'], ['NVIDIA_REQUIRE_JETPACK_HOST_MOUNTS', 'y']),
      [],
    ],
    ['the last of several', env(['NVIDIA_REQUIRE_CUDA', 'a'], ['NVIDIA_REQUIRE_CUDA', 'b']), ['b']],
    [
      'nothing where the last has its value elsewhere',
      env(['NVIDIA_REQUIRE_CUDA', 'a'], ['NVIDIA_REQUIRE_CUDA', undefined]),
      [],
    ],
    ['blanks', env(['NVIDIA_REQUIRE_CUDA', '  ']), []],
    ['a text that is too long', env(['NVIDIA_REQUIRE_CUDA', 'x'.repeat(MAX_TEXT + 1)]), [undefined]],
    ['nothing where it is switched off', env(['NVIDIA_REQUIRE_CUDA', 'a'], ['NVIDIA_DISABLE_REQUIRE', 'True']), []],
    ['all where the switch is off', env(['NVIDIA_REQUIRE_CUDA', 'a'], ['NVIDIA_DISABLE_REQUIRE', 'no']), ['a']],
  ])('%s', (_, given, texts) => expect(requireVariables(given).map(({ text }) => text)).toEqual(texts));

  const variables = (...texts: readonly (string | undefined)[]) =>
    texts.map((text) => ({ name: 'NVIDIA_REQUIRE_CUDA', text }));
  it('each text counts once, whatever container has it', () =>
    expect(requirementsOf(variables('cuda>=12', 'cuda>=12', 'cuda>=13')).requirements).toHaveLength(2));
  it.each([
    ['too long a text', [undefined], /longer than 16384 characters/],
    ['too many alternatives', ['cuda>=9 '.repeat(MAX_ALTERNATIVES + 1)], /more than 256 alternatives/],
    [
      'too many texts',
      Array.from({ length: 9 }, (_, i) => `cuda>=${i} ${'x'.repeat(MAX_TEXTS / 8)}`),
      /more than 65536 characters/,
    ],
  ])('%s is not judged, and that is stated', (_, texts, because) => {
    const { requirements, unjudged } = requirementsOf(variables(...texts));
    expect(requirements.length).toBeLessThan(texts.length);
    expect(unjudged.some((one) => because.test(one.because))).toBe(true);
  });
  it('names twenty parts that are not judged, each cut', () => {
    const { unjudged } = requirementsOf(variables(...Array.from({ length: 100 }, (_, i) => `${i}${'x'.repeat(200)}`)));
    expect(unjudged).toHaveLength(20);
    expect(Math.max(...unjudged.map(({ because }) => because.length))).toBeLessThan(200);
  });
});
