// A second core beside each of a simulated cluster, made from a snapshot of the first at moments that the seed draws, and fed with what the flight
// recorder would have written down of its inputs. Whatever a snapshot forgets, the twin does something else sooner or later.

import { concat, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { WireContext } from '../protocol/codec.ts';
import type { Input } from '../protocol/core.ts';
import type { Recovery, ReplicaCore } from '../protocol/cores.ts';
import { restoreCore } from '../protocol/cores.ts';
import { genesisOf } from '../protocol/epoch/document.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import { decodeStep, digestOf, encodeStep } from '../protocol/recording.ts';
import { decodeSnapshot, encodeSnapshot } from '../protocol/snapshot.ts';
import { CheckFailure } from '../sim/checks.ts';
import { Dice } from '../sim/random.ts';
import { SimReplica } from '../sim/replica.ts';

/** What a run of twins has seen. */
export interface TwinTally {
  snapshots: number;
  steps: number;
  largest: number;
  /** By what they are: input types, and the kinds of messages. */
  readonly inputs: Map<string, number>;
  /** Fields of the state, by path, that were something else in one snapshot than in another. */
  readonly moved: Set<string>;
  /** What each was when it was first seen. */
  readonly first: Map<string, string>;
}

const differs = (what: string): never => {
  throw new CheckFailure('no-invariant-breaks', `a core restored from its snapshot goes another way: ${what}`, null);
};

export const newTally = (): TwinTally => ({
  snapshots: 0,
  steps: 0,
  largest: 0,
  inputs: new Map(),
  moved: new Set(),
  first: new Map(),
});

/** Replicas whose twins are made anew about every `every` steps. */
export function twinned(tally: TwinTally, { seed, every }: { readonly seed: number; readonly every: number }) {
  const dice = new Dice(seed);
  return class Twinned extends SimReplica {
    protected override makeCore(recovery: Recovery): ReplicaCore {
      const core = super.makeCore(recovery);
      const { epoch: document } = this;
      const genesis = genesisOf(this.world.genesis, document);
      // Only a member has a core.
      const options = { genesis, epoch: document.epoch, document, self: this.member!, sha256: native.sha256 };
      const context = { sha256: native.sha256, parameters: genesis.parameters };
      const restored = (): ReplicaCore => {
        const snapshot = core.snapshot();
        const made = restoreCore(options, snapshot);
        if ('refused' in made) return differs(`${made.refused}: ${made.problem}`);
        if (!equalBytes(made.snapshot(), snapshot)) differs('its snapshot is another one');
        tally.snapshots += 1;
        tally.largest = Math.max(tally.largest, snapshot.length);
        look(tally, snapshot, context);
        return made;
      };
      let twin = restored();
      const step = core.step.bind(core);
      core.step = (inputs, now) => {
        if (dice.chance(1 / every)) twin = restored();
        const bytes = concat(...encodeStep({ now, inputs }));
        const ready = step(inputs, now);
        const read = decodeStep(bytes, context);
        if ('refused' in read) return differs(`${read.refused}: ${read.problem}`);
        const again = twin.step(read.inputs, read.now);
        tally.steps += 1;
        for (const input of inputs) count(tally, input);
        if (digestOf(ready) !== digestOf(again)) differs(`after ${inputs.map(({ type }) => type)}`);
        if (dice.chance(1 / every) && !equalBytes(twin.snapshot(), core.snapshot()))
          differs('the two know different things');
        return ready;
      };
      return core;
    }
  };
}

const PARTS: ReadonlySet<string> = new Set(
  'ledger checkpoints catchUp votes viewChanges pool pace stalls own'.split(' '),
);

/** Of all fields, and of those of the parts one by one: what is still as it was at first has not been tested. */
function look({ moved, first }: TwinTally, snapshot: Uint8Array, context: WireContext): void {
  const decoded = decodeSnapshot(snapshot, context);
  if ('refused' in decoded) return differs(decoded.problem);
  // The casts: an object, as snapshotOf made it.
  for (const [name, value] of Object.entries(decoded.value as object)) {
    const isPart = PARTS.has(name);
    for (const [path, field] of isPart
      ? Object.entries(value as object).map(([inner, each]) => [`${name}.${inner}`, each] as const)
      : [[name, value] as const]) {
      if (moved.has(path)) continue;
      const text = toHex(native.sha256(encodeSnapshot(field)));
      if (!first.has(path)) first.set(path, text);
      else if (first.get(path) !== text) moved.add(path);
    }
  }
}

function count({ inputs }: TwinTally, input: Input<ReplicaMessage, ReplicaPledge>): void {
  const name = 'signed' in input ? `${input.type} ${input.signed.message.kind}` : input.type;
  inputs.set(name, (inputs.get(name) ?? 0) + 1);
}
