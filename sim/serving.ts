// What nodes that are up give to one that follows, whoever is in its reach: blocks, a certified checkpoint, and how far the epochs have come. Each proves
// itself, so members and observers serve alike.

import type { Genesis } from '../protocol/genesis.ts';
import { Answers } from './answers.ts';
import type { KnownEpochs } from './epochs.ts';
import type { Network } from './network.ts';
import type { SimReplica } from './replica.ts';
import type { Surroundings } from './surroundings.ts';

export interface ServingWorld {
  readonly nodes: () => readonly SimReplica[];
  readonly network: Network;
  readonly epochs: KnownEpochs;
  readonly genesis: Genesis;
}

export function servingOf(world: ServingWorld): Pick<Surroundings, 'blocksFor' | 'checkpointFor' | 'latestEpochFor'> {
  const { network, epochs, genesis } = world;
  const inReach = ({ id }: SimReplica) =>
    world.nodes().filter((node) => node.isUp && node.id !== id && !network.isCut(node.id, id));
  return {
    blocksFor: (replica, from) => {
      for (const { disk } of inReach(replica)) {
        if (!disk.decided.has(from)) continue;
        const blocks = epochs.certified(new Answers(disk, genesis.parameters), from);
        if (blocks.length > 0) return blocks;
      }
      return [];
    },
    checkpointFor: (replica, above) => {
      for (const { disk } of inReach(replica)) {
        if (disk.stable <= above) continue;
        const state = epochs.certifiedState(new Answers(disk, genesis.parameters));
        if (state !== null) return state;
      }
      return null;
    },
    // [EPO-18] As links from anybody prove.
    latestEpochFor: (replica) => Math.max(replica.epoch.epoch, ...inReach(replica).map(({ epoch }) => epoch.epoch)),
  };
}
