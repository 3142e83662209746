// A TCP proxy whose connections a test can cut, as a network would.
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

export interface TcpProxy {
  readonly port: number;
  /** Cuts every connection that is open now. */
  cut(): void;
  /** From now on what the target sends arrives so much later, ms. */
  delay(ms: number): void;
  close(): Promise<void>;
}

interface Target {
  readonly host: string;
  readonly port: number;
}

/** `target`: a port of loopback or another place, or whichever it is when a connection comes. */
export async function tcpProxy(target: number | (() => number | Target)): Promise<TcpProxy> {
  const open = new Set<Socket>();
  let lag = 0;
  const server = createServer((inbound) => {
    const to = typeof target === 'number' ? target : target();
    const outbound = typeof to === 'number' ? connect(to, '127.0.0.1') : connect(to.port, to.host);
    for (const [a, b] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      open.add(a);
      a.on('close', () => {
        open.delete(a);
        b.destroy();
      });
      a.on('error', () => b.destroy());
    }
    inbound.pipe(outbound);
    outbound.on('data', (chunk: Buffer) => {
      const write = (): void => void inbound.write(chunk);
      // Timers of one length fire in order.
      if (lag === 0) write();
      else setTimeout(write, lag);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = (): void => {
    for (const socket of open) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    delay: (ms) => void (lag = ms),
    close: () =>
      new Promise((resolve) => {
        cut();
        server.close(() => resolve());
      }),
  };
}
