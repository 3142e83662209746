// A process that makes a machine of its own: what test/control-plane/platform/machine.test.ts
// interrupts. With a script, that script runs there; without, a real node with one pod.
import { join } from 'node:path';
import { runInMachine } from '../../lab/real-node/machine.ts';
import { runOnRealNode } from '../../lab/real-node/world.ts';

const script = process.argv[2];
process.exitCode =
  script === undefined
    ? await runOnRealNode([join(import.meta.dirname, 'bare-node.ts')], console.log)
    : await runInMachine('sh', ['-c', script]);
