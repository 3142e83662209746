import { describe, expect, it } from 'vitest';
import { issueCa } from '../../certs/issue.ts';
import { explainError, jsonLog } from '../../platform/log.ts';

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
});
