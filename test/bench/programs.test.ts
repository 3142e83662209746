import { expect, it } from 'vitest';
import { imageFlags } from '../../bench/reports/programs.ts';
import { GATE_CONFIG } from '../../lab/real-node/images.ts';

it('servers are measured with the flags that the image gives Node.js', () => {
  expect(imageFlags()).not.toEqual([]);
  expect(GATE_CONFIG.Entrypoint).toEqual(['/usr/local/bin/node', ...imageFlags(), '/app/main.ts']);
});
