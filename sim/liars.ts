// Replicas whose key is in the wrong hands. A liar is an honest core with one rule overridden from outside: what its core hears, what leaves
// in its name, or what its clock shows. It has its own key and nobody else's. The same lies are told in the simulator and around the
// real daemon (test/real-adversaries.test.ts); f liars in one hand, who see everything, are in conspiracy.ts.

import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import { blockHash, encodeHeader } from '../protocol/block.ts';
import { encodePayload } from '../protocol/codec.ts';
import type { Core, Input } from '../protocol/core.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type {
  CertifiedBlock,
  NewView,
  ReplicaMessage,
  ReplicaPledge,
  Signed,
  ViewChange,
} from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { ReplicaId } from '../protocol/types.ts';
import { asHash, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import type { Cluster } from './cluster.ts';
import { nudged } from './mutants.ts';
import { Rivals } from './rivals.ts';

/** What a liar may do beside what its core does. */
export interface LiarWorld {
  readonly self: ReplicaId;
  readonly n: number;
  readonly genesis: Genesis;
  /** To its own proposals. */
  readonly rivals: Rivals;
  /** In its own name, signed. */
  say(to: ReplicaId, message: ReplicaMessage): void;
  after(ms: number, run: () => void): void;
  /** From 0 up to, and without, 1. */
  random(): number;
}

type Heard = Input<ReplicaMessage, ReplicaPledge>;

export interface Liar {
  /** What leaves instead of what its core says; null: nothing. Default: what it says. */
  says?(to: ReplicaId, message: ReplicaMessage): ReplicaMessage | null;
  /** What its core hears instead of an input; null: nothing. */
  hears?(input: Heard): Heard | null;
  /** How far its clock is off, in milliseconds. */
  readonly clockOffMs?: number;
}

export type Lie = (world: LiarWorld) => Liar;

/** Of old messages, per kind. */
const REMEMBERED_MAX = 64;

// ---- what is forged ---------------------------------------------------------------------------------------------------

/** The same block a millisecond later: another one, and no sound one, for its log root is of the block as it was (rivals.ts has sound ones). */
export function spoilt(block: Block): Block {
  const header = { ...block.header, time: asMillis(block.header.time + 1) };
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(native.sha256, headerBytes), bundles: block.bundles };
}

const altered = (signed: Signed<ViewChange>, change: Partial<ViewChange>): Signed<ViewChange> => {
  const message = { ...signed.message, ...change };
  return { ...signed, message, payload: encodePayload(message) };
};

/** [PBFT-NV-1] [PBFT-NV-2] What a faulty primary may make of the requests for its view, and the code by which everybody refuses it. */
export const NEW_VIEW_FORGERIES: readonly {
  readonly name: string;
  readonly refused: string;
  forge(message: NewView): NewView;
}[] = [
  {
    name: 'leaves one out',
    refused: 'new-view-below-quorum',
    forge: (m) => ({ ...m, viewChanges: m.viewChanges.slice(1) }),
  },
  {
    name: 'shows one twice',
    refused: 'view-change-twice',
    forge: (m) => ({ ...m, viewChanges: [m.viewChanges[0]!, ...m.viewChanges.slice(0, -1)] }),
  },
  {
    name: 'hides what was prepared',
    refused: 'view-change-signature',
    forge: (m) => ({ ...m, viewChanges: m.viewChanges.map((vc) => altered(vc, { prepared: null, commit: null })) }),
  },
  {
    name: 'speaks for another',
    refused: 'view-change-signature',
    forge: (m) => ({
      ...m,
      viewChanges: m.viewChanges.map((vc, i, all) => ({ ...vc, sender: all[(i + 1) % all.length]!.sender })),
    }),
  },
  {
    name: 'takes them from another view',
    refused: 'view-change-place',
    forge: (m) => ({ ...m, viewChanges: m.viewChanges.map((vc) => altered(vc, { view: asView(m.view + 1) })) }),
  },
];

/** Under a certificate that is not its own. */
export const forged = (entry: CertifiedBlock): CertifiedBlock => ({ ...entry, block: spoilt(entry.block) });

// ---- the lies ---------------------------------------------------------------------------------------------------------

/** One block to the lower half, another one to the upper, and its votes to match (A1). */
const equivocates: Lie = ({ self, n, rivals }) => ({
  says(to, message) {
    if (to < n / 2) return message;
    if (message.kind === 'pre-prepare') return { ...message, block: rivals.of(message.block, self) ?? message.block };
    if (message.kind !== 'prepare' && message.kind !== 'commit') return message;
    return { ...message, hash: rivals.find(message.hash)?.hash ?? message.hash };
  },
});

/** Both blocks to everybody, one after the other. */
const contradicts: Lie = ({ self, rivals, say, after }) => ({
  says(to, message) {
    if (message.kind !== 'pre-prepare') return message;
    const rival = rivals.of(message.block, self);
    if (rival !== null) after(5, () => say(to, { ...message, block: rival }));
    return message;
  },
});

const silent: Lie = () => ({ says: () => null });

/** Its proposals are kept from the f with the highest numbers (A6). */
const selective: Lie = ({ n }) => {
  const { f } = byzantineQuorums(n);
  return { says: (to, message) => (message.kind === 'pre-prepare' && to >= n - f ? null : message) };
};

/** Whenever it may open a view, with one forgery after the other; and about what it holds it says that it holds nothing (A8). */
const forgesNewViews: Lie = () => {
  let turn = 0;
  return {
    says(_, message) {
      if (message.kind === 'view-change') return { ...message, commit: null, prepared: null };
      if (message.kind !== 'new-view') return message;
      turn += 1;
      return NEW_VIEW_FORGERIES[turn % NEW_VIEW_FORGERIES.length]!.forge(message);
    },
  };
};

/** Another state at every checkpoint (A17). */
const wrongCheckpoints: Lie = ({ self }) => ({
  says: (_, message) =>
    message.kind === 'checkpoint' ? { ...message, stateDigest: asHash(new Uint8Array(32).fill(self + 1)) } : message,
});

const TRANSFER_KINDS: readonly string[] = ['blocks', 'block-data', 'checkpoint-proof', 'state-chunk'];

/** To those who are behind: forged blocks, blocks without proof, and state that is none (A16). */
const liesInTransfer: Lie = ({ random, self }) => ({
  says(_, message) {
    switch (message.kind) {
      case 'blocks':
        return random() < 0.5
          ? { ...message, blocks: message.blocks.map(forged) }
          : { ...message, blocks: message.blocks.map(({ block }) => ({ block, certificate: null })), tail: null };
      case 'block-data':
        return { ...message, block: spoilt(message.block) };
      case 'state-chunk':
        return { ...message, bytes: new Uint8Array(72).fill(self) };
      default:
        return message;
    }
  },
});

const withholdsTransfer: Lie = () => ({
  says: (_, message) => (TRANSFER_KINDS.includes(message.kind) ? null : message),
});

/** Never hears of the client whose bundle it heard of first (A5). */
const censors: Lie = () => {
  let victim: Uint8Array | null = null;
  const isLeftOut = ({ client }: { readonly client: Uint8Array }) => {
    victim ??= client;
    return equalBytes(victim, client);
  };
  return {
    hears(input) {
      if (input.type === 'bundle') return isLeftOut(input.bundle) ? null : input;
      if (input.type !== 'message' || input.signed.message.kind !== 'forward') return input;
      const { message } = input.signed;
      const bundles = message.bundles.filter((bundle) => !isLeftOut(bundle));
      // Its own core's: nobody else hears it.
      return { ...input, signed: asVerified({ ...input.signed, message: { ...message, bundles } }) };
    },
  };
};

const HOUR_MS = 3_600_000;

/** Single fields off by a little, and older values again, of every kind of message. */
const mutates: Lie = ({ genesis, random, say }) => {
  const older = new Map<string, ReplicaMessage[]>();
  return {
    says(to, message) {
      const before = older.get(message.kind) ?? [];
      older.set(message.kind, [...before.slice(1 - REMEMBERED_MAX), message]);
      const roll = random();
      const old = before[Math.floor(random() * before.length)];
      if (roll < 0.1 && old !== undefined) return old;
      if (roll < 0.2) say(to, nudged(message, genesis, random));
      return roll < 0.5 ? nudged(message, genesis, random) : message;
    },
  };
};

export const LIES = {
  equivocates,
  contradicts,
  silent,
  selective,
  'forges-new-views': forgesNewViews,
  'wrong-checkpoints': wrongCheckpoints,
  'lies-in-transfer': liesInTransfer,
  'withholds-transfer': withholdsTransfer,
  censors,
  /** A18. */
  'clock-ahead': (): Liar => ({ clockOffMs: HOUR_MS }),
  mutates,
} as const satisfies Record<string, Lie>;

export type LieName = keyof typeof LIES;

// ---- telling them -----------------------------------------------------------------------------------------------------

/** A liar, and what is put around its core and in front of its mouth. */
export class LyingReplica {
  readonly #liar: Liar;
  readonly #rivals: Rivals;
  readonly #decided = new Map<number, string>();

  constructor(lie: Lie, world: Omit<LiarWorld, 'rivals'>) {
    this.#rivals = new Rivals(world.genesis);
    this.#liar = lie({ ...world, rivals: this.#rivals });
  }

  /** Its ears and its clock, around a core, in place. */
  deceive(core: Core<ReplicaMessage, ReplicaPledge>): void {
    const { hears, clockOffMs = 0 } = this.#liar;
    const step = core.step.bind(core);
    core.step = (inputs, now) => {
      for (const input of inputs)
        if (input.type === 'message' && input.signed.message.kind === 'pre-prepare')
          this.#rivals.know(input.signed.message.block);
      const heard = hears === undefined ? inputs : inputs.flatMap((input) => hears(input) ?? []);
      const ready = step(heard, asMillis(now + clockOffMs));
      for (const { block } of ready.deliver) {
        this.#rivals.know(block);
        this.#decided.set(block.header.height, toHex(block.hash));
      }
      return { ...ready, wakeAt: asMillis(ready.wakeAt - clockOffMs) };
    };
  }

  /** What leaves for this peer instead; null: nothing. */
  says(to: ReplicaId, message: ReplicaMessage): ReplicaMessage | null {
    if (this.#liar.says === undefined) return message;
    if (message.kind === 'pre-prepare') {
      this.#rivals.know(message.block);
      this.#rivals.follow(this.#decided);
    }
    return this.#liar.says(to, message);
  }
}

/** From now on, and until its process ends, this replica of the cluster lies. Several may, each for itself. */
export function lieIn(cluster: Cluster, id: number, lie: Lie): void {
  const liar = new LyingReplica(lie, {
    self: asReplicaId(id),
    n: cluster.nodes.length,
    genesis: cluster.genesis,
    say: (to, message) => cluster.inject(id, to, message),
    after: (ms, run) => cluster.after(ms, run),
    random: cluster.random,
  });
  const { core } = cluster.nodes[id]!;
  if (core !== null) liar.deceive(core);
  const { tamper } = cluster;
  cluster.tamper = (from, to, message) => {
    const said = tamper === null ? message : tamper(from, to, message);
    return from === id && said !== null ? liar.says(to, said) : said;
  };
}
