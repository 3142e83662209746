import { startRealCluster } from './world.ts';
import { spawn } from 'node:child_process';
const t = Date.now();
const say = (l: string) => console.log(`${((Date.now() - t) / 1000).toFixed(1)} ${l}`);
try {
  const c = await startRealCluster(say);
  say(`up: KUBECONFIG=${c.kubeconfig}`);
} catch (e) {
  console.log(e);
}
const keep = process.env['KEEP'] ?? '0';
await new Promise((r) => setTimeout(r, Number(keep) * 1000));
process.exit(0);
