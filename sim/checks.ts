// The checks: what must hold at every moment, whatever fails. They see all that honest replicas say and decide, over all their lives, and
// they reckon for themselves: nothing here believes a replica's own counting.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import type { Marks } from '../keys/marks.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeCertificate, decodeCheckpointCertificate, isRefusal } from '../protocol/codec.ts';
import type { Decided, Explanation, Ready } from '../protocol/core.ts';
import type {
  Accepted,
  FastAccepted,
  NewView,
  ReplicaMessage,
  ReplicaPledge,
  Signed,
  ViewChange,
} from '../protocol/messages.ts';
import { proofOf } from '../protocol/modes.ts';
import { POOL_LIMITS } from '../protocol/pool.ts';
import { sessionKey } from '../protocol/sessions.ts';
import type { ReplicaId } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { verifyCertificate, verifyCheckpoint, verifyMessage } from '../protocol/verify.ts';
import type { SimDisk } from './disk.ts';
import { forsakenOn, promisedOn, termOn, workingOn } from './hard-states.ts';

/** Each is one property; docs/simulator.md says what it means. */
export const CHECKS = [
  'one-block-per-height',
  'exactly-once',
  'session-order',
  'in-order',
  'one-vote-per-place',
  'views-never-run-back',
  'lock-is-kept',
  'base-is-kept',
  'certificates-verify',
  'one-certificate-per-place',
  'within-bounds',
  'acknowledged-stays',
  'durable-before-spoken',
  'no-invariant-breaks',
  'everything-is-ordered',
  'heads-agree',
  'slow-primary-is-replaced',
] as const;
export type CheckName = (typeof CHECKS)[number];

/** A property that does not hold. */
export class CheckFailure extends Error {
  override readonly name = 'CheckFailure';
  readonly check: CheckName;

  constructor(check: CheckName, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.check = check;
  }
}

/** Accepted blocks in flight and blocks on the disk that are not decided, at most: views that fail leave some behind until a height is decided. */
const UNDECIDED_ON_DISK_MAX = 4096;
const MARKS_MAX = 128;

/** What one replica has said, over all its lives. */
interface Said {
  readonly votes: Map<string, string>;
  /** Views below this one were given up: no vote in them any more. */
  givenUp: number;
  /** The highest commit it signed. */
  committed: { readonly view: number; readonly height: number } | null;
  /** Of its present life. */
  statusView: number;
  deliveredTo: number;
}

interface SessionSeen {
  readonly last: number;
  readonly expires: number;
}

export class Checks {
  /** More than f lie: honest replicas may decide two chains, and each of them must still do nothing that proves it guilty. */
  mayFork = false;
  /** Heights at which an honest replica has decided another block than the first one that decided there. */
  readonly forks: { readonly replica: ReplicaId; readonly height: number }[] = [];
  /** The chain that all honest replicas share, in hex, by height. */
  readonly chain = new Map<number, string>();
  /** By digest in hex: where a bundle stands. */
  readonly executed = new Map<string, number>();
  readonly #blocks = new Map<number, Bytes>();
  readonly #verify: VerifyContext;
  readonly #durable: (replica: ReplicaId) => Durable;
  readonly #said: Said[];
  readonly #sessions = new Map<string, SessionSeen>();
  /** Signed objects that were looked at: a retransmission is the same object. */
  readonly #seen = new WeakSet<object>();
  /** Where the views of honest primaries begin, from their own new-views. */
  readonly #bases = new Map<number, Certificate | null>();
  readonly #certified = new Map<string, string>();
  /** Raft: entries by term and index, in hex. */
  readonly #entries = new Map<string, string>();
  readonly #acknowledged = new Map<string, number>();
  #highestAcknowledged = 0;

  constructor(verify: VerifyContext, durable: (replica: ReplicaId) => Durable) {
    this.#verify = verify;
    this.#durable = durable;
    this.#said = verify.members.map(() => ({
      votes: new Map(),
      givenUp: 0,
      committed: null,
      statusView: 0,
      deliveredTo: 0,
    }));
  }

  /** An honest replica starts anew: what it says of the moment may fall back to what was durable, what it signed may not. */
  booted(replica: ReplicaId, height: number): void {
    const said = this.#said[replica]!;
    said.statusView = 0;
    said.deliveredTo = height;
  }

  /** The state of a checkpoint was taken: deliveries go on above it. */
  installed(replica: ReplicaId, height: number): void {
    this.#said[replica]!.deliveredTo = height;
  }

  /** An honest replica says this, to someone or to all. */
  said(replica: ReplicaId, signed: Signed<ReplicaMessage>): void {
    if (signed.sender !== replica || this.#seen.has(signed)) return;
    this.#seen.add(signed);
    const { message, payload } = signed;
    const said = this.#said[replica]!;
    this.#isDurable(replica, message);
    switch (message.kind) {
      case 'status':
        if (message.view < said.statusView)
          fail('views-never-run-back', `node-${replica} says it is in view ${message.view}, after ${said.statusView}`);
        said.statusView = message.view;
        return;
      case 'pre-prepare':
        return this.#vote(replica, 'prepare', message.view, message.block.header.height, message.block.hash);
      case 'prepare':
      case 'commit':
        return this.#vote(replica, message.kind, message.view, message.height, message.hash);
      case 'checkpoint':
        return this.#mark(replica, `checkpoint ${message.height}`, toHex(message.hash) + toHex(message.stateDigest));
      case 'view-change':
        this.#mark(replica, `view-change ${message.view}`, toHex(payload));
        this.#soundInside(replica, signed);
        return this.#givesUp(replica, message);
      case 'new-view':
        this.#mark(replica, `new-view ${message.view}`, toHex(payload));
        this.#soundInside(replica, signed);
        this.#bases.set(message.view, baseOf(message));
        return;
      case 'vote':
        said.givenUp = Math.max(said.givenUp, message.term);
        return this.#mark(replica, `vote ${message.term}`, `for node-${message.candidate}`);
      case 'append-entries': {
        if (message.term < said.givenUp)
          fail('views-never-run-back', `node-${replica} leads term ${message.term}, after it voted in ${said.givenUp}`);
        // In a term one leader makes one entry at an index, whoever passes it on later.
        const { entry } = message;
        if (entry !== null) this.#entry(entry.term, entry.value.header.height, toHex(entry.value.hash));
        return;
      }
      case 'appended':
        if (message.term < said.givenUp)
          fail(
            'views-never-run-back',
            `node-${replica} appends in term ${message.term}, after it voted in ${said.givenUp}`,
          );
        return;
      case 'promise':
        said.givenUp = Math.max(said.givenUp, message.ballot);
        return;
      // A proposer proposes one value in a slot of its ballot, an acceptor accepts that one, and nothing below what it promised.
      case 'accept':
        return this.#mark(
          replica,
          `accept ${message.ballot} ${message.value.header.height}`,
          toHex(message.value.hash),
        );
      case 'accepted':
      case 'fast-accepted':
        if (message.ballot < said.givenUp)
          fail(
            'views-never-run-back',
            `node-${replica} accepts in ballot ${message.ballot}, after it promised ${said.givenUp}`,
          );
        for (const { slot, hash } of message.places)
          this.#mark(replica, `${message.kind} ${message.ballot} ${slot}`, toHex(hash));
        return;
      case 'blocks':
      case 'checkpoint-proof':
        return this.#soundInside(replica, signed);
      default:
        return;
    }
  }

  /** What a crash now would leave holds what this pledge promises (PBFT-P-1, PBFT-C-1, PBFT-VC-2, PBFT-CP-1, PBFT-PP-6). */
  #isDurable(replica: ReplicaId, message: ReplicaMessage): void {
    const { marks, lock, disk } = this.#durable(replica);
    const must = (holds: boolean, what: string) => {
      if (!holds) fail('durable-before-spoken', `node-${replica} says a ${message.kind} before ${what} is durable`);
    };
    switch (message.kind) {
      case 'pre-prepare':
        return must(marks.led === message.view, 'the lead of its view');
      case 'prepare':
        must(disk.block(message.height, message.hash) !== undefined, 'its block');
        return must(equalsMark(marks.votes.get(message.height)?.prepare, message.hash), 'its mark');
      case 'commit':
        must(equalsMark(marks.votes.get(message.height)?.commit, message.hash), 'its mark');
        return must(this.#isLocked(message, lock), 'its certificate');
      case 'view-change':
        // A later one may have shared the write: nothing below it is signed any more (GRD-9).
        return must((marks.viewChange?.view ?? -1) >= message.view && disk.hardState !== null, 'its mark');
      case 'new-view':
        return must((marks.newView?.view ?? -1) >= message.view, 'its mark');
      case 'checkpoint':
        must(
          marks.checkpoints.some(({ height }) => height === message.height),
          'its mark',
        );
        return must(disk.checkpoints.has(message.height), 'its state');
      case 'vote':
        return must(termOn(disk) >= message.term, 'its vote');
      case 'appended':
        must(termOn(disk) >= message.term, 'its term');
        return must(message.match <= disk.head || disk.accepted.has(message.match), 'its entry');
      case 'promise':
        return must(promisedOn(disk) >= message.ballot, 'its promise');
      case 'configured':
        return must(workingOn(disk) >= message.ballot, 'its working set');
      case 'accepted':
      case 'fast-accepted':
        must(promisedOn(disk) >= message.ballot, 'its promise');
        for (const { slot, hash } of message.places) {
          const held = disk.accepted.get(slot);
          const holds = held !== undefined && (held.view > this.#numberOf(message) || equalBytes(held.hash, hash));
          // CHP-6: of what all mains hold an auxiliary keeps nothing.
          must(slot <= Math.max(disk.head, forsakenOn(disk)) || holds, 'its value');
        }
        return;
      default:
        return;
    }
  }

  /** How the log numbers what was accepted: in Fast Paxos by rounds, of which a ballot has two. */
  #numberOf({ kind, ballot }: Accepted | FastAccepted): number {
    if (this.#verify.protocol !== 'fast-paxos') return ballot;
    return 2 * ballot + (kind === 'fast-accepted' ? 0 : 1);
  }

  #isLocked(vote: ViewAndHeight, lock: Bytes | null): boolean {
    if (lock === null) return false;
    const held = decodeCertificate(lock);
    return !isRefusal(held) && !isAbove(vote, held);
  }

  #vote(replica: ReplicaId, phase: 'prepare' | 'commit', view: number, height: number, hash: Bytes): void {
    const said = this.#said[replica]!;
    if (view < said.givenUp)
      fail('views-never-run-back', `node-${replica} votes in view ${view}, which it gave up for ${said.givenUp}`);
    const base = this.#bases.get(view) ?? null;
    if (base !== null && (height < base.height || (height === base.height && !equalBytes(hash, base.hash))))
      fail(
        'base-is-kept',
        `node-${replica} votes at height ${height} of view ${view}, against its base at ${base.height}`,
      );
    this.#mark(replica, `${phase} ${view} ${height}`, toHex(hash));
    if (phase === 'commit' && (said.committed === null || isAbove({ view, height }, said.committed)))
      said.committed = { view, height };
  }

  #entry(term: number, height: number, hash: string): void {
    const place = `${term} ${height}`;
    const before = this.#entries.get(place);
    if (before !== undefined && before !== hash)
      fail('one-vote-per-place', `two entries at index ${height} of term ${term}`);
    this.#entries.set(place, hash);
  }

  #mark(replica: ReplicaId, place: string, what: string): void {
    const { votes } = this.#said[replica]!;
    const before = votes.get(place);
    if (before !== undefined && before !== what)
      fail('one-vote-per-place', `node-${replica} signed two different things at one place: ${place}`);
    votes.set(place, what);
  }

  /** What an honest replica ever signed at a place, such as `prepare 1 2` for view 1 and height 2; undefined: nothing. */
  signedBy(replica: ReplicaId, place: string): string | undefined {
    return this.#said[replica]!.votes.get(place);
  }

  /** PBFT-VC-2: who signed a commit holds the prepared certificate for it, and shows it or a later one. */
  #givesUp(replica: ReplicaId, { view, prepared, commit }: ViewChange): void {
    const said = this.#said[replica]!;
    said.givenUp = Math.max(said.givenUp, view);
    if (said.committed !== null && (prepared === null || isAbove(said.committed, prepared))) {
      const { height, view: at } = said.committed;
      fail(
        'lock-is-kept',
        `node-${replica} asks for view ${view} and hides that it prepared height ${height} in view ${at}`,
      );
    }
    for (const certificate of [prepared, commit]) if (certificate !== null) this.#certificate(certificate);
  }

  #soundInside(replica: ReplicaId, signed: Signed<ReplicaMessage>): void {
    const verdict = verifyMessage(signed, this.#verify);
    if (isRefusal(verdict))
      fail(
        'certificates-verify',
        `node-${replica} sends a ${signed.message.kind} that does not verify: ${verdict.refused}`,
      );
  }

  /** Two certificates of one place are for one block. */
  #certificate({ phase, view, height, hash }: Certificate): void {
    const place = phase === 'prepare' ? `prepare ${view} ${height}` : `${phase} ${height}`;
    const before = this.#certified.get(place);
    const name = toHex(hash);
    if (this.mayFork) return;
    if (before !== undefined && before !== name)
      fail('one-certificate-per-place', `two certificates for different blocks: ${place}`);
    this.#certified.set(place, name);
  }

  /** What an honest replica keeps as proved, it could prove to anyone. */
  kept(replica: ReplicaId, { lock, records }: Ready<ReplicaMessage, ReplicaPledge>): void {
    const check = (what: string, problem: { readonly refused: string } | null) => {
      if (problem !== null)
        fail('certificates-verify', `node-${replica} keeps ${what} that does not verify: ${problem.refused}`);
    };
    if (lock !== null) {
      check('a prepared certificate', verifyCertificate(lock, this.#verify));
      this.#certificate(lock);
    }
    for (const record of records) {
      if ((record.type !== 'checkpoint' && record.type !== 'reset-to-checkpoint') || record.certificate === null)
        continue;
      const certificate = decodeCheckpointCertificate(record.certificate);
      check('a checkpoint', isRefusal(certificate) ? certificate : verifyCheckpoint(certificate, this.#verify));
    }
  }

  /** An honest replica has decided this. */
  decided(replica: ReplicaId, { block, certificate }: Decided): void {
    const said = this.#said[replica]!;
    const { height } = block.header;
    if (height !== said.deliveredTo + 1)
      fail('in-order', `node-${replica} delivers height ${height} after ${said.deliveredTo}`);
    said.deliveredTo = height;
    if (certificate !== null) {
      const problem = verifyCertificate(certificate, this.#verify);
      if (problem !== null)
        fail(
          'certificates-verify',
          `node-${replica} decides height ${height} by a certificate that does not verify: ${problem.refused}`,
        );
      if (
        certificate.phase !== proofOf(this.#verify).phase ||
        certificate.height !== height ||
        !equalBytes(certificate.hash, block.hash)
      )
        fail('certificates-verify', `node-${replica} decides height ${height} by a certificate of another place`);
      this.#certificate(certificate);
    }
    const before = this.#blocks.get(height);
    if (this.mayFork && before !== undefined && !equalBytes(before, block.hash)) this.forks.push({ replica, height });
    else if (before !== undefined && !equalBytes(before, block.hash))
      fail('one-block-per-height', `two blocks decided at height ${height}: node-${replica} has another one`);
    if (before !== undefined) return;
    if (height !== this.chain.size + 1)
      fail('in-order', `node-${replica} decides height ${height}, and nobody has decided ${height - 1}`);
    this.#blocks.set(height, block.hash);
    this.chain.set(height, toHex(block.hash));
    // What stands above a fork stands on one of two chains: what the shared chain must be like is no longer to be asked.
    if (this.forks.length > 0) return;
    for (const bundle of block.bundles) {
      const name = toHex(bundle.digest);
      const at = this.executed.get(name);
      if (at !== undefined) fail('exactly-once', `a bundle was ordered twice, at ${at} and ${height}`);
      this.executed.set(name, height);
      const key = sessionKey(bundle);
      const session = this.#sessions.get(key);
      const last = session !== undefined && session.expires >= height ? session.last : 0;
      if (bundle.sequence !== last + 1)
        fail('session-order', `sequence ${bundle.sequence} of a session follows ${last} at height ${height}`);
      if (bundle.validUntil < height)
        fail('session-order', `a bundle valid until ${bundle.validUntil} stands at ${height}`);
      const expires = Math.max(last === 0 ? 0 : (session?.expires ?? 0), bundle.validUntil);
      this.#sessions.set(key, { last: bundle.sequence, expires });
    }
  }

  /** A client was shown that its bundle is decided. */
  acknowledged(digest: string, height: number): void {
    if (this.executed.get(digest) !== height)
      fail('acknowledged-stays', `a client was told that its bundle stands at height ${height}, and it does not`);
    this.#acknowledged.set(digest, height);
    this.#highestAcknowledged = Math.max(this.#highestAcknowledged, height);
  }

  get acknowledgedCount(): number {
    return this.#acknowledged.size;
  }

  /** At the end: what clients were told stands on every healed replica. */
  atEnd(replica: ReplicaId, height: number): void {
    if (height < this.#highestAcknowledged)
      fail(
        'acknowledged-stays',
        `node-${replica} ends at height ${height}, and clients were told of ${this.#highestAcknowledged}`,
      );
  }

  /** A look at a replica now and then. */
  bounds(replica: ReplicaId, held: Held): void {
    const { explanation, undecidedOnDisk, marks, inbox, inboxMax } = held;
    const within = (what: string, value: number, max: number) => {
      if (value > max) fail('within-bounds', `node-${replica} holds ${value} ${what}, at most ${max} are allowed`);
    };
    within('bundles in its pool', explanation.pool.bundles, POOL_LIMITS.poolBundlesMax);
    within('bytes in its pool', explanation.pool.bytes, POOL_LIMITS.poolBytesMax);
    within('blocks in flight', explanation.inFlight, held.inFlightMax);
    within('undecided blocks on its disk', undecidedOnDisk, UNDECIDED_ON_DISK_MAX);
    within('marks in its guard', marks, MARKS_MAX);
    within('messages in its inbox', inbox, inboxMax);
    within('decided blocks on its disk', held.decidedOnDisk, held.decidedMax);
  }
}

/** What a crash now would leave. */
export interface Durable {
  readonly marks: Marks;
  /** An encoded certificate. */
  readonly lock: Bytes | null;
  readonly disk: SimDisk;
}

const equalsMark = (mark: Bytes | null | undefined, hash: Bytes): boolean => mark != null && equalBytes(mark, hash);

/** What a replica holds, and how much of it the rules allow. */
export interface Held {
  readonly explanation: Explanation;
  readonly inFlightMax: number;
  readonly undecidedOnDisk: number;
  readonly decidedOnDisk: number;
  readonly decidedMax: number;
  readonly marks: number;
  readonly inbox: number;
  readonly inboxMax: number;
}

export function fail(check: CheckName, message: string, cause?: unknown): never {
  throw new CheckFailure(check, message, cause);
}

/** PBFT-NV-2, reckoned here once more: the latest certificate by view, then height. */
function baseOf({ viewChanges }: NewView): Certificate | null {
  let base: Certificate | null = null;
  for (const { message } of viewChanges)
    for (const certificate of [message.commit, message.prepared])
      if (certificate !== null && (base === null || isAbove(certificate, base))) base = certificate;
  return base;
}

type ViewAndHeight = { readonly view: number; readonly height: number };

/** By view, then height. */
const isAbove = (a: ViewAndHeight, b: ViewAndHeight): boolean =>
  a.view !== b.view ? a.view > b.view : a.height > b.height;
