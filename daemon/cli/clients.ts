// The client SDK as the commands use it: connected to a network, closed again whatever happens, with Ctrl-C as one way to end.

import { type Client, type ClientOptions, connect } from '../../client/index.ts';
import type { SecretKey } from '../../keys/keypair.ts';
import { Complaint, EXIT } from './errors.ts';
import type { Network } from './network.ts';

export interface ClientUse {
  readonly network: Network;
  /** Without one the client can only read. */
  readonly key?: SecretKey;
  readonly options?: ClientOptions;
}

export async function openClient({ network, key, options }: ClientUse): Promise<Client> {
  return connect({
    genesis: network.genesis,
    replicas: network.replicas.map(({ name, url }) => ({ name, url })),
    ...(key === undefined ? {} : { key }),
    ...(options === undefined ? {} : { options }),
  });
}

/** Runs `work` with a client; ends it with exit code 130 on Ctrl-C, after `onInterrupt`. */
export async function withClient<T>(use: ClientUse, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await openClient(use);
  let interrupt: (error: Complaint) => void = () => undefined;
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = reject;
  });
  const onSignal = () =>
    interrupt(new Complaint({ code: 'interrupted', sentence: 'interrupted', exit: EXIT.interrupted }));
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    return await Promise.race([work(client), interrupted]);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    await client.close();
  }
}

/** The value, or a complaint after so long. */
export async function within<T>(ms: number, promise: Promise<T>, late: () => Complaint): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), ms);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
