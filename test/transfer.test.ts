// State transfer (PBFT-CU-3): a core that takes a checkpoint from its peers, chunk by chunk (protocol/transfer.ts), and a replica that gives
// one from its log (daemon/serve.ts). Whole clusters do it in rules-cluster.test.ts.

import t from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger, STATE_CHUNKS } from '../protocol/ledger.ts';
import type { CheckpointPlace } from '../protocol/messages.ts';
import { asHeight, asReplicaId } from '../protocol/types.ts';
import {
  altered,
  codes,
  epoch,
  heard,
  history,
  Solo,
  type Step,
  sentKinds,
  signatureOf,
  small,
  T,
  text,
} from './solo.ts';

t.setTimeout(200_000);

t.test('PBFT-CU-3, A16: a checkpoint, chunk by chunk, past peers that withhold or lie', async (t) => {
  const solo = new Solo({ n: 7, self: 6, parameters: small }).connect();
  const source = new Ledger({ sha256: native.sha256, genesis: solo.genesis, epoch });
  const chunks = new Map<number, Bytes>();
  let place: CheckpointPlace | undefined;
  for (const block of history(solo, 8)) {
    source.apply(source.extend([], block) as Extension);
    if (block.header.height % 4 !== 0) continue;
    const { stateDigest, logRoot, changed } = source.checkpoint();
    for (const { chunk, bytes } of changed) chunks.set(chunk, bytes);
    const { height } = block.header;
    place = { epoch, height, hash: block.hash, logRoot, memberSetHash: source.memberSetHash, stateDigest };
  }
  const { headerBytes } = solo.chain[7]!.block;
  const signatures = [0, 1, 2, 3, 4].map((id) => ({ replica: asReplicaId(id), signature: signatureOf(id) }));
  const checkpoint = { ...place!, signatures };
  const bytesOf = (chunk: number) => chunks.get(chunk) ?? new Uint8Array(0);
  const leaves = Array.from({ length: STATE_CHUNKS }, (_, chunk) => leafHash(native.sha256, bytesOf(chunk)));
  const proofOf = (chunk: number) => inclusionProof(native.sha256, leaves, chunk);

  const ahead = { height: asHeight(8), stable: asHeight(8), lowest: asHeight(9) };
  let out = solo.wait(T, { ahead });
  t.equal(sentKinds(out, 'fetch-blocks').length, 0, 'nobody serves what comes next');
  const asked = Number(solo.asked.get('fetch-checkpoint'));
  t.strictSame(
    codes(
      solo.hear(asked, {
        kind: 'checkpoint-proof',
        checkpoint,
        headerBytes: altered(solo.chain[7]!.block, { proposer: asReplicaId(1) }).headerBytes,
      }),
    ),
    ['checkpoint-header-mismatch'],
    'the header is the one that is signed',
  );
  solo.wait(100, { ahead });
  const next = Number(solo.asked.get('fetch-checkpoint'));
  t.not(next, asked);
  out = solo.hear(next, { kind: 'checkpoint-proof', checkpoint, headerBytes });

  const [liar, silent] = solo.others.filter((id) => id !== asked && id !== next);
  const requested = new Set<number>();
  let lies = 0;
  let installed = false;
  let answers = 0;
  for (let round = 0; round < 400 && !installed; round++) {
    const fetches = sentKinds(out, 'fetch-state').map(({ to, message }) => ({
      to: Number(to),
      chunk: (message as { chunk: number }).chunk,
    }));
    const replies = fetches.flatMap(({ to, chunk }): Step[] => {
      requested.add(to);
      if (to === silent) return [];
      answers += 1;
      const bytes = to === liar ? text('lie') : bytesOf(chunk);
      return [heard(to, { kind: 'state-chunk', height: asHeight(8), chunk, bytes, proof: proofOf(chunk) })];
    });
    out = replies.length > 0 ? solo.all(...replies) : solo.wait(T / 2, { ahead });
    lies += codes(out).filter((code) => code === 'state-chunk-proof').length;
    installed = out.events.some(({ type }) => type === 'checkpoint-installed');
  }
  t.ok(installed, `after ${answers} answers`);
  t.ok(requested.size >= 2, 'from several peers');
  t.ok(lies > 0 && lies <= 16, `a liar is passed over: ${lies} chunks wasted, those under way`);
  const { height, hash, stable } = solo.core.explain();
  t.strictSame([height, toHex(hash), stable], [8, toHex(place!.hash), 8]);
  const reset = solo.disk.recover();
  t.equal(reset.checkpoint?.height, 8, 'and it starts from there after a restart');
  solo.decide(solo.block());
  t.equal(solo.core.explain().height, 9, 'the next block follows');
});
