import { expect, it } from 'vitest';
import { certificatesIn } from '../../core/pem.ts';

const pem = (text: string): string => `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----`;

it.each([
  ['nothing', '', []],
  ['two with text around them', `first\n${pem('a')}\nsecond\n${pem('b')}\n`, [pem('a'), pem('b')]],
  ['one that was cut short', `${pem('a')}\n-----BEGIN CERTIFICATE-----\nb`, [pem('a')]],
  ['a beginning without an end before another', `-----BEGIN CERTIFICATE-----\na\n${pem('b')}`, [pem('b')]],
  ['an end without a beginning', `a\n-----END CERTIFICATE-----\n${pem('b')}`, [pem('b')]],
  ['a key', '-----BEGIN PRIVATE KEY-----\na\n-----END PRIVATE KEY-----', []],
])('finds %s', (_, bundle, found) => expect(certificatesIn(bundle)).toEqual(found));
