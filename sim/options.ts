// What a cluster is made of, and what it writes down of what its cores said.

import type { GenesisDocument } from '../protocol/genesis.ts';
import type { Protocol } from '../protocol/modes.ts';
import type { SimReplica } from './replica.ts';

export interface ClusterOptions {
  /** 4 to 128; 3 to 128 where members are trusted. Default: 4. */
  readonly n?: number;
  /** Nodes beyond the first n, which are no members and observe. Default: none. */
  readonly spare?: number;
  readonly seed?: number;
  /** Of the first epoch. Default: pbft. */
  readonly protocol?: Protocol;
  readonly parameters?: GenesisDocument['parameters'];
  /** Ed25519, and every message through its bytes. Default: stand-ins, and messages go by value. */
  readonly realSignatures?: boolean;
  /** Whether each member has an operator, who may end the epoch. Default: no. */
  readonly operators?: boolean;
  /** Whether `delivered`, `executedAt`, `events`, `refusals` and `evidence` are written down; they grow with time. Default: yes. */
  readonly history?: boolean;
  /** What each replica is; a planted bug is a class of its own. */
  readonly Replica?: typeof SimReplica;
}
