// The client SDK as the commands use it: connected to a network, closed again whatever happens, with Ctrl-C as one way to end.

import { type Client, type ClientOptions, connect } from '../../client/index.ts';
import type { SecretKey } from '../../keys/keypair.ts';
import { addressOf, givenByConfig } from '../../protocol/epoch/address.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import { Complaint, EXIT } from './errors.ts';
import type { Network } from './network.ts';
import { fetchEpochs, longestOf } from './replica-http.ts';

export interface ClientUse {
  readonly network: Network;
  /** Without one the client can only read. */
  readonly key?: SecretKey;
  readonly options?: ClientOptions;
}

export async function openClient({ network, key, options }: ClientUse): Promise<Client> {
  const epochs = await latestEpochs(network);
  const { members } = epochs.last;
  return connect({
    genesis: network.genesis,
    epochs,
    replicas: members.flatMap(({ name, address }) => {
      const replica = network.replicas.find((each) => each.name === name);
      const given =
        replica?.isGiven === true ? { url: replica.url, said: address } : givenByConfig(epochs, name, replica?.url);
      // [EPO-25] In the first epoch the caller says whom to use.
      const url = addressOf(epochs.last.epoch > 0 ? address : undefined, given);
      return url === undefined ? [] : [{ name, url }];
    }),
    ...(key === undefined ? {} : { key }),
    ...(options === undefined ? {} : { options }),
  });
}

const askMs = 1_000;

export async function latestEpochs({
  genesis,
  epochs,
  replicas,
}: Pick<Network, 'genesis' | 'epochs' | 'replicas'>): Promise<EpochChain> {
  const answers = await Promise.all(
    replicas.map(({ http }) => (http === null ? null : fetchEpochs(http, genesis, askMs))),
  );
  return longestOf(epochs, answers);
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
