// What must hold of what is said where members are trusted: promises, acceptances, votes and appends (checks.ts has the rest).

import { equalBytes, toHex } from '../crypto/bytes.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import type { Protocol } from '../protocol/modes.ts';
import type { ReplicaId } from '../protocol/types.ts';
import type { SimDisk } from './disk.ts';
import { fail } from './failure.ts';
import { forsakenOn, promisedOn, termOn, workingOn } from './hard-states.ts';

/** In front of a place; nothing in the first epoch. */
export const inEpoch = ({ epoch }: { readonly epoch: number }): string => (epoch === 0 ? '' : `epoch ${epoch} `);

export class BallotChecks {
  readonly #mark: (replica: ReplicaId, place: string, what: string) => void;
  /** Raft: hashes of entries by term and index, in hex. */
  readonly #entries = new Map<string, string>();

  /** @param mark notes what a replica signed at a place where it may sign one thing */
  constructor(mark: (replica: ReplicaId, place: string, what: string) => void) {
    this.#mark = mark;
  }

  /** @param said `givenUp`: the ballot or term below which this replica says nothing any more */
  said(replica: ReplicaId, message: ReplicaMessage, said: { givenUp: number }): void {
    switch (message.kind) {
      case 'vote':
        said.givenUp = Math.max(said.givenUp, message.term);
        return this.#mark(replica, `${inEpoch(message)}vote ${message.term}`, `for node-${message.candidate}`);
      case 'append-entries': {
        this.#risen(message.term, said.givenUp, `node-${replica} leads term`, 'it voted in');
        // In a term one leader makes one entry at an index, whoever passes it on later.
        const { entry } = message;
        if (entry === null) return;
        const { height } = entry.value.header;
        return this.#entry(`${inEpoch(message)}${entry.term} ${height}`, toHex(entry.value.hash));
      }
      case 'appended':
        return this.#risen(message.term, said.givenUp, `node-${replica} appends in term`, 'it voted in');
      case 'promise':
        said.givenUp = Math.max(said.givenUp, message.ballot);
        return;
      // A proposer proposes one value in a slot of its ballot, an acceptor accepts that one, and nothing below what it promised.
      case 'accept': {
        const { ballot, value } = message;
        return this.#mark(replica, `${inEpoch(message)}accept ${ballot} ${value.header.height}`, toHex(value.hash));
      }
      case 'accepted':
      case 'fast-accepted': {
        const { kind, ballot, places } = message;
        this.#risen(ballot, said.givenUp, `node-${replica} accepts in ballot`, 'it promised');
        for (const { slot, hash } of places)
          this.#mark(replica, `${inEpoch(message)}${kind} ${ballot} ${slot}`, toHex(hash));
        return;
      }
      default:
        return;
    }
  }

  #risen(number: number, givenUp: number, does: string, after: string): void {
    if (number < givenUp) fail('views-never-run-back', `${does} ${number}, after ${after} ${givenUp}`);
  }

  /** @param place term and index */
  #entry(place: string, hash: string): void {
    const before = this.#entries.get(place);
    if (before !== undefined && before !== hash)
      fail('one-vote-per-place', `two entries of one term at one index: ${place}`);
    this.#entries.set(place, hash);
  }
}

/** What a crash now would leave holds what this pledge promises (PXS-A-3, RAFT-E-2, RAFT-L-2, CHP-3). */
export function mustBeDurable(
  message: ReplicaMessage,
  disk: SimDisk,
  protocol: Protocol | undefined,
  must: (holds: boolean, what: string) => void,
): void {
  switch (message.kind) {
    case 'vote':
      return must(termOn(disk, message.epoch) >= message.term, 'its vote');
    case 'appended':
      must(termOn(disk, message.epoch) >= message.term, 'its term');
      return must(message.match <= disk.head || disk.accepted.has(message.match), 'its entry');
    case 'promise':
      return must(promisedOn(disk, message.epoch) >= message.ballot, 'its promise');
    case 'configured':
      return must(workingOn(disk, message.epoch) >= message.ballot, 'its working set');
    case 'accepted':
    case 'fast-accepted': {
      must(promisedOn(disk, message.epoch) >= message.ballot, 'its promise');
      // How the log numbers what was accepted: in Fast Paxos by rounds, of which a ballot has two.
      const round = 2 * message.ballot + (message.kind === 'fast-accepted' ? 0 : 1);
      const number = protocol === 'fast-paxos' ? round : message.ballot;
      for (const { slot, hash } of message.places) {
        const held = disk.accepted.get(slot);
        const holds = held !== undefined && (held.view > number || equalBytes(held.hash, hash));
        // CHP-6: of what all mains hold an auxiliary keeps nothing.
        must(slot <= Math.max(disk.head, forsakenOn(disk, message.epoch)) || holds, 'its value');
      }
      return;
    }
    default:
      return;
  }
}
