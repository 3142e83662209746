// A process that runs a command in a machine of its own: what test/control-plane/machine.test.ts interrupts.
import { runInMachine } from '../real-node/machine.ts';

process.exitCode = await runInMachine('sh', ['-c', process.argv[2] ?? 'true']);
