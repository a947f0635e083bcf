// Read this file first. It is the whole contract between a protocol and the world.
//
// A core is a pure state machine: `step(inputs, now)` returns a `Ready`, and nothing else happens. It holds no socket, no file, no
// clock, no randomness and no key. Time, signatures and digests come from outside; the same inputs give the same Readys, bit for
// bit. That is why one implementation serves the daemon, the simulator, the flight recorder and `synod why`.
//
// The caller's duties, in order, for every Ready (daemon/replica.ts is the one caller in production):
//   1. Send `send` and `resend` whenever it likes: nothing in `send` binds this replica, and `resend` is durable already.
//   2. Write `records` in one synced write, and make the guard remember `pledges`, `lock`, `lead` and `readmit` durably.
//   3. Only when both are durable: sign each pledge, send it to every other replica, and give it back as an `own` input (and
//      `lead` as `leading`, `readmit` as `readmitted`). Persist before you speak. The core counts its own vote when it comes back, not before.
//   4. Hand `deliver` to the application side, in order. Blocks in it are decided: they never change. Where the members are trusted, the core
//      gives them no certificate: first of all the caller puts this replica's word in its place, there and in the records (attest.ts).
//   5. Call `step` again at `wakeAt` at the latest, even if nothing arrived.
//   6. Where `ended` is set, the core has done its work: make its records durable, sign none of its pledges, and begin the next epoch
//      with a core that goes on from its `successor`, or after a crash from the log (EPO-12).
//   7. If step throws, stop the process: a bug was found, and going on could break agreement. A bad peer never makes it throw.

import type { Bytes } from '../crypto/bytes.ts';
import type { Block } from './block.ts';
import type { SignedBundle } from './bundle.ts';
import type { Certificate } from './certificate.ts';
import type { EpochLink } from './epoch/chain.ts';
import type { EpochDocument } from './epoch/document.ts';
import type { Ledger } from './ledger.ts';
import type { LogRecord } from './log.ts';
import type { Verified } from './messages.ts';
import type { Epoch, Hash, Height, Millis, ReplicaId, View } from './types.ts';

/** `Message`: everything replicas of this protocol say. `Pledge`: the part of it that binds the speaker. */
export interface Core<Message, Pledge> {
  /**
   * Takes everything that has arrived, in order, and says what must be done. `now` never runs back between calls.
   * Throws InvariantViolation on a bug; refuses, with a code in the Ready, whatever a bad peer sent.
   */
  step(inputs: readonly Input<Message, Pledge>[], now: Millis): Ready<Message, Pledge>;
  /** After a step that threw: the evidence that it had found, which no Ready hands out. Empty after every other step. */
  readonly found: readonly Evidence<Message>[];
  /** [EPO-12] Of a core that has ended: the state that its last records wrote, for the core of the next epoch alone. Null until then. */
  readonly successor: Ledger | null;
  /**
   * Whether a message is worth the price of checking its signatures; that of a late peer often is not. `others` are the senders of equal
   * ones that were checked and will be given to the next step.
   */
  wants(message: Message, sender: ReplicaId, others?: ReadonlySet<ReplicaId>): boolean;
  /**
   * [LOOP-1] Whether a message that is wanted, or a pledge of this replica's own, can change anything by itself or with those of `others`, who have said the
   * same and are not counted yet. What cannot may wait, unchecked, for whatever else is a reason for the next step. Not there: nothing may wait.
   */
  presses?(message: Message, sender: ReplicaId, others: ReadonlySet<ReplicaId>): boolean;
  /** A bundle that was admitted here and waits: it need not be decoded or checked again. */
  pooled(digest: Hash): SignedBundle | undefined;
  /** The one answer that `synod why`, /readyz, the dashboard and the metrics read. Changes nothing, like the two below it. */
  explain(): Explanation;
  /** How far one height has come here, and who has voted for it. */
  explainHeight(height: Height): HeightExplanation;
  /** Where a bundle stands that is not decided: by its digest, or by the SHA-256 of a transaction in it. */
  explainBundle(digest: Hash): BundleExplanation;
  /**
   * [FLR-1] All that this core knows, as bytes (snapshot.ts): a core that is restored from them goes on bit for bit as this one does. The same
   * state gives the same bytes. Changes nothing. As large as the pool and the sessions, in the worst case 64 MiB and 72 MiB. Some milliseconds
   * for each megabyte, so whoever is in a hurry says how large it may be: null, and at once where that can be told, if it would be larger.
   */
  snapshot(): Bytes;
  snapshot(bytesMax: number): Bytes | null;
}

export type Input<Message, Pledge> =
  /** From another replica; signatures and certificates have been checked (verify.ts). */
  | { readonly type: 'message'; readonly signed: Verified<Message> }
  /** One of this replica's own pledges: durable, signed, and on its way. */
  | { readonly type: 'own'; readonly signed: Verified<Pledge> }
  /** A client's bundle, at this replica's door; well formed, signed and within the limits of the chain (bundle checks). */
  | { readonly type: 'bundle'; readonly bundle: SignedBundle }
  /**
   * The guard refused to sign this pledge: it contradicts what this key has signed before, which the core has forgotten. It was not
   * said, and no vote of its view will be.
   */
  | { readonly type: 'refused'; readonly pledge: Pledge }
  /** An authenticated connection to a peer came up: what it may have missed is sent again. */
  | { readonly type: 'connected'; readonly peer: ReplicaId }
  /** It went down. A hint, never a reason to distrust anyone. */
  | { readonly type: 'disconnected'; readonly peer: ReplicaId }
  /** The lowest decided height that the log still serves; said in this replica's status. */
  | { readonly type: 'retained'; readonly lowest: Height }
  /** The guard has made it durable that this replica leads `view`: from now on it may propose there, until it restarts. */
  | { readonly type: 'leading'; readonly view: View }
  /** The operator takes this replica away soon: if it leads, another one is to lead (CFT-H-1, STALL-6). */
  | { readonly type: 'hand-over' }
  /** The guard has made it durable that nothing is signed at or below these (`readmit`): the quarantine is over. */
  | { readonly type: 'readmitted'; readonly view: View; readonly height: Height }
  /** A user at this replica asks for a read point (crash/reads.ts); answered once under this number, which its caller has not used for another that waits. */
  | { readonly type: 'read'; readonly id: number }
  /** This replica itself was held up. Said as it goes on, and each millisecond once. */
  | Stall
  /**
   * The wall clock is so far ahead of `now`, in ms; negative: behind it. Said when it changes. `now` is for timers and never leaps; the wall
   * is for the time in blocks. 0 until the first. `leftMs`: what it has been set by and is not followed in yet; it is not to be trusted meanwhile.
   */
  | { readonly type: 'wall'; readonly aheadMs: number; readonly leftMs: number };

/**
 * Loop: the event loop was held up, by a long turn, by garbage collection or by the machine; what came meanwhile was heard late. Disk: a
 * synced write took so long. `ms`: at least 1.
 */
export interface Stall {
  readonly type: 'stalled';
  readonly what: 'loop' | 'disk';
  readonly ms: number;
}

export interface Ready<Message, Pledge> {
  /** One synced write, in this order. */
  readonly records: readonly LogRecord[];
  /** The after-persist outbox: unsigned, and only the guard can sign them, after its mark. */
  readonly pledges: readonly Pledged<Pledge>[];
  /** The highest prepared certificate, when it changed. It lives in the guard's file, beside the marks, so that no lost log can hide it. */
  readonly lock: Certificate | null;
  /** Set when this replica becomes the primary of a view: the guard must remember it before the first proposal. */
  readonly lead: View | null;
  /**
   * Set once, when a replica in quarantine may vote again: the guard must abstain from these for ever, and hold the prepared certificate as it
   * holds a `lock`, before this replica says anything.
   */
  readonly readmit: { readonly view: View; readonly height: Height; readonly prepared: Certificate } | null;
  /** The at-once outbox. Its type has no place for a vote. */
  readonly send: readonly Outgoing<Exclude<Message, Pledge>>[];
  /** Signed before, by whoever signed it, and durable there: may be said again at any time, to whoever missed it. */
  readonly resend: readonly { readonly to: Audience; readonly signed: Verified<Message> }[];
  /** Newly decided blocks, by rising height without a gap. */
  readonly deliver: readonly Decided[];
  /** The verdict on each bundle given in, and on every admitted bundle that can no longer be ordered. */
  readonly admissions: readonly Admission[];
  /** Answers to `read`. What has none when the epoch ends gets none: its caller asks the next core. */
  readonly reads: readonly ReadAnswer[];
  /** What peers sent that was refused; the caller counts them and may end the connection. */
  readonly refusals: readonly Refusal[];
  /** Proofs of misbehaviour: two signed statements of one key that an honest replica never makes. */
  readonly evidence: readonly Evidence<Message>[];
  /** Things an operator wants to see as they happen. */
  readonly events: readonly CoreEvent[];
  /** The epoch has ended with the last block of `deliver` (EPO-12): null in every Ready but the last of a core. */
  readonly ended: EpochEnd | null;
  /** When `step` must be called again at the latest. */
  readonly wakeAt: Millis;
}

export interface EpochEnd {
  readonly next: EpochDocument;
  /** Proves `next` to whoever knows the epoch that has ended; its certificate is null where attest.ts puts it in. */
  readonly link: Omit<EpochLink, 'certificate'> & Pick<Decided, 'certificate'>;
  /** What waited in the pool, in order: to be given to the next core. */
  readonly waiting: readonly SignedBundle[];
}

export interface Pledged<Pledge> {
  readonly pledge: Pledge;
  /** False for the one pledge that has left already: a primary's prepare is the signature of its proposal (PBFT-PP-5). */
  readonly broadcast: boolean;
  /** Whom it is for, where it is not for all. */
  readonly to?: Audience | undefined;
}

/** Whom something is for; a list where some are to be left alone (CHP-1). It is signed once, whoever hears it. */
export type Audience = ReplicaId | 'all' | readonly ReplicaId[];

export interface Outgoing<Message> {
  readonly to: Audience;
  readonly message: Message;
}

export interface Decided {
  readonly block: Block;
  /** Null where the certificate of a block delivered later covers this one: nearly always in the same Ready; or where attest.ts puts it in. */
  readonly certificate: Certificate | null;
}

/** Stable codes; each is documented in docs/wire.md. */
export type AdmissionCode =
  | 'pooled'
  | 'known'
  | 'pool-full'
  | 'client-quota'
  | 'sequence-passed'
  | 'sequence-gap'
  | 'sequence-taken'
  | 'expired'
  | 'valid-until-too-far'
  | 'sessions-full'
  /** A control transaction in it can end this epoch in no block from here on (EPO-3). */
  | 'control-refused';

export interface Admission {
  readonly digest: Hash;
  readonly code: AdmissionCode;
}

/** Everything that was acknowledged anywhere before the read was asked stands at or below `height`, which is decided here (CFT-RP-1). */
export type ReadAnswer = { readonly id: number } & ({ readonly height: Height } | { readonly refused: ReadRefusal });

/** Stable codes; docs/operations.md says what each means. */
export type ReadRefusal = 'reads-unsupported' | 'reads-full' | 'read-unconfirmed';

export interface Refusal {
  readonly from: ReplicaId;
  /** Stable, kebab-case; one per rule of docs/spec.md that a peer can break. */
  readonly code: string;
  readonly kind: string;
}

export interface Evidence<Message> {
  readonly culprit: ReplicaId;
  readonly first: Verified<Message>;
  readonly second: Verified<Message>;
}

export type CoreEvent =
  | { readonly type: 'view-change-started'; readonly view: View; readonly reason: string }
  | { readonly type: 'view-entered'; readonly view: View; readonly primary: ReplicaId }
  /** This replica led, and gives its place to this one. */
  | { readonly type: 'handing-over'; readonly to: ReplicaId }
  | { readonly type: 'prepared'; readonly view: View; readonly height: Height }
  | { readonly type: 'checkpoint-stable'; readonly height: Height }
  /** The state of a certified checkpoint was taken from peers; `deliver` goes on above it. */
  | { readonly type: 'checkpoint-installed'; readonly height: Height }
  | { readonly type: 'catching-up'; readonly from: Height; readonly to: Height }
  | { readonly type: 'caught-up'; readonly height: Height }
  /** In quarantine: enough peers have answered; it votes again when a block above `height` is decided. */
  | { readonly type: 'quarantine-bounded'; readonly height: Height }
  /** The quarantine is over: it abstains from this view and height, and from all below. */
  | { readonly type: 'readmitted'; readonly view: View; readonly height: Height };

/** Where a replica stands and what it waits for, in data; daemon/why/ makes a diagnosis and words from it. */
export interface Explanation {
  /** When the core last took a step: ages are counted from here. */
  readonly at: Millis;
  readonly epoch: Epoch;
  readonly view: View;
  readonly primary: ReplicaId;
  readonly self: ReplicaId;
  readonly phase: (typeof phases)[number];
  readonly height: Height;
  readonly hash: Hash;
  readonly stable: Height;
  /** The highest height that a certificate proves, or that more peers claim than can all be lying. */
  readonly highestSeen: Height;
  readonly pool: { readonly bundles: number; readonly bytes: number };
  /** Blocks accepted and not yet decided. */
  readonly inFlight: number;
  readonly waits: readonly Wait[];
  /** View changes begun since the start. */
  readonly viewChanges: number;
  /** The view timeout with its back-off, and without. */
  readonly timeoutMs: number;
  readonly baseTimeoutMs: number;
  /** How many replicas make a quorum, and how many blocks may be in flight. */
  readonly quorum: number;
  readonly window: number;
  /** What a replica asks for that is behind others; null: nothing. Usually others are ahead by a block for a moment only. */
  readonly catchUp: CatchUpView | null;
  /** The next proposal waits, for its time is too far from this replica's clock: by so much, in ms; negative: behind it. */
  readonly clock: { readonly height: Height; readonly offMs: number } | null;
  /** How fast the primary works; null where this replica is the primary, or between views. */
  readonly pace: PaceView | null;
  readonly stalls: StallsView;
  /** All other replicas, by rising id. */
  readonly peers: readonly PeerView[];
}

export interface PaceView {
  /** Of the time of this view in which something was owed or in flight: the share in which the primary was not late. 0 to 100. */
  readonly percent: number;
  /** How late it has been, in ms, less what was forgiven; and with how much it is given up. */
  readonly lateMs: number;
  readonly lateMsMax: number;
  /** How long it may take to propose what it was given, in ms. */
  readonly allowedMs: number;
  /** From acceptance to decision, on average, in ms; null: not measured yet. */
  readonly roundMs: number | null;
  /** Since when a bundle waits that it could propose, as of the last step; null: none does. */
  readonly owedSince: Millis | null;
}

/** What this replica itself was held up by. */
export interface StallsView {
  /** In this view, in ms, less what was forgotten; and with how much a primary hands over. */
  readonly ms: number;
  readonly msMax: number;
  /** The last of each kind: when it ended, and how long it was; null: none in this life. */
  readonly loop: { readonly at: Millis; readonly ms: number } | null;
  readonly disk: { readonly at: Millis; readonly ms: number } | null;
  /** In all, of this life, in ms. */
  readonly loopMs: number;
  readonly diskMs: number;
}

export interface CatchUpView {
  /** When it last gained a block or a piece of the state, or fell behind. */
  readonly since: Millis;
  readonly what: 'blocks' | 'checkpoint' | 'state';
  /** Who was asked and has not answered yet. */
  readonly asked: readonly ReplicaId[];
  /** Who answered nothing of use, and is left out for a while. */
  readonly passedOver: readonly ReplicaId[];
  /** Of the state at a checkpoint, how many chunks are here. */
  readonly chunks: { readonly have: number; readonly need: number } | null;
}

/** What a replica may be at, and wait for: lists, since metrics have a series for each and a reader from outside takes no others. */
export const phases = ['idle', 'ordering', 'view-change', 'catching-up', 'quarantine'] as const;
export const waitKinds = [
  'pre-prepare',
  'prepare',
  'commit',
  'view-change',
  'new-view',
  'block',
  'checkpoint',
  'heartbeat',
  /** This replica's own mark that it leads the view. */
  'lead',
  /** In quarantine: answers of peers, then a block at this height that a quorum of others has prepared and decided. */
  'standing',
  'readmission',
  /** Where members are trusted. It hears no leader: how many say so, as a majority must before anyone runs. */
  'leader',
  /** It runs: what a proposer of Paxos needs to lead its ballot, and a candidate of Raft its term. */
  'promise',
  'vote',
  /** Basic Paxos: promises for one slot, for nobody leads. */
  'phase-1',
  /** Cheap Paxos, of a leader: its working set is not noted by all who must before anything new is ordered (CHP-3). */
  'noted',
  /** Cheap Paxos: a majority promises, and no member of the latest working set, one of which must (CHP-2). */
  'working-set',
] as const;

/** One thing that is being waited for. */
export interface Wait {
  readonly what: (typeof waitKinds)[number];
  readonly height: Height;
  readonly view: View;
  readonly have: number;
  readonly need: number;
  /** Who has not said what is missing. This replica itself: its vote waits for its own disk. */
  readonly missing: readonly ReplicaId[];
  readonly since: Millis;
}

export interface PeerView {
  readonly replica: ReplicaId;
  readonly connected: boolean;
  /** As its last status said; 0 before the first. */
  readonly height: Height;
  readonly view: View;
  /** When this replica last heard from it, and what; null: never. */
  readonly heardAt: Millis | null;
  readonly heard: string | null;
}

/** How far a height has come, at this replica and in its view. */
export interface HeightExplanation {
  readonly height: Height;
  /**
   * Committed: a commit certificate covers it, and the block, or one below it, is not here. Pruned: decided, and its block is kept no more.
   * Of what is decided the log has more to say: the core keeps neither its hash nor its votes.
   */
  readonly stage: 'unknown' | 'proposed' | 'prepared' | 'committed' | 'decided' | 'pruned';
  readonly view: View;
  /** What was proposed or voted for at this height; more than one only where a replica is faulty. Empty once it is decided. */
  readonly candidates: readonly Candidate[];
}

export interface Candidate {
  readonly hash: Hash;
  /** The block is here, and part of the chain that this replica votes for. */
  readonly accepted: boolean;
  /** Null: only votes for it are here. */
  readonly block: { readonly proposer: ReplicaId; readonly bundles: number; readonly transactions: number } | null;
  /** Who has voted for it, by rising id, the primary's proposal included. */
  readonly prepares: readonly ReplicaId[];
  readonly commits: readonly ReplicaId[];
  /** When this replica accepted it, and when it saw it prepared; null: not yet. */
  readonly acceptedAt: Millis | null;
  readonly preparedAt: Millis | null;
}

/** Where a bundle stands above the decided blocks. */
export interface BundleExplanation {
  /** Its own digest, also where it was asked for by a transaction's; null: unknown here. */
  readonly digest: Hash | null;
  /** Its place in the bundle, where it was asked for by a transaction's digest. */
  readonly transaction: number | null;
  /** The undecided block that holds it. */
  readonly height: Height | null;
  readonly pool: Pooled | null;
}

export interface Pooled {
  readonly since: Millis;
  /** Bundles that came before it and wait as well. */
  readonly ahead: number;
  readonly session: number;
  readonly sequence: number;
  /** What its session needs next: a lower sequence is waited for first. */
  readonly nextSequence: number;
  readonly validUntil: Height;
  /** When it was last handed on to the primary; null: never, or this replica is the primary. */
  readonly forwardedAt: Millis | null;
}
