// State transfer (PBFT-CU-3): a core that takes a checkpoint from its peers, chunk by chunk (protocol/transfer.ts), and a replica that gives
// one from its log (daemon/serve.ts). Whole clusters do it in rules-cluster.test.ts.

import t from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash, verifyInclusion } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import { Server } from '../daemon/serve.ts';
import type { Block } from '../protocol/block.ts';
import {
  encodeBody,
  encodeCertificate,
  encodeCheckpointCertificate,
  encodeCheckpointPlace,
} from '../protocol/codec.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger, STATE_CHUNKS } from '../protocol/ledger.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { CheckpointPlace, CheckpointProof, StateChunk, Status } from '../protocol/messages.ts';
import { asHeight, asReplicaId } from '../protocol/types.ts';
import { openLogStore } from '../storage/log-store.ts';
import { MemoryDisk } from '../storage/memory.ts';
import {
  altered,
  codes,
  epoch,
  heard,
  history,
  type Out,
  Solo,
  type Step,
  sentKinds,
  signatureOf,
  small,
  T,
  text,
} from './solo.ts';

t.setTimeout(200_000);

/** The state at a checkpoint, as whoever has it gives it. */
class Snapshot {
  readonly place: CheckpointPlace;
  readonly block: Block;
  /** What this checkpoint changed. */
  readonly changed: readonly { readonly chunk: number; readonly bytes: Bytes }[];
  readonly #chunks: ReadonlyMap<number, Bytes>;
  readonly #leaves: readonly Bytes[];

  constructor(source: Ledger, block: Block, before: Snapshot | undefined) {
    const { stateDigest, logRoot, changed } = source.checkpoint();
    const { height } = block.header;
    this.block = block;
    this.place = { epoch, height, hash: block.hash, logRoot, memberSetHash: source.memberSetHash, stateDigest };
    this.changed = changed;
    this.#chunks = new Map([
      ...(before === undefined ? [] : before.#chunks),
      ...changed.map(({ chunk, bytes }) => [chunk, Uint8Array.from(bytes)] as const),
    ]);
    this.#leaves = Array.from({ length: STATE_CHUNKS }, (_, chunk) => leafHash(native.sha256, this.bytesOf(chunk)));
  }

  bytesOf(chunk: number): Bytes {
    return this.#chunks.get(chunk) ?? new Uint8Array(0);
  }

  answer(chunk: number, bytes = this.bytesOf(chunk)): StateChunk {
    const proof = inclusionProof(native.sha256, this.#leaves, chunk);
    return { kind: 'state-chunk', height: this.place.height, chunk, bytes, proof };
  }

  proof(): CheckpointProof {
    const signatures = [0, 1, 2, 3, 4].map((id) => ({ replica: asReplicaId(id), signature: signatureOf(id) }));
    return { kind: 'checkpoint-proof', checkpoint: { ...this.place, signatures }, headerBytes: this.block.headerBytes };
  }
}

/** The checkpoints of the others' first blocks, by rising height. */
function snapshotsOf(solo: Solo, blocks: readonly Block[]): Snapshot[] {
  const source = new Ledger({ sha256: native.sha256, genesis: solo.genesis, epoch });
  const snapshots: Snapshot[] = [];
  for (const block of blocks) {
    source.apply(source.extend([], block) as Extension);
    if (block.header.height % small.checkpointInterval === 0)
      snapshots.push(new Snapshot(source, block, snapshots.at(-1)));
  }
  return snapshots;
}

interface Fetch {
  readonly to: number;
  readonly chunk: number;
}
const fetchesOf = (out: Out): Fetch[] =>
  sentKinds(out, 'fetch-state').map(({ to, message }) => ({
    to: Number(to),
    chunk: (message as { chunk: number }).chunk,
  }));

t.test('PBFT-CU-3, A16: a checkpoint, chunk by chunk, past peers that withhold or lie', async (t) => {
  const solo = new Solo({ n: 7, self: 6, parameters: small }).connect();
  const snapshot = snapshotsOf(solo, history(solo, 8)).at(-1)!;
  const ahead = { height: asHeight(8), stable: asHeight(8), lowest: asHeight(9) };
  let out = solo.wait(T, { ahead });
  t.equal(sentKinds(out, 'fetch-blocks').length, 0, 'nobody serves what comes next');
  const asked = Number(solo.asked.get('fetch-checkpoint'));
  const { headerBytes } = altered(snapshot.block, { proposer: asReplicaId(1) });
  t.strictSame(
    codes(solo.hear(asked, { ...snapshot.proof(), headerBytes })),
    ['checkpoint-header-mismatch'],
    'the header is the one that is signed',
  );
  solo.wait(100, { ahead });
  const next = Number(solo.asked.get('fetch-checkpoint'));
  t.not(next, asked);
  out = solo.hear(next, snapshot.proof());

  const [liar, silent] = solo.others.filter((id) => id !== asked && id !== next);
  const requested = new Set<number>();
  let lies = 0;
  let installed = false;
  let answers = 0;
  for (let round = 0; round < 400 && !installed; round++) {
    const replies = fetchesOf(out).flatMap(({ to, chunk }): Step[] => {
      requested.add(to);
      if (to === silent) return [];
      answers += 1;
      return [heard(to, to === liar ? snapshot.answer(chunk, text('lie')) : snapshot.answer(chunk))];
    });
    out = replies.length > 0 ? solo.all(...replies) : solo.wait(T / 2, { ahead });
    lies += codes(out).filter((code) => code === 'state-chunk-proof').length;
    installed = out.events.some(({ type }) => type === 'checkpoint-installed');
  }
  t.ok(installed, `after ${answers} answers`);
  t.ok(requested.size >= 2, 'from several peers');
  t.equal(lies, 1, 'a liar wastes one chunk, and is passed over with all that it was asked for');
  const { height, hash, stable } = solo.core.explain();
  t.strictSame([height, toHex(hash), stable], [8, toHex(snapshot.place.hash), 8]);
  const reset = solo.disk.recover();
  t.equal(reset.checkpoint?.height, 8, 'and it starts from there after a restart');
  solo.decide(solo.block());
  t.equal(solo.core.explain().height, 9, 'the next block follows');
});

/** A replica that has been given a stable checkpoint and asks for its chunks. */
function transferring(): { solo: Solo; old: Snapshot; snapshot: Snapshot; ahead: Partial<Status>; fetches: Fetch[] } {
  const solo = new Solo({ n: 7, self: 6, parameters: small }).connect();
  const [old, snapshot] = snapshotsOf(solo, history(solo, 8)) as [Snapshot, Snapshot];
  const ahead = { height: asHeight(8), stable: asHeight(8), lowest: asHeight(9) };
  solo.wait(T, { ahead });
  const out = solo.hear(Number(solo.asked.get('fetch-checkpoint')), snapshot.proof());
  return { solo, old, snapshot, ahead, fetches: fetchesOf(out) };
}

t.test('PBFT-CU-3, A16: a liar costs one chunk, and what else it was asked for is asked of others', async (t) => {
  const { solo, snapshot, ahead, fetches } = transferring();
  const owed = (peer: number) => fetches.filter(({ to }) => to === peer).map(({ chunk }) => chunk);
  const liar = fetches[0]!.to;
  t.ok(owed(liar).length > 1, 'several of its answers are under way');
  const out = solo.all(...owed(liar).map((chunk) => heard(liar, snapshot.answer(chunk, text('lie')))));
  t.strictSame(codes(out), ['state-chunk-proof'], 'the first is refused, the others are not even looked at');
  const again = fetchesOf(out);
  t.strictSame(again.map(({ chunk }) => chunk).sort(), [...owed(liar)].sort(), 'at once');
  t.notOk(again.some(({ to }) => to === liar));
  const [chunk] = owed(liar);
  t.notOk(solo.core.wants(snapshot.answer(chunk!), asReplicaId(liar)), 'nor would the truth be, from it');

  // The others answer in their own time: the liar is not asked again for a while.
  const open = [...fetches.filter(({ to }) => to !== liar), ...again];
  const asked: Fetch[] = [];
  for (let waited = 0; waited < 3 * T && open.length > 0; waited += T / 4) {
    const { to, chunk } = open.shift()!;
    const more = fetchesOf(solo.hear(to, snapshot.answer(chunk)));
    asked.push(...more, ...fetchesOf(solo.wait(T / 4, { ahead })));
  }
  t.ok(asked.length > 0);
  t.notOk(asked.some(({ to }) => to === liar));
});

t.test(
  'PBFT-CU-3: a chunk counts from whom it was asked, of the checkpoint that was asked for, with its own proof',
  async (t) => {
    const { solo, old, snapshot, fetches } = transferring();
    const { to, chunk } = fetches.find((fetch) => fetch.chunk === 0)!;
    const other = fetches.find((fetch) => fetch.to !== to)!;
    for (const [what, from, answer] of [
      ['an older checkpoint', to, old.answer(chunk)],
      ['the right chunk from another peer', other.to, snapshot.answer(chunk)],
      ['a chunk that nobody was asked for', to, snapshot.answer(STATE_CHUNKS - 1)],
    ] as const) {
      const out = solo.hear(from, answer);
      t.strictSame([codes(out), fetchesOf(out)], [[], []], what);
    }
    const out = solo.hear(to, snapshot.answer(chunk));
    t.equal(fetchesOf(out).length, 1, 'still awaited; with its answer the next one is asked for');
    t.notOk(fetchesOf(out).some((fetch) => fetch.chunk === chunk));
    const { proof } = snapshot.answer(chunk);
    t.strictSame(
      codes(solo.hear(other.to, { ...snapshot.answer(other.chunk), proof })),
      ['state-chunk-proof'],
      'right bytes under the proof of another chunk',
    );
  },
);

t.test('PBFT-CU-3: a replica serves the state of a stable checkpoint, and nothing that does not prove', async (t) => {
  const solo = new Solo({ parameters: small });
  const blocks = history(solo, 16);
  const snapshots = snapshotsOf(solo, blocks);
  const { log } = await openLogStore(new MemoryDisk().open(), {
    sha256: native.sha256,
    chainId: solo.genesis.chainId,
    floor: null,
    retainBlocks: 'all',
  });
  const wire = { sha256: native.sha256, parameters: solo.genesis.parameters };
  const server = new Server({ log, sha256: native.sha256, wire });
  const fetch = async (height: number, chunk: number) => {
    const answer = await server.answer({ kind: 'fetch-state', height: asHeight(height), chunk });
    if (answer !== null && answer.kind !== 'state-chunk') throw new Error(answer.kind);
    return answer;
  };
  /** Chunks that are served; each of them must prove, with the bytes that stood there at that height. */
  const served = async (snapshot: Snapshot): Promise<number[]> => {
    const { height, stateDigest: root } = snapshot.place;
    const given: number[] = [];
    for (let chunk = 0; chunk < STATE_CHUNKS; chunk++) {
      const answer = await fetch(height, chunk);
      if (answer === null) continue;
      const { bytes, proof } = answer;
      const leaf = leafHash(native.sha256, bytes);
      const proves = verifyInclusion({ sha256: native.sha256, leaf, index: chunk, size: STATE_CHUNKS, proof, root });
      if (!proves || !equalBytes(bytes, snapshot.bytesOf(chunk))) t.fail(`chunk ${chunk} at ${height} does not prove`);
      given.push(chunk);
    }
    return given;
  };
  const all = Array.from({ length: STATE_CHUNKS }, (_, chunk) => chunk);
  const write = async (snapshot: Snapshot, place = snapshot.place): Promise<void> => {
    const { height } = place;
    const records: LogRecord[] = [];
    for (const block of blocks.slice(height - 4, height)) {
      const { hash, bundles, headerBytes } = block;
      const at = block.header.height;
      records.push({ type: 'block', height: at, hash, bytes: { header: headerBytes, body: encodeBody(bundles) } });
      const certificate = encodeCertificate(solo.certificate('commit', block));
      records.push({ type: 'decided', height: at, hash, certificate, bundles: bundles.map(({ digest }) => digest) });
    }
    for (const { chunk, bytes } of snapshot.changed) records.push({ type: 'state-chunk', height, chunk, bytes });
    records.push({ type: 'checkpoint', height, place: encodeCheckpointPlace(place), certificate: null });
    await log.write(records);
  };
  const stabilise = async (snapshot: Snapshot, place = snapshot.place): Promise<void> => {
    const { checkpoint } = snapshot.proof();
    const certificate = encodeCheckpointCertificate({ ...checkpoint, ...place });
    const record = {
      type: 'checkpoint',
      height: place.height,
      place: encodeCheckpointPlace(place),
      certificate,
    } as const;
    await log.write([record]);
  };

  const [first, second, third, fourth] = snapshots as [Snapshot, Snapshot, Snapshot, Snapshot];
  await write(first);
  t.strictSame(await served(first), [], 'not before a quorum has signed for it');
  await stabilise(first);
  t.strictSame(await served(first), all);
  for (const [height, chunk] of [
    [4, STATE_CHUNKS],
    [4, 2 ** 32 - 1],
    [3, 0],
    [8, 0],
  ] as const)
    t.equal(await fetch(height, chunk), null, `chunk ${chunk} at ${height}`);

  // Whoever began with the first may go on while the next ones come: it is given what is still there, and never a later state.
  await write(second);
  t.strictSame(await served(first), all, 'while the second is written');
  await stabilise(second);
  t.strictSame([await served(first), await served(second)], [all, all], 'the last two are whole');
  await write(third);
  await stabilise(third);
  // The server has the first one's hashes still, the log no longer its chunks.
  const rest = await served(first);
  t.notOk(
    first.changed.some(({ chunk, bytes }) => bytes.length > 0 && rest.includes(chunk)),
    'of the first nothing is left that it wrote',
  );
  t.strictSame([await served(second), await served(third)], [all, all]);

  // A state that is not what was signed: this replica's disk or memory is wrong, and it tells nobody.
  const forged = { ...fourth.place, stateDigest: third.place.stateDigest };
  await write(fourth, forged);
  await stabilise(fourth, forged);
  t.strictSame(await served(fourth), []);
  await log.close();
});
