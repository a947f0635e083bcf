// The checks: what must hold at every moment, whatever fails. They see all that honest replicas say and decide, over all their lives, and
// they reckon for themselves: nothing here believes a replica's own counting.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import type { Marks } from '../keys/marks.ts';
import { checkpointsMax } from '../keys/marks.ts';
import type { Block } from '../protocol/block.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeCertificate, decodeCheckpointCertificate, isRefusal } from '../protocol/codec.ts';
import type { Decided, Explanation, Ready } from '../protocol/core.ts';
import type { NewView, ReplicaMessage, ReplicaPledge, Signed, ViewChange, Vote } from '../protocol/messages.ts';
import { proofOf } from '../protocol/modes.ts';
import { POOL_LIMITS } from '../protocol/pool.ts';
import { sessionKey } from '../protocol/sessions.ts';
import type { ReplicaId } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { verifyCertificate, verifyCheckpoint, verifyMessage } from '../protocol/verify.ts';
import { BallotChecks, inEpoch, mustBeDurable } from './ballot-checks.ts';
import type { SimDisk } from './disk.ts';
import { fail } from './failure.ts';
import { Linearizability } from './linearizability.ts';
import { sealOf } from './sealed.ts';

export { CHECKS, CheckFailure, type CheckName, fail } from './failure.ts';

/** Accepted blocks in flight and blocks on the disk that are not decided, at most: views that fail leave some behind until a height is decided. */
const UNDECIDED_ON_DISK_MAX = 4096;
const MARKS_MAX = 128;

/** What one replica has said, over all its lives. */
interface Said {
  readonly votes: Map<string, string>;
  /** Views below this one were given up: no vote in them any more. */
  givenUp: number;
  /** The epoch that the two beside it are of. */
  epoch: number;
  /** The highest height of any vote. */
  votedTo: number;
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
  readonly #contextOf: (epoch: number) => VerifyContext | undefined;
  readonly #durable: (replica: ReplicaId) => Durable;
  readonly #said: Said[];
  readonly #sessions = new Map<string, SessionSeen>();
  /** Where the views of honest primaries begin, from their own new-views. */
  readonly #bases = new Map<string, Certificate | null>();
  readonly #certified = new Map<string, string>();
  /** By phase and height, the last one that was verified: most replicas make the same of the same votes. */
  readonly #proved = new Map<Certificate['phase'], Map<number, Certificate>>();
  readonly #ballots = new BallotChecks((replica, place, what) => this.#mark(replica, place, what));
  /** What clients saw, and when. */
  readonly history = new Linearizability(() => this.chain.size);
  readonly #acknowledged = new Map<string, number>();
  #highestAcknowledged = 0;

  /** @param contextOf what the messages of an epoch are checked with; undefined: no replica has come to it */
  constructor(
    contextOf: (epoch: number) => VerifyContext | undefined,
    n: number,
    durable: (replica: ReplicaId) => Durable,
  ) {
    this.#contextOf = contextOf;
    this.#durable = durable;
    this.#said = Array.from({ length: n }, () => ({
      votes: new Map(),
      epoch: 0,
      givenUp: 0,
      votedTo: 0,
      committed: null,
      statusView: 0,
      deliveredTo: 0,
    }));
  }

  /** An honest replica starts anew: what it says of the moment may fall back to what was durable, what it signed may not. */
  booted(replica: ReplicaId, height: number, epoch: number, forgets = false): void {
    const said = this.#said[replica]!;
    // With an older log, and without a vote, it may begin in an epoch that it had left.
    if (epoch < said.epoch && !forgets)
      fail('views-never-run-back', `node-${replica} starts in epoch ${epoch}, after ${said.epoch}`);
    // Views begin anew, and what was locked is decided.
    if (epoch > said.epoch) {
      said.epoch = epoch;
      said.givenUp = 0;
      said.committed = null;
    }
    said.statusView = 0;
    said.deliveredTo = height;
  }

  /** The state of a checkpoint was taken: deliveries go on above it. */
  installed(replica: ReplicaId, height: number): void {
    this.#said[replica]!.deliveredTo = height;
  }

  /** An honest replica says this, to someone or to all. */
  said(replica: ReplicaId, signed: Signed<ReplicaMessage>, isOwn = signed.sender === replica): void {
    const seal = isOwn ? sealOf(signed) : undefined;
    if (!isOwn || seal?.looked === true) return;
    if (seal !== undefined) seal.looked = true;
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
        return this.#vote(replica, { ...message, kind: 'prepare', ...message.block.header, hash: message.block.hash });
      case 'prepare':
      case 'commit':
        return this.#vote(replica, message);
      case 'checkpoint':
        return this.#mark(replica, `checkpoint ${message.height}`, toHex(message.hash) + toHex(message.stateDigest));
      case 'view-change':
      case 'new-view':
        this.#mark(replica, `${inEpoch(message)}${message.kind} ${message.view}`, toHex(payload));
        this.#soundInside(replica, signed);
        if (message.kind === 'view-change') return this.#givesUp(replica, message);
        this.#bases.set(`${inEpoch(message)}${message.view}`, baseOf(message));
        return;
      case 'blocks':
      case 'checkpoint-proof':
        return this.#soundInside(replica, signed);
      default:
        return this.#ballots.said(replica, message, said);
    }
  }

  /** A replica on an older disk says this: what it signs may contradict what it has forgotten, and what it signs later may not contradict this. */
  saidUnknowing(replica: ReplicaId, { message, payload }: Signed<ReplicaMessage>): void {
    const said = this.#said[replica]!;
    const epoch = 'epoch' in message ? Number(message.epoch) : 0; // whatever binds has one
    const [at, isOfNow] = [inEpoch({ epoch }), epoch === said.epoch];
    const note = (place: string, what: string) => {
      const before = said.votes.get(place);
      // Whatever stands there from now on is one thing too many.
      said.votes.set(place, before === undefined || before === what ? what : 'two things');
    };
    switch (message.kind) {
      case 'pre-prepare': {
        const { header, hash } = message.block;
        said.votedTo = Math.max(said.votedTo, header.height);
        return note(`${at}prepare ${message.view} ${header.height}`, toHex(hash));
      }
      case 'prepare':
      case 'commit': {
        const { kind, view, height, hash } = message;
        said.votedTo = Math.max(said.votedTo, height);
        note(`${at}${kind} ${view} ${height}`, toHex(hash));
        if (isOfNow && kind === 'commit' && (said.committed === null || isAbove(message, said.committed)))
          said.committed = { view, height };
        return;
      }
      case 'checkpoint':
        return note(`checkpoint ${message.height}`, toHex(message.hash) + toHex(message.stateDigest));
      case 'view-change':
        if (isOfNow) said.givenUp = Math.max(said.givenUp, message.view);
        return note(`${at}view-change ${message.view}`, toHex(payload));
      case 'new-view':
        // A faulty primary makes two, of different requests, and each of them is sound (PBFT-NV-2).
        this.#bases.delete(`${inEpoch(message)}${message.view}`);
        return note(`${at}new-view ${message.view}`, toHex(payload));
      default:
        return;
    }
  }

  /** [REC-3] [REC-4] A quarantine is over: what this replica abstains from covers all that its key ever signed. */
  readmitted(replica: ReplicaId, { view, height }: ViewAndHeight): void {
    const { votedTo, givenUp } = this.#said[replica]!;
    if (votedTo > height)
      fail('readmitted-above-votes', `node-${replica} votes again above height ${height}, and has voted at ${votedTo}`);
    // The view above may have been asked for: it is entered by the others' requests, and asked for no more.
    if (givenUp > view + 1)
      fail('readmitted-above-votes', `node-${replica} votes again above view ${view}, and has asked for ${givenUp}`);
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
        must((marks.viewChange?.view ?? -1) >= message.view, 'its mark');
        return must(disk.hardState !== null || marks.request !== null, 'what it says'); // GRD-18
      case 'new-view':
        return must((marks.newView?.view ?? -1) >= message.view, 'its mark');
      case 'checkpoint':
        must(isMarked(marks, message.height), 'its mark');
        return must(disk.checkpoints.has(message.height), 'its state');
      default:
        return mustBeDurable(message, disk, this.#contextOf(this.#said[replica]!.epoch)?.protocol, must);
    }
  }

  #isLocked(vote: ViewAndHeight, lock: Bytes | null): boolean {
    if (lock === null) return false;
    const held = decodeCertificate(lock);
    return !isRefusal(held) && !isAbove(vote, held);
  }

  #vote(replica: ReplicaId, vote: Omit<Vote, 'epoch'> & { readonly epoch: number }): void {
    const { kind: phase, epoch, view, height, hash } = vote;
    const said = this.#said[replica]!;
    // Said again after the next epoch has begun: by whoever carries it.
    if (epoch < said.epoch) return this.#mark(replica, `${inEpoch(vote)}${phase} ${view} ${height}`, toHex(hash));
    if (view < said.givenUp)
      fail('views-never-run-back', `node-${replica} votes in view ${view}, which it gave up for ${said.givenUp}`);
    const base = this.#bases.get(`${inEpoch(vote)}${view}`) ?? null;
    if (base !== null && (height < base.height || (height === base.height && !equalBytes(hash, base.hash))))
      fail(
        'base-is-kept',
        `node-${replica} votes at height ${height} of view ${view}, against its base at ${base.height}`,
      );
    this.#mark(replica, `${inEpoch(vote)}${phase} ${view} ${height}`, toHex(hash));
    said.votedTo = Math.max(said.votedTo, height);
    if (phase === 'commit' && (said.committed === null || isAbove({ view, height }, said.committed)))
      said.committed = { view, height };
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
    // What a replica serves to those behind it may be of an epoch that it has left: its blocks say of which.
    const { message } = signed;
    const epoch =
      message.kind === 'blocks' ? (message.blocks[0]?.block.header.epoch ?? null) : this.#said[replica]!.epoch;
    const context = epoch === null ? undefined : this.#contextOf(epoch);
    if (context === undefined || (message.kind === 'checkpoint-proof' && message.checkpoint.epoch !== epoch)) return;
    // The certificates inside: who sends it may sign under another key by now.
    const name = `node-${replica}`;
    const own = context.members.find((member) => member.name === name);
    const now = this.#contextOf(this.#said[replica]!.epoch)?.members.find((member) => member.name === name);
    if (own === undefined || own.id !== now?.id || !equalBytes(own.publicKey, now.publicKey)) return;
    const verdict = verifyMessage(signed, context);
    if (isRefusal(verdict))
      fail(
        'certificates-verify',
        `node-${replica} sends a ${signed.message.kind} that does not verify: ${verdict.refused}`,
      );
  }

  /** Two certificates of one place are for one block. */
  #certificate({ phase, epoch, view, height, hash }: Certificate): void {
    const place = phase === 'prepare' ? `prepare ${inEpoch({ epoch })}${view} ${height}` : `decided ${height}`;
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
      check('a prepared certificate', this.#verifyCertificate(lock));
      this.#certificate(lock);
    }
    for (const record of records) {
      if ((record.type !== 'checkpoint' && record.type !== 'reset-to-checkpoint') || record.certificate === null)
        continue;
      const certificate = decodeCheckpointCertificate(record.certificate);
      const context = isRefusal(certificate) ? undefined : this.#contextOf(certificate.epoch);
      check(
        'a checkpoint',
        isRefusal(certificate)
          ? certificate
          : context === undefined
            ? { refused: 'certificate-epoch' }
            : verifyCheckpoint(certificate, context),
      );
    }
  }

  #verifyCertificate(certificate: Certificate): { readonly refused: string } | null {
    const { phase, epoch, height } = certificate;
    const known = this.#proved.get(phase)?.get(height);
    if (known !== undefined && isSame(known, certificate)) return null;
    const context = this.#contextOf(epoch);
    const problem = context === undefined ? { refused: 'certificate-epoch' } : verifyCertificate(certificate, context);
    if (problem === null) this.#proved.set(phase, (this.#proved.get(phase) ?? new Map()).set(height, certificate));
    return problem;
  }

  /** An honest replica has decided this. */
  decided(replica: ReplicaId, { block, certificate }: Decided): void {
    const said = this.#said[replica]!;
    const { height } = block.header;
    if (height !== said.deliveredTo + 1)
      fail('in-order', `node-${replica} delivers height ${height} after ${said.deliveredTo}`);
    said.deliveredTo = height;
    if (certificate !== null) {
      const problem = this.#verifyCertificate(certificate);
      if (problem !== null)
        fail(
          'certificates-verify',
          `node-${replica} decides height ${height} by a certificate that does not verify: ${problem.refused}`,
        );
      if (
        certificate.phase !== proofOf({ protocol: this.#contextOf(certificate.epoch)?.protocol }).phase ||
        certificate.height !== height ||
        !equalBytes(certificate.hash, block.hash)
      )
        fail('certificates-verify', `node-${replica} decides height ${height} by a certificate of another place`);
      this.#certificate(certificate);
    }
    this.followed(replica, block);
  }

  /** An honest replica has it from others, with its proof: it may be the first that does, where a liar alone had counted the votes. */
  followed(replica: ReplicaId, block: Block): void {
    const { height } = block.header;
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
    this.history.acknowledged(digest, height);
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
    within('bytes in its pool', explanation.pool.bytes, POOL_LIMITS.poolCostMax);
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

/** Only so many are held, and with a log that was lost all heights are said again in a row: one that later ones have displaced was durable. */
function isMarked({ checkpoints }: Marks, height: number): boolean {
  if (checkpoints.length === checkpointsMax && checkpoints[0]!.height > height) return true;
  return checkpoints.some((mark) => mark.height === height);
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

/** Byte for byte. */
const isSame = (a: Certificate, b: Certificate): boolean =>
  a.phase === b.phase &&
  a.epoch === b.epoch &&
  a.view === b.view &&
  a.height === b.height &&
  equalBytes(a.hash, b.hash) &&
  a.signatures.length === b.signatures.length &&
  a.signatures.every(({ replica, signature }, i) => {
    const other = b.signatures[i]!; // as many
    return replica === other.replica && equalBytes(signature, other.signature);
  });

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
