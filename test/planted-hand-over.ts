// Bugs in the hand-over of a lead, planted one at a time as in planted.ts.

import type { CrashCore } from '../protocol/crash/core.ts';
import type { Lead } from '../protocol/crash/hand-over.ts';
import type { ReplicaMessage, ReplicaPledge, Verified } from '../protocol/messages.ts';
import { MultiPaxos } from '../protocol/paxos/multi.ts';
import { Raft } from '../protocol/raft/raft.ts';
import { asHeight } from '../protocol/types.ts';
import { SimReplica } from '../sim/replica.ts';
import type { PlantedBug } from './planted.ts';

/** In the place of how leaders give their place away. The class shows it to its subclasses alone. */
const patchedLead = (change: (found: Lead, core: CrashCore) => Lead) => (): (() => void) => {
  const takeOut = [Raft.prototype, MultiPaxos.prototype].map((prototype) => {
    const before = Object.getOwnPropertyDescriptor(prototype, 'lead')!;
    Object.defineProperty(prototype, 'lead', {
      configurable: true,
      get(this: CrashCore) {
        const found: Lead | null = before.get!.call(this);
        return found && change(found, this);
      },
    });
    return () => Object.defineProperty(prototype, 'lead', before);
  });
  return () => {
    for (const each of takeOut) each();
  };
};

/** Whoever is behind is told to run. */
export const waitsForNobody = patchedLead((found) => ({ ...found, holdsAll: () => true }));

/** Its successor is told to run, and it goes on leading. */
export const goesOnLeading = patchedLead((found, core) => ({
  ...found,
  yieldTo: (replica) => {
    // The state of a core is for its own kind; so is what it is told to say here.
    const { s } = core as unknown as { readonly s: { epoch: never; out: { say(to: unknown, what: object): void } } };
    const view = core.explain().view as number;
    const n = core.explain().peers.length + 1;
    const isRaft = core instanceof Raft;
    const term = Math.floor(view / n);
    const what = isRaft ? { kind: 'timeout-now', term } : { kind: 'take-over', ballot: view };
    s.out.say(replica, { ...what, epoch: s.epoch });
  },
}));

/** Told to run, it takes everybody's vote, or promise, for granted: the leader has said so. */
class TakesItForGranted extends SimReplica {
  #told = -1;

  override input(input: Parameters<SimReplica['input']>[0]): void {
    super.input(input);
    if (input.type === 'message') {
      const { message } = input.signed;
      if (message.kind === 'timeout-now') this.#told = message.term + 1;
      if (message.kind === 'take-over') this.#told = message.ballot + 1;
    }
    if (input.type !== 'own') return;
    const granted = grantedBy(input.signed);
    if (granted === null || this.#told < 0 || granted.number < this.#told) return;
    this.#told = -1;
    for (const { id } of this.epoch.members)
      if (id !== this.member)
        super.input({ type: 'message', signed: { ...input.signed, sender: id, message: granted.answer } });
  }
}

/** What others would say who have nothing to tell. */
function grantedBy({ message }: Verified<ReplicaPledge>): { number: number; answer: ReplicaMessage } | null {
  if (message.kind === 'vote') return { number: message.term, answer: message };
  if (message.kind !== 'promise') return null;
  return { number: message.ballot, answer: { ...message, decided: asHeight(0), accepted: [], working: null } };
}

export const PLANTED_HAND_OVER: readonly PlantedBug[] = [
  {
    name: 'whoever is told to lead asks nobody, and may be behind',
    Replica: TakesItForGranted,
    plant: waitsForNobody,
    seedsMax: 40,
    by: [
      'one-block-per-height',
      'one-certificate-per-place',
      'one-vote-per-place',
      'no-invariant-breaks',
      'views-never-run-back',
      'acknowledged-stays',
    ],
  },
];
