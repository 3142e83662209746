import { describe, expect, it } from 'vitest';
import { issueCa } from '../../certs/issue.ts';
import { printable } from '../../core/printable.ts';
import { errorPlace, explainError, jsonLog } from '../../platform/log.ts';

const lines = (level: 'debug' | 'info' | 'error', use: (log: ReturnType<typeof jsonLog>) => void): string[] => {
  const written: string[] = [];
  use(jsonLog(level, (line) => written.push(line)));
  return written;
};

describe('the log', () => {
  it('writes one JSON object a line, with the causes of errors', () => {
    const [line = ''] = lines('info', (log) =>
      log.with({ node: 'a' }).error('it failed', { error: new Error('outer', { cause: new Error('inner') }) }),
    );
    expect(JSON.parse(line)).toMatchObject({ level: 'error', msg: 'it failed', node: 'a', error: 'outer: inner' });
  });
  it('leaves out what is below its level', () => expect(lines('info', (log) => log.debug('x'))).toEqual([]));
  it('stays one JSON object a line where a key is cut short', () => {
    const [line = ''] = lines('info', (log) => log.info('x', { text: '-----BEGIN PRIVATE KEY-----\nMII', node: 'a' }));
    expect(JSON.parse(line)).toMatchObject({ text: '[redacted]', node: 'a' });
  });
  it('says each reason where a name has several addresses', () =>
    expect(
      explainError(
        new Error('not reached', {
          cause: new AggregateError([new Error('refused ::1'), new Error('refused 1.2.3.4')]),
        }),
      ),
    ).toBe('not reached: refused ::1, refused 1.2.3.4'));
  it('never shows a private key or a token', async () => {
    const { key } = await issueCa('ca', 60_000, Date.now());
    const inSecret = Buffer.from(key).toString('base64');
    const text = lines('debug', (log) =>
      log.info('x', {
        key,
        secret: { data: { 'tls.key': inSecret } },
        error: new Error(`sent Bearer abc.def-ghi and ${key}`),
        token: 'eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2ln',
      }),
    ).join('');
    expect(text).toContain('[redacted]');
    for (const secret of [key.split('\n')[2] ?? '', inSecret.slice(40, 100), 'abc.def-ghi', 'eyJhbGci'])
      expect(text).not.toContain(secret);
  });
  it('cuts every text, and a line of many texts', () => {
    const megabyte = 'x'.repeat(1_000_000);
    const [text = '', error = '', many = ''] = lines('info', (log) => {
      log.info('x', { text: megabyte });
      log.info('x', { error: new Error(megabyte, { cause: new Error(megabyte) }) });
      log.info('x', { texts: Array.from({ length: 1000 }, () => megabyte.slice(0, 1000)), node: 'a' });
    });
    for (const line of [text, error, many]) {
      expect(line.length).toBeLessThan(3000);
      expect(JSON.parse(line)).toMatchObject({ level: 'info', msg: 'x' });
    }
  });
  it('makes every text printable', () => {
    const written: string[] = [];
    const log = jsonLog('info', (line) => written.push(line), {}, printable).with({ node: 'a\u202eb' });
    log.info('x', { error: new Error('red\u001b[31m\nline\u2028end') });
    expect(JSON.parse(written.join(''))).toMatchObject({
      node: String.raw`a\u202eb`,
      error: String.raw`red\u001b[31m line end`,
    });
    expect(written.join('')).not.toMatch(/[\u202e\u2028]/);
  });
  it('a secret that is longer than what is shown does not escape', async () => {
    const { key } = await issueCa('ca', 60_000, Date.now());
    const token = `eyJ${'a'.repeat(50)}.${'b'.repeat(6000)}.${'c'.repeat(50)}`;
    const text = lines('info', (log) =>
      log.info('x', { a: `${' '.repeat(2000)}${token}`, b: `${' '.repeat(2000)}${key}` }),
    );
    expect(text.join('')).not.toMatch(/aaaa|bbbb|MI[\w+]{8}/);
  });
  it.each([
    ['eyJ', 'eyJ', true],
    ['a header of a token', 'eyJaaaaaaaaaa.', true],
    ['the beginning of PEM', '-----BEGIN ', false],
    ['a key and no end', '-----BEGIN PRIVATE KEY-----', true],
    ['ends without a begin', '-----END AAAAAAAA ', false],
    ['Bearer', 'Bearer ', true],
    ['base64 of a key', 'LS0tLS1CRUdJTi', true],
  ])('%s a hundred thousand times: one short line', (_, what, isSecret) => {
    const [line = ''] = lines('info', (log) => log.info('x', { a: what.repeat(100_000) }));
    expect(line.length).toBeLessThan(3000);
    expect(line.includes('[redacted]')).toBe(isSecret);
  });
});

describe('the place of an error', () => {
  it('names what was thrown and where, and nothing of its message', () => {
    const hunted = (): string => {
      try {
        JSON.parse('{"password":"hunter2"');
      } catch (error) {
        return errorPlace(error);
      }
      return '';
    };
    expect(hunted()).toMatch(/^SyntaxError at JSON\.parse/);
    const forged = new TypeError('hunter2\n    at hunter2 (x.ts:1:1)\n    at hunter2 (x.ts:1:1)');
    expect(errorPlace(forged)).toMatch(/^TypeError at .*log\.test\.ts/);
    const renamed = Object.assign(new Error('a'), { stack: 'Error: hunter2\n    at hunter2' });
    expect(errorPlace(renamed)).toBe('Error');
  });
  it('has the code, and knows what is not an error', () => {
    expect(errorPlace(Object.assign(new Error('x'), { code: 'ECONNRESET' }))).toMatch(/^Error ECONNRESET at /);
    expect(errorPlace('hunter2')).toBe('a thrown string');
  });
});
