// A core by hand for the tests of rules: one replica whose peers say what the test says, in steps that the test counts.

import { native } from '../crypto/native.ts';
import type { Block, BlockHeader } from '../protocol/block.ts';
import { blockHash, encodeHeader } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate, VotePhase } from '../protocol/certificate.ts';
import { encodePayload } from '../protocol/codec.ts';
import type { Audience, Input, Ready } from '../protocol/core.ts';
import type { GenesisDocument } from '../protocol/genesis.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger } from '../protocol/ledger.ts';
import type {
  NewView,
  PbftMessage,
  PbftPledge,
  PrePrepare,
  Status,
  Verified,
  ViewChange,
  Vote,
} from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { PbftRecovery } from '../protocol/pbft/pbft.ts';
import { Pbft } from '../protocol/pbft/pbft.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { SimDisk } from '../sim/disk.ts';
import { settingOf } from '../sim/setting.ts';

export const text = (value: string) => Buffer.from(value);
export const epoch = asEpoch(0);
export const T = 500;

export type Step = Input<PbftMessage, PbftPledge>;
export type Out = Ready<PbftMessage, PbftPledge>;
type PledgeOf<K> = K extends Vote['kind'] ? Vote : Extract<PbftPledge, { kind: K }>;

export const signatureOf = (id: number) => new Uint8Array(64).fill(id + 1);
export const said = <M extends PbftMessage>(sender: number, message: M): Verified<M> =>
  asVerified({
    sender: asReplicaId(sender),
    message,
    payload: encodePayload(message),
    signature: signatureOf(sender),
  });
export const heard = (sender: number, message: PbftMessage): Step => ({
  type: 'message',
  signed: said(sender, message),
});

/** One core. Its peers say what the test says; its own pledges come back at once unless the test holds them back. */
export class Solo {
  readonly genesis;
  readonly self: number;
  readonly core: Pbft;
  readonly quorum: number;
  /** What the chain looks like to the others: builds the blocks they propose. */
  readonly ledger: Ledger;
  readonly chain: Extension[] = [];
  readonly client: SimClient;
  now = 1_700_000_000_000;
  /** Everything this replica ever pledged, in order. */
  readonly pledged: PbftPledge[] = [];
  /** Whom it last asked, by what it asked. */
  readonly asked = new Map<PbftMessage['kind'], Audience>();
  /** What the core remembers of all it has been told to write. */
  readonly disk = new SimDisk();

  constructor({
    n = 4,
    self = 3,
    parameters = {},
    recovery = { log: null, guard: { view: asView(0), led: null, lock: null } },
    now,
  }: {
    n?: number;
    self?: number;
    parameters?: GenesisDocument['parameters'];
    recovery?: PbftRecovery;
    now?: number;
  } = {}) {
    this.genesis = settingOf(n, parameters).genesis;
    this.self = self;
    this.now = now ?? this.now;
    this.quorum = byzantineQuorums(n).quorum;
    this.client = new SimClient(this.genesis, 'alice');
    this.ledger = new Ledger({ sha256: native.sha256, genesis: this.genesis, epoch });
    this.core = new Pbft(
      { genesis: this.genesis, epoch, self: asReplicaId(self), sha256: native.sha256 },
      recovery,
      asMillis(this.now),
    );
  }

  get others(): number[] {
    return this.genesis.members.map(({ id }) => Number(id)).filter((id) => id !== this.self);
  }

  connect(peers = this.others): this {
    this.all(...peers.map((peer): Step => ({ type: 'connected', peer: asReplicaId(peer) })));
    return this;
  }

  /** One step; pledges are written down and not given back. */
  step(...inputs: Step[]): Out {
    const out = this.core.step(inputs, asMillis(this.now));
    this.pledged.push(...out.pledges.map(({ pledge }) => pledge));
    for (const { to, message } of out.send) this.asked.set(message.kind, to);
    this.disk.write(out.records);
    return out;
  }

  /** Steps until nothing follows any more, as a machine with instant disks would. */
  all(...inputs: Step[]): Out {
    let all: Out | undefined;
    for (let next: Step[] = inputs; all === undefined || next.length > 0; ) {
      const out = this.step(...next);
      next = out.pledges.map(({ pledge }): Step => ({ type: 'own', signed: said(this.self, pledge) }));
      if (out.lead !== null) next.unshift({ type: 'leading', view: out.lead });
      all = all === undefined ? out : join(all, out);
    }
    return all;
  }

  hear(sender: number, message: PbftMessage): Out {
    return this.all(heard(sender, message));
  }

  /** Time passes in heartbeats; those who are alive say so. */
  wait(ms: number, { alive = this.others, ahead = {} }: { alive?: number[]; ahead?: Partial<Status> } = {}): Out {
    let all = this.all();
    const end = this.now + ms;
    while (this.now < end) {
      this.now = Math.min(end, this.now + 50);
      all = join(all, this.all(...alive.map((id) => heard(id, this.status(ahead)))));
    }
    return all;
  }

  status(more: Partial<Status> = {}): Status {
    const { view, height, hash, stable } = this.core.explain();
    return { kind: 'status', epoch, view, active: true, height, hash, stable, lowest: asHeight(1), ...more };
  }

  /** The next block of the others' chain. */
  block({
    bundles = [this.client.bundle([text('x')])],
    proposer = 0,
    time = this.now,
  }: {
    bundles?: SignedBundle[];
    proposer?: number;
    time?: number;
  } = {}): Block {
    const extension = this.ledger.build(this.chain, {
      bundles,
      time: asMillis(time),
      proposer: asReplicaId(proposer),
    });
    if (extension === null) throw new Error('none of these bundles may stand there');
    this.chain.push(extension);
    return extension.block;
  }

  pledgesOf<K extends PbftPledge['kind']>(kind: K): PledgeOf<K>[] {
    return this.pledged.filter((pledge) => pledge.kind === kind) as PledgeOf<K>[]; // as its kind says
  }

  prepares(): string[] {
    return this.pledgesOf('prepare').map((vote) => `${vote.view}/${vote.height}`);
  }

  commits(): string[] {
    return this.pledgesOf('commit').map((vote) => `${vote.view}/${vote.height}`);
  }

  /** Everybody votes as they should until this block is decided. */
  decide(block: Block, view = 0): Out {
    const from = this.others;
    const primary = view % this.genesis.members.length;
    return this.all(
      ...(primary === this.self ? [] : [heard(primary, proposal(block, view))]),
      ...from.filter((id) => id !== primary).map((id) => heard(id, vote('prepare', block, view))),
      ...from.map((id) => heard(id, vote('commit', block, view))),
    );
  }

  certificate(phase: VotePhase, block: Block, view = 0, by = [0, 1, 2, 3, 4, 5, 6].slice(0, this.quorum)): Certificate {
    const { height } = block.header;
    const signatures = by.map((id) => ({ replica: asReplicaId(id), signature: signatureOf(id) }));
    return { phase, epoch, view: asView(view), height, hash: block.hash, signatures };
  }

  /** A quorum of view-changes, the first ones with what they hold. */
  newView(view: number, holding: Partial<Pick<ViewChange, 'commit' | 'prepared'>>[] = []): NewView {
    const viewChanges = Array.from({ length: this.quorum }, (_, id) => said(id, viewChange(view, holding[id])));
    return { kind: 'new-view', epoch, view: asView(view), viewChanges };
  }

  get view(): string {
    const { view, phase } = this.core.explain();
    return `${view}${phase === 'view-change' ? '?' : ''}`;
  }
}

export function join(a: Out, b: Out): Out {
  return {
    records: [...a.records, ...b.records],
    pledges: [...a.pledges, ...b.pledges],
    lock: b.lock ?? a.lock,
    lead: b.lead ?? a.lead,
    ended: b.ended ?? a.ended,
    readmit: b.readmit ?? a.readmit,
    send: [...a.send, ...b.send],
    resend: [...a.resend, ...b.resend],
    deliver: [...a.deliver, ...b.deliver],
    admissions: [...a.admissions, ...b.admissions],
    reads: [...a.reads, ...b.reads],
    refusals: [...a.refusals, ...b.refusals],
    evidence: [...a.evidence, ...b.evidence],
    events: [...a.events, ...b.events],
    wakeAt: b.wakeAt,
  };
}

export const proposal = (block: Block, view = 0): PrePrepare => ({
  kind: 'pre-prepare',
  epoch,
  view: asView(view),
  block,
});
export const vote = (kind: VotePhase, block: Block, view = 0): Vote => ({
  kind,
  epoch,
  view: asView(view),
  height: block.header.height,
  hash: block.hash,
});
export const viewChange = (
  view: number,
  { commit = null, prepared = null }: Partial<Pick<ViewChange, 'commit' | 'prepared'>> = {},
): ViewChange => ({ kind: 'view-change', epoch, view: asView(view), commit, prepared });
export const codes = (out: Out) => out.refusals.map(({ code }) => code);
export const sentKinds = (out: Out, kind: PbftMessage['kind']) =>
  out.send.filter(({ message }) => message.kind === kind);
export const resentKinds = (out: Out, kind: PbftMessage['kind']) =>
  out.resend.filter(({ signed }) => signed.message.kind === kind);

/** The block with another header: what a faulty proposer would sign. */
export function altered(block: Block, changes: Partial<BlockHeader>, bundles = block.bundles): Block {
  const header = { ...block.header, ...changes };
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(native.sha256, headerBytes), bundles };
}

export const other = (byte: number) => asHash(new Uint8Array(32).fill(byte));

/** Checkpoints soon, and blocks enough to see them. */
export const small = { checkpointInterval: 4, window: 2 };

/** The next blocks of the others' chain. */
export function history(solo: Solo, count: number): Block[] {
  return Array.from({ length: count }, () => solo.block());
}
