// What ledgers believe: certificates, messages, chains, receipts, checkpoint notes. The sound ones pass, and each single change to
// one of them is refused with the code of the rule that it breaks.

import t from 'tap';
import { type Bytes, concat, equalBytes, toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash, rangeProof } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import { portable } from '../crypto/portable.ts';
import { decodeHeader, HEADER_BYTES } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type { FollowedBlock } from '../protocol/door.ts';
import { goesOn } from '../protocol/epoch/begin.ts';
import type { ReplicaMessage, Signed } from '../protocol/messages.ts';
import type { Protocol } from '../protocol/modes.ts';
import { asEpoch, asHash, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import {
  type ChainOptions,
  ChainVerifier,
  checkpointSigningText,
  exportCheckpointNote,
  importCheckpointNote,
  memberVerifierKey,
  openFrame,
  parseReceipt,
  type Seen,
  SeenSignatures,
  signingBytes,
  transactionReceipt,
  type VerifyContext,
  verifyCertificate,
  verifyCheckpoint,
  verifyClientFrame,
  verifyDecided,
  verifyFrame,
  verifyMessage,
  verifyReceipt,
  verifyTransactionReceipt,
} from '../protocol/verify.ts';
import type { Frame } from '../protocol/wire/frame.ts';
import { inclusionFromRange } from '../protocol/wire/inclusion.ts';
import { fc } from './property.ts';
import * as fx from './wire-fixtures.ts';

const context = fx.verifyContext;
const blocks = fx.chain(6);
const [b1, b2, b3] = blocks as [(typeof blocks)[0] & object, (typeof blocks)[0] & object, (typeof blocks)[0] & object];
const codeOf = (result: object | null) => (result !== null && 'refused' in result ? String(result.refused) : 'ok');

/** Every copy of the value with one leaf changed by a little, and the path of that leaf. */
function* singleChanges(value: unknown, path = ''): Generator<readonly [path: string, changed: unknown]> {
  if (value instanceof Uint8Array) {
    for (const i of new Set([0, value.length >> 1, value.length - 1])) {
      if (value.length === 0) continue;
      const copy = Uint8Array.from(value);
      copy[i]! ^= 1;
      yield [`${path}[${i}]`, copy];
    }
    yield [`${path} cut`, value.slice(1)];
  } else if (typeof value === 'number') {
    yield [`${path} + 1`, value + 1];
    if (value > 0) yield [`${path} - 1`, value - 1];
  } else if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) {
      for (const [where, changed] of singleChanges(item, `${path}.${i}`)) yield [where, value.with(i, changed)];
      yield [`${path} without ${i}`, value.toSpliced(i, 1)];
      yield [`${path} with ${i} twice`, value.toSpliced(i, 0, item)];
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value))
      for (const [where, changed] of singleChanges(inner, `${path}.${key}`))
        yield [where, { ...value, [key]: changed }];
  }
}

// ---- certificates -----------------------------------------------------------------------------------------------------

t.test('WIRE-17: certificates', async (t) => {
  const good = fx.certificate(b1, 'commit', 3);
  for (const crypto of [native, portable]) t.equal(verifyCertificate(good, { ...context, crypto }), null, crypto.name);
  t.equal(verifyCertificate(fx.certificate(b1, 'commit', 3, [0, 1, 2, 3]), context), null, 'more than a quorum');
  const refused = (certificate: Certificate) => codeOf(verifyCertificate(certificate, context));
  t.equal(refused(fx.certificate(b1, 'commit', 3, [0, 1])), 'certificate-below-quorum');
  t.equal(refused({ ...good, signatures: [] }), 'certificate-below-quorum');
  t.equal(refused(fx.certificate(b1, 'commit', 3, [0, 0, 1])), 'certificate-order', 'one replica twice');
  t.equal(refused(fx.certificate(b1, 'commit', 3, [1, 0, 2])), 'certificate-order');
  const [s0, s1, s3] = good.signatures as [
    Certificate['signatures'][0] & object,
    Certificate['signatures'][0] & object,
    Certificate['signatures'][0] & object,
  ];
  const unknown = { ...s3, replica: asReplicaId(4) };
  t.equal(refused({ ...good, signatures: [s0, s1, unknown] }), 'certificate-signer-unknown');
  t.equal(
    refused({ ...good, signatures: [s0, s1, { ...s3, replica: asReplicaId(2) }] }),
    'certificate-signature',
    'under another name',
  );
  t.equal(refused({ ...good, epoch: asEpoch(1) }), 'certificate-epoch');
  t.equal(refused({ ...good, phase: 'prepare' }), 'certificate-signature', 'a commit is no prepare');
  t.equal(
    codeOf(verifyCertificate(good, { ...context, chainId: fx.hashOf(1) })),
    'certificate-signature',
    'another chain',
  );
  for (const [path, changed] of singleChanges(good)) t.not(refused(changed as Certificate), 'ok', `${path} is refused`);
  const checkpoint = fx.checkpoint(b1);
  t.equal(verifyCheckpoint(checkpoint, context), null);
  t.equal(refused({ ...good, hash: asHash(new Uint8Array(31)) }), 'certificate-malformed');
  t.equal(refused({ ...good, height: asHeight(-1) }), 'certificate-malformed');
  for (const [path, changed] of singleChanges(checkpoint)) {
    t.not(codeOf(verifyCheckpoint(changed as typeof checkpoint, context)), 'ok', `${path} is refused`);
  }
});

t.test('WIRE-17: a signature that was checked is not checked again, and no other passes for it', async (t) => {
  let calls = 0;
  const crypto = {
    ...native,
    verify: (key: Bytes, message: Bytes, signature: Bytes) => {
      calls += 1;
      return native.verify(key, message, signature);
    },
  };
  const seen: Seen = new SeenSignatures(64);
  const once = { ...context, crypto, seen };
  const good = fx.certificate(b1);
  t.equal(verifyCertificate(good, once), null);
  t.equal(calls, 3);
  t.equal(verifyCertificate(good, once), null);
  t.equal(calls, 3, 'the second time for nothing');
  const commit = fx.signed(
    { kind: 'commit', epoch: fx.epoch, view: asView(0), height: b2.header.height, hash: b2.hash },
    1,
  );
  t.equal(codeOf(verifyMessage(commit, once)), 'ok');
  t.equal(calls, 4);
  t.equal(verifyCertificate(fx.certificate(b2), once), null);
  t.equal(calls, 6, 'a vote that came alone counts in the certificate');
  t.equal(
    codeOf(verifyCertificate({ ...good, view: asView(1) }, once)),
    'certificate-signature',
    'the same signature, other bytes',
  );
  const moved = good.signatures.map((each, i) => ({ ...each, replica: asReplicaId(i) }));
  t.equal(
    codeOf(verifyCertificate({ ...good, signatures: moved }, once)),
    'certificate-signature',
    'the same signature, another key',
  );
  const longer = good.signatures.map((each) => ({ ...each, signature: concat(each.signature, new Uint8Array(1)) }));
  t.equal(codeOf(verifyCertificate({ ...good, signatures: longer }, once)), 'certificate-signature', '65 bytes');
  const [signature] = good.signatures.map((each) => each.signature) as [Bytes];
  seen.add(fx.members[0]!.publicKey, new Uint8Array(5000), signature);
  t.notOk(seen.has(fx.members[0]!.publicKey, new Uint8Array(5000), signature), 'long messages are not kept');
  for (let i = 0; i < 500; i++)
    seen.add(
      fx.members[0]!.publicKey,
      fx.filled(i),
      fx.filled(i, 64).map((_, at) => (at === 0 ? i >> 8 : i)),
    );
  t.notOk(seen.has(fx.members[0]!.publicKey, fx.text('x'), signature));
});

// ---- messages ---------------------------------------------------------------------------------------------------------

const three = [0, 1, 2].map((i) => fx.viewChange(5, i, i === 2 ? null : b1));
function standing(changes: object = {}): ReplicaMessage {
  return {
    kind: 'standing',
    epoch: fx.epoch,
    nonce: fx.filled(9),
    commit: fx.certificate(b2),
    prepared: fx.certificate(b2, 'prepare'),
    stable: fx.checkpoint(b1),
    asked: three[1]!,
    ...changes,
  };
}
const messages: readonly ReplicaMessage[] = [
  {
    kind: 'status',
    epoch: fx.epoch,
    view: asView(1),
    active: true,
    height: asHeight(7),
    hash: fx.hashOf(1),
    stable: asHeight(0),
    lowest: asHeight(1),
  },
  { kind: 'forward', bundles: b1.bundles },
  { kind: 'fetch-blocks', from: asHeight(1), to: asHeight(9) },
  {
    kind: 'blocks',
    blocks: [
      { block: b1, certificate: null },
      { block: b2, certificate: fx.certificate(b2) },
    ],
    tail: null,
  },
  { kind: 'blocks', blocks: [], tail: null },
  { kind: 'fetch-block', height: asHeight(5), hash: fx.hashOf(2) },
  { kind: 'block-data', block: b1 },
  { kind: 'checkpoint', ...fx.placeOf(b1) },
  { kind: 'fetch-checkpoint' },
  { kind: 'checkpoint-proof', checkpoint: fx.checkpoint(b1), headerBytes: b1.headerBytes },
  { kind: 'fetch-state', height: asHeight(64), chunk: 1 },
  { kind: 'state-chunk', height: asHeight(64), chunk: 3, bytes: fx.filled(1), proof: [fx.hashOf(1)] },
  { kind: 'pre-prepare', epoch: fx.epoch, view: asView(2), block: b1 },
  { kind: 'prepare', epoch: fx.epoch, view: asView(2), height: asHeight(3), hash: fx.hashOf(4) },
  { kind: 'commit', epoch: fx.epoch, view: asView(2), height: asHeight(3), hash: fx.hashOf(4) },
  three[0]!.message,
  { kind: 'new-view', epoch: fx.epoch, view: asView(5), viewChanges: three },
  { kind: 'fetch-standing', epoch: fx.epoch, nonce: fx.filled(9) },
  standing(),
];

t.test('WIRE-18 WIRE-19: a frame is believed only from its sender, on its chain, as its kind', async (t) => {
  for (const message of messages) {
    const frame = fx.frameOf(message, fx.replicas[1]!);
    const verified = verifyFrame(frame, context);
    if ('refused' in verified) {
      t.fail(`${message.kind}: ${verified.refused} ${verified.field}`);
      continue;
    }
    t.equal(verified.sender, 1, message.kind);
    const changed = Uint8Array.from(frame.signature);
    changed[7]! ^= 1;
    t.equal(
      codeOf(verifyFrame({ ...frame, signature: changed }, context)),
      'signature-invalid',
      `${message.kind}, its signature changed`,
    );
    t.equal(
      codeOf(verifyFrame({ ...frame, sender: fx.members[2]!.publicKey }, context)),
      'signature-invalid',
      `${message.kind} in another’s name`,
    );
    t.equal(
      codeOf(verifyFrame({ ...frame, sender: fx.client.publicKey }, context)),
      'sender-unknown',
      `${message.kind} of a stranger`,
    );
    t.equal(
      codeOf(verifyFrame(frame, { ...context, chainId: fx.hashOf(5) })),
      'signature-invalid',
      `${message.kind} on another chain`,
    );
    // Every byte of the payload is under the signature, or the payload is no longer well formed.
    for (let i = 0; i < frame.payload.length; i += frame.payload.length > 600 ? 11 : 1) {
      const payload = Uint8Array.from(frame.payload);
      payload[i]! ^= 1;
      if (codeOf(verifyFrame({ ...frame, payload }, context)) === 'ok')
        t.fail(`${message.kind}: byte ${i} is not signed`);
    }
  }
  const commit = fx.frameOf(messages[14]!);
  t.equal(codeOf(verifyFrame({ ...commit, kind: 'prepare' }, context)), 'signature-invalid', 'a commit is no prepare');
  const fetch = fx.frameOf({ kind: 'fetch-state', height: asHeight(3), chunk: 5 });
  t.equal(
    codeOf(verifyFrame({ ...fetch, kind: 'fetch-blocks' }, context)),
    'signature-invalid',
    'one payload, another kind',
  );
  t.equal(codeOf(verifyFrame(fx.frameOf({ kind: 'query-head' }), context)), 'kind-not-allowed');
  t.equal(codeOf(verifyFrame({ ...commit, payload: Uint8Array.of(0xc1) }, context)), 'payload-malformed');
  const opened = openFrame({ ...commit, signature: new Uint8Array(64) }, context);
  t.notOk('refused' in opened, 'opening looks at no signature');
  const outsider: Signed<ReplicaMessage> = { ...fx.signed(messages[14]!), sender: asReplicaId(4) };
  t.equal(codeOf(verifyMessage(outsider, context)), 'sender-unknown');
  // A proposal is its primary's own prepare.
  const proposal = fx.signed({ kind: 'pre-prepare', epoch: fx.epoch, view: asView(2), block: b1 });
  const prepare = fx.signed({
    kind: 'prepare',
    epoch: fx.epoch,
    view: asView(2),
    height: b1.header.height,
    hash: b1.hash,
  });
  t.equal(toHex(proposal.signature), toHex(prepare.signature));
  t.equal(
    toHex(signingBytes(fx.chainId, fx.signed({ kind: 'checkpoint', ...fx.placeOf(b1) }).message, new Uint8Array(0))),
    toHex(fx.text(checkpointSigningText(fx.chainId, fx.placeOf(b1)))),
  );
});

t.test(
  'WIRE-18 CFT-W-2: where members are trusted a frame is its sender’s, and the bundles in it are taken from him',
  async (t) => {
    const trusted: VerifyContext = { ...context, protocol: 'multi-paxos' };
    const [good] = b1.bundles as [SignedBundle];
    const forged: SignedBundle = { ...good, signature: fx.replicas[0]!.sign(good.payload) };
    const value = fx.block([forged, fx.bundle(2, [fx.text('b')])]);
    const head = { epoch: fx.epoch, term: asView(9), prev: asHeight(2), prevTerm: asView(1), decided: asHeight(1) };
    const carriers: readonly [VerifyContext, ReplicaMessage][] = [
      [trusted, { kind: 'forward', bundles: [forged, good] }],
      [trusted, { kind: 'block-data', block: value }],
      [trusted, { kind: 'accept', epoch: fx.epoch, ballot: asView(5), value }],
      [
        { ...trusted, protocol: 'fast-paxos' },
        { kind: 'fast-accept', epoch: fx.epoch, ballot: asView(5), value },
      ],
      [
        { ...trusted, protocol: 'raft' },
        { kind: 'append-entries', ...head, entry: { term: asView(7), value } },
      ],
      [
        { ...trusted, protocol: 'raft' },
        { kind: 'append-entries', ...head, entry: null },
      ],
    ];
    for (const [who, message] of carriers) {
      const frame = fx.frameOf(message, fx.replicas[1]!);
      t.equal(codeOf(verifyFrame(frame, who)), 'ok', message.kind);
      t.equal(codeOf(verifyFrame({ ...frame, sender: fx.members[2]!.publicKey }, who)), 'signature-invalid');
      for (let i = 0; i < frame.payload.length; i += frame.payload.length > 900 ? 3 : 1) {
        const payload = Uint8Array.from(frame.payload);
        payload[i]! ^= 1;
        if (codeOf(verifyFrame({ ...frame, payload }, who)) === 'ok')
          t.fail(`${message.kind}: byte ${i} is not signed`);
      }
    }
    const submit: Frame = { kind: 'submit', payload: good.payload, sender: good.client, signature: forged.signature };
    t.equal(codeOf(verifyClientFrame(submit, trusted)), 'bundle-signature', 'from the client itself it is not');
    const passes = (bundle: SignedBundle, from: Protocol, protocol: Protocol, parameters = fx.parameters) =>
      goesOn(bundle, { from, to: { parameters, protocol, chainId: fx.chainId }, crypto: context.crypto });
    t.ok(passes(forged, 'raft', 'multi-paxos'));
    t.notOk(passes(forged, 'raft', 'pbft'), 'who may lie is shown the signature');
    t.ok(passes(good, 'raft', 'pbft'));
    t.ok(passes(forged, 'pbft', 'pbft'), 'and whoever could lie before has been shown it');
    t.notOk(passes(good, 'raft', 'raft', { ...fx.parameters, bundleBytesMax: 1 }), 'EPO-15');
  },
);

const verdict = (message: ReplicaMessage, changes: Partial<VerifyContext> = {}) =>
  codeOf(verifyMessage(fx.signed(message), { ...context, ...changes }));

t.test('WIRE-20: bundles and what clients say', async (t) => {
  const [good] = b1.bundles as [SignedBundle];
  const forged: SignedBundle = { ...good, signature: fx.replicas[0]!.sign(good.payload) };
  t.equal(verdict({ kind: 'forward', bundles: [good, forged] }), 'bundle-signature');
  const dirty = fx.block([forged]);
  t.equal(verdict({ kind: 'pre-prepare', epoch: fx.epoch, view: asView(0), block: dirty }), 'bundle-signature');
  t.equal(verdict({ kind: 'block-data', block: dirty }), 'bundle-signature');
  t.equal(
    verdict({ kind: 'forward', bundles: [forged] }, { bundleVerified: (bundle) => bundle === forged }),
    'ok',
    'the pool answers for it',
  );
  const tailed = (links: readonly (typeof b1)[], certificate: Certificate): ReplicaMessage => ({
    kind: 'blocks',
    blocks: [{ block: b1, certificate: null }],
    tail: { links: links.map((link) => link.headerBytes), certificate },
  });
  t.equal(verdict(tailed([b2, b3], fx.certificate(b3))), 'ok', 'headers up to a certified one prove what lies below');
  t.equal(verdict(tailed([], fx.certificate(b1))), 'ok');
  t.equal(verdict(tailed([b3], fx.certificate(b3))), 'chain-broken', 'a gap in the headers');
  t.equal(verdict(tailed([b2], fx.certificate(b3))), 'certificate-place');
  t.equal(verdict(tailed([b2], fx.certificate(b2, 'prepare'))), 'certificate-phase');
  t.equal(verdict(tailed([b2], fx.certificate(b2, 'commit', 0, [0, 1]))), 'certificate-below-quorum');
  const elsewhere = fx.block(b1.bundles, { chainId: fx.hashOf(5) });
  t.equal(verdict({ kind: 'pre-prepare', epoch: fx.epoch, view: asView(0), block: elsewhere }), 'chain-mismatch');

  const submit = fx.frameOf({ kind: 'submit', bundle: good }, fx.client);
  t.equal(codeOf(verifyClientFrame(submit, context)), 'ok');
  t.equal(
    codeOf(verifyClientFrame({ ...submit, sender: fx.members[0]!.publicKey }, context)),
    'sender-unknown',
    'another’s bundle under one’s own key',
  );
  t.equal(codeOf(verifyClientFrame({ ...submit, signature: new Uint8Array(64) }, context)), 'bundle-signature');
  t.equal(codeOf(verifyClientFrame(submit, { ...context, chainId: fx.hashOf(5) })), 'bundle-signature');
  const follow = fx.frameOf(
    { kind: 'follow', from: asHeight(1), to: asHeight(0), headersOnly: true, credit: 8 },
    fx.client,
  );
  t.equal(codeOf(verifyClientFrame(follow, context)), 'ok');
  t.equal(codeOf(verifyClientFrame({ ...follow, sender: fx.members[0]!.publicKey }, context)), 'signature-invalid');
  t.equal(codeOf(verifyClientFrame({ ...follow, payload: Uint8Array.of(0x90) }, context)), 'payload-malformed');
  t.equal(codeOf(verifyClientFrame(fx.frameOf(messages[0]!), context)), 'kind-not-allowed');
});

t.test('WIRE-21: decided blocks from a peer', async (t) => {
  const part = (...list: readonly (readonly [typeof b1, Certificate | null])[]): ReplicaMessage => ({
    kind: 'blocks',
    blocks: list.map(([block, certificate]) => ({ block, certificate })),
    tail: null,
  });
  t.equal(verdict(part([b1, null], [b2, null], [b3, fx.certificate(b3)])), 'ok', 'one certificate covers all below it');
  t.equal(verdict(part([b1, fx.certificate(b1)], [b2, null])), 'chain-uncertified');
  t.equal(verdict(part([b1, null], [b3, fx.certificate(b3)])), 'chain-broken', 'a gap');
  t.equal(verdict(part([b2, null], [b1, fx.certificate(b1)])), 'chain-broken');
  t.equal(
    verdict(part([fx.block(b1.bundles, { time: 5 }), null], [b2, fx.certificate(b2)])),
    'chain-broken',
    'another parent',
  );
  t.equal(verdict(part([b1, fx.certificate(b2)])), 'certificate-place');
  t.equal(verdict(part([b1, fx.certificate(b1, 'prepare')])), 'certificate-phase');
  t.equal(verdict(part([b1, fx.certificate(b1, 'commit', 0, [0, 1])])), 'certificate-below-quorum');
  t.equal(verdict(part([b1, { ...fx.certificate(b1), view: asView(1) }])), 'certificate-signature');
  const bad = { ...fx.certificate(b1), view: asView(1) };
  t.equal(
    verdict(part([b1, bad], [b2, fx.certificate(b2)])),
    'certificate-signature',
    'one that is not needed must hold too',
  );
  const tailed = (links: readonly (typeof b1)[], certificate: Certificate): ReplicaMessage => ({
    kind: 'blocks',
    blocks: [{ block: b1, certificate: null }],
    tail: { links: links.map((link) => link.headerBytes), certificate },
  });
  t.equal(verdict(tailed([b2, b3], fx.certificate(b3))), 'ok', 'headers up to a certified one prove what lies below');
  t.equal(verdict(tailed([], fx.certificate(b1))), 'ok');
  t.equal(verdict(tailed([b3], fx.certificate(b3))), 'chain-broken', 'a gap in the headers');
  t.equal(verdict(tailed([b2], fx.certificate(b3))), 'certificate-place');
  t.equal(verdict(tailed([b2], fx.certificate(b2, 'prepare'))), 'certificate-phase');
  t.equal(verdict(tailed([b2], fx.certificate(b2, 'commit', 0, [0, 1]))), 'certificate-below-quorum');
  const elsewhere = fx.block(b1.bundles, { chainId: fx.hashOf(5) });
  t.equal(verdict(part([elsewhere, fx.certificate(elsewhere)])), 'chain-mismatch');
});

t.test('WIRE-19: checkpoints from a peer', async (t) => {
  const proof = (changes: object, headerBytes = b1.headerBytes): ReplicaMessage => ({
    kind: 'checkpoint-proof',
    checkpoint: { ...fx.checkpoint(b1), ...changes },
    headerBytes,
  });
  t.equal(verdict(proof({})), 'ok');
  t.equal(verdict(proof({}, b2.headerBytes)), 'checkpoint-header');
  t.equal(verdict(proof({ height: asHeight(2) })), 'checkpoint-header');
  t.equal(verdict(proof({ logRoot: fx.hashOf(1) })), 'checkpoint-header');
  t.equal(
    verdict(proof({ stateDigest: fx.hashOf(1) })),
    'certificate-signature',
    'a forged state under the right root',
  );
  t.equal(verdict(proof({ memberSetHash: fx.hashOf(1) })), 'certificate-signature');
  t.equal(verdict(proof({ signatures: fx.checkpoint(b1, [0, 1]).signatures })), 'certificate-below-quorum');
  t.equal(verdict(proof({}, new Uint8Array(HEADER_BYTES))), 'checkpoint-header');
});

t.test('WIRE-22: view changes', async (t) => {
  const change = (changes: object): ReplicaMessage => ({ ...three[0]!.message, ...changes });
  t.equal(verdict(change({ commit: null, prepared: null })), 'ok');
  t.equal(verdict(change({ commit: fx.certificate(b1, 'prepare') })), 'certificate-phase');
  t.equal(verdict(change({ prepared: fx.certificate(b1) })), 'certificate-phase');
  t.equal(verdict(change({ prepared: fx.certificate(b1, 'prepare', 0, [0, 1]) })), 'certificate-below-quorum');
  t.equal(
    verdict(change({ prepared: { ...fx.certificate(b1, 'prepare'), height: asHeight(2) } })),
    'certificate-signature',
    'an invented base',
  );
  t.equal(verdict(change({ epoch: asEpoch(1) })), 'view-change-place');
  const opens = (viewChanges: typeof three, changes: object = {}): ReplicaMessage => ({
    kind: 'new-view',
    epoch: fx.epoch,
    view: asView(5),
    viewChanges,
    ...changes,
  });
  const [v0, v1, v2] = three as [(typeof three)[0] & object, (typeof three)[0] & object, (typeof three)[0] & object];
  t.equal(verdict(opens([v0, v1, v2])), 'ok');
  t.equal(verdict(opens([v2, v1, v0])), 'ok', 'in any order');
  t.equal(verdict(opens([v0, v1])), 'new-view-below-quorum');
  t.equal(verdict(opens([v0, v1, v1])), 'view-change-twice');
  t.equal(verdict(opens([v0, v1, { ...v2, sender: asReplicaId(9) }])), 'sender-unknown');
  t.equal(verdict(opens([v0, v1, { ...v2, sender: asReplicaId(3) }])), 'view-change-signature', 'in another’s name');
  t.equal(verdict(opens([v0, v1, fx.viewChange(6, 2, null)])), 'view-change-place', 'for another view');
  t.equal(verdict(opens([v0, v1, v2], { view: asView(6) })), 'view-change-place');
  t.equal(verdict(opens([v0, v1, { ...v2, signature: v1.signature }])), 'view-change-signature');
  const hollow = fx.signed(change({ prepared: fx.certificate(b1, 'prepare', 0, [0, 1]) }) as typeof v0.message, 2);
  t.equal(verdict(opens([v0, v1, hollow])), 'certificate-below-quorum', 'signed, and unsound inside');
});

t.test('WIRE-29: what a peer proves of its standing', async (t) => {
  t.equal(verdict(standing()), 'ok');
  t.equal(verdict(standing({ commit: null, prepared: null, stable: null, asked: null })), 'ok');
  t.equal(verdict(standing({ commit: fx.certificate(b2, 'prepare') })), 'certificate-phase');
  t.equal(verdict(standing({ prepared: fx.certificate(b2) })), 'certificate-phase');
  t.equal(verdict(standing({ commit: { ...fx.certificate(b2), height: asHeight(900) } })), 'certificate-signature');
  t.equal(verdict(standing({ stable: fx.checkpoint(b1, [0, 1]) })), 'certificate-below-quorum');
  const asked = three[1]!;
  t.equal(verdict(standing({ asked: { ...asked, sender: asReplicaId(9) } })), 'sender-unknown');
  t.equal(verdict(standing({ asked: { ...asked, sender: asReplicaId(2) } })), 'view-change-signature', 'made up');
  t.equal(verdict(standing({ epoch: asEpoch(1) })), 'view-change-place', 'of another epoch');
});

// ---- chains -----------------------------------------------------------------------------------------------------------

const options: ChainOptions = { ...context, trusted: { height: asHeight(0), hash: fx.hashOf(9) }, pendingMax: 4 };
const followed = (of: typeof b1, certificate: Certificate | null = null, body = true): FollowedBlock => ({
  headerBytes: of.headerBytes,
  bundles: body ? of.bundles.map(({ payload, signature }) => ({ payload, signature })) : null,
  certificate,
});

t.test('WIRE-23: a follower yields what is proven, and nothing else', async (t) => {
  for (const body of [true, false]) {
    const verifier = new ChainVerifier(options);
    t.strictSame(verifier.feed(followed(b1, null, body)), []);
    t.strictSame(verifier.feed(followed(b2, null, body)), []);
    t.equal(verifier.pending, 2);
    t.equal(verifier.head?.height, 0, 'not proven yet');
    const proven = fx.must(verifier.feed(followed(b3, fx.certificate(b3), body)));
    t.strictSame(
      proven.map(({ header }) => header.height),
      [1, 2, 3],
    );
    t.ok(proven.every(({ hash }, i) => equalBytes(hash, blocks[i]!.hash)));
    t.strictSame(
      proven.map(({ bundles }) => bundles?.length ?? null),
      body ? [1, 1, 1] : [null, null, null],
    );
    t.strictSame(
      proven.map(({ certificate }) => certificate !== null),
      [false, false, true],
    );
    t.equal(verifier.head?.height, 3);
    t.equal(verifier.pending, 0);
  }
  const certified = new ChainVerifier(options);
  t.equal(fx.must(certified.feed({ block: b1, certificate: fx.certificate(b1) }))[0]?.bundles, b1.bundles);
});

t.test('WIRE-23: a follower refuses what does not fit, and stays as it was', async (t) => {
  const bad = (
    name: string,
    block: FollowedBlock,
    code: string,
    before: readonly FollowedBlock[] = [],
    changes: object = {},
  ) => {
    const verifier = new ChainVerifier({ ...options, ...changes });
    for (const each of before) fx.must(verifier.feed(each));
    const { pending, head } = verifier;
    t.equal(codeOf(verifier.feed(block)), code, name);
    t.equal(verifier.pending, pending);
    t.equal(verifier.head, head);
  };
  bad('a gap', followed(b2, fx.certificate(b2)), 'chain-broken');
  bad('a block again', followed(b1, fx.certificate(b1)), 'chain-broken', [followed(b1, fx.certificate(b1))]);
  bad('another parent', followed(fx.block(b1.bundles, { parent: fx.hashOf(8) })), 'chain-broken');
  bad('another chain', followed(fx.block(b1.bundles, { chainId: fx.hashOf(8) })), 'chain-mismatch');
  bad('no header', { ...followed(b1), headerBytes: new Uint8Array(HEADER_BYTES) }, 'payload-malformed');
  bad('another body', { ...followed(b1), bundles: followed(b2).bundles }, 'block-body-mismatch');
  bad('no body', { ...followed(b1), bundles: [] }, 'block-body-mismatch');
  bad(
    'a changed transaction',
    {
      ...followed(b1),
      bundles: followed(b1).bundles!.map(({ payload, signature }) => ({
        payload: payload.with(payload.length - 1, 0),
        signature,
      })),
    },
    'block-body-mismatch',
  );
  bad('the certificate of another block', followed(b1, fx.certificate(b2)), 'certificate-place');
  bad('a prepared certificate', followed(b1, fx.certificate(b1, 'prepare')), 'certificate-phase');
  bad('too few signatures', followed(b1, fx.certificate(b1, 'commit', 0, [1, 2])), 'certificate-below-quorum');
  bad(
    'no certificate for too long',
    followed(blocks[4]!),
    'chain-uncertified',
    blocks.slice(0, 4).map((each) => followed(each)),
  );
  for (const [path, changed] of singleChanges(fx.certificate(b1)))
    bad(
      path,
      followed(b1, changed as Certificate),
      codeOf(new ChainVerifier(options).feed(followed(b1, changed as Certificate))),
    );
  for (const [path, changed] of singleChanges(fx.certificate(b1)))
    if (codeOf(new ChainVerifier(options).feed(followed(b1, changed as Certificate))) === 'ok') t.fail(path);
  const again = new ChainVerifier(options);
  fx.must(again.feed(followed(b1)));
  again.dropPending();
  t.strictSame(again.feed(followed(b1)), [], 'from the head again');
  const anchored = new ChainVerifier({ ...options, trusted: null });
  t.strictSame(
    fx.must(anchored.feed(followed(b3, fx.certificate(b3)))).map(({ header }) => header.height),
    [3],
    'the first certificate is the anchor',
  );
  t.equal(codeOf(anchored.feed(followed(b3, fx.certificate(b3)))), 'chain-broken');
});

t.test('WIRE-27: a header of another epoch or member set is refused, whoever signed it', async (t) => {
  // Certified by a quorum, as honest members never would: the certificate says epoch 0, since it is these members'.
  const certified = (of: typeof b1) => ({ ...fx.certificate({ ...of, header: { ...of.header, epoch: fx.epoch } }) });
  for (const [name, changes, field] of [
    ['another epoch', { epoch: 1 }, 'epoch'],
    ['another member set', { memberSetHash: fx.hashOf(7) }, 'memberSetHash'],
  ] as const) {
    const foreign = fx.block(b1.bundles, changes);
    const above = fx.block(b2.bundles, { height: 2, parent: foreign.hash });
    const over = fx.block(b2.bundles, { height: 2, parent: b1.hash, ...changes });
    t.equal(verifyCertificate(certified(foreign), context), null, 'the certificate itself holds');

    const fed = new ChainVerifier(options).feed(followed(foreign, certified(foreign)));
    t.match(fed, { refused: 'certificate-epoch', kind: 'chain', field: `header.${field}` }, name);
    const below = new ChainVerifier(options).feed(followed(foreign));
    t.match(below, { refused: 'certificate-epoch' }, `${name}, before any certificate`);

    const blocksOf = (list: readonly (typeof b1)[], links: readonly (typeof b1)[]): ReplicaMessage => ({
      kind: 'blocks',
      blocks: list.map((block) => ({ block, certificate: null })),
      tail: {
        links: links.map(({ headerBytes }) => headerBytes),
        certificate: certified((links.at(-1) ?? list.at(-1))!),
      },
    });
    t.equal(verdict(blocksOf([foreign], [])), 'certificate-epoch', `${name} in an answer`);
    t.equal(verdict(blocksOf([foreign], [above])), 'certificate-epoch', `${name} below a sound header`);
    t.equal(verdict(blocksOf([b1], [over])), 'certificate-epoch', `${name} in a tail`);

    const receipt = (of: typeof b1, links: readonly (typeof b1)[]) =>
      codeOf(
        verifyDecided(
          {
            headerBytes: of.headerBytes,
            links: links.map(({ headerBytes }) => headerBytes),
            certificate: certified(links.at(-1) ?? of),
          },
          { genesis: fx.genesis, crypto: native },
        ),
      );
    t.equal(receipt(b1, [b2]), 'ok');
    t.equal(receipt(foreign, []), 'certificate-epoch', `${name} in a receipt`);
    t.equal(receipt(foreign, [above]), 'certificate-epoch');
    t.equal(receipt(b1, [over]), 'certificate-epoch', `${name} in a link`);
  }
});

// ---- receipts ---------------------------------------------------------------------------------------------------------

const receiptContext = { genesis: fx.genesis, crypto: native };
const bundles = [4, 3, 6].map((count, b) =>
  fx.bundle(
    b + 1,
    Array.from({ length: count }, (_, i) => fx.text(`${b}.${i}`)),
  ),
);
const base = fx.block(bundles);
const second = fx.block([], { height: 2, parent: base.hash });
const above = [second, fx.block([], { height: 3, parent: second.hash })];

t.test('WIRE-24: receipts of bundles', async (t) => {
  for (const [index, bundle] of bundles.entries())
    for (const links of [[], above.slice(0, 1), above]) {
      const proven = fx.must(verifyReceipt(fx.receipt(base, index, links), receiptContext, bundle.transactions));
      t.equal(proven.height, 1);
      t.equal(proven.time, base.header.time);
      t.equal(proven.firstTransaction, [0, 4, 7][index]);
    }
  const good = fx.receipt(base, 1, above);
  const list = bundles[1]!.transactions;
  const refused = (receipt: typeof good, transactions = list) =>
    codeOf(verifyReceipt(receipt, receiptContext, transactions));
  t.equal(refused(good, bundles[0]!.transactions), 'receipt-range', 'other transactions');
  t.equal(refused(good, list.slice(1)), 'receipt-range');
  t.equal(refused(good, [...list].reverse()), 'receipt-range', 'another order');
  t.equal(refused({ ...good, transactionCount: 2 }, list.slice(0, 2)), 'receipt-range', 'less than the proof is for');
  t.equal(refused({ ...good, links: above.slice(1).map(({ headerBytes }) => headerBytes) }), 'chain-broken');
  t.equal(refused({ ...good, links: [] }), 'certificate-place');
  t.equal(refused({ ...good, links: Array(65).fill(above[0]!.headerBytes) }), 'receipt-malformed');
  t.equal(refused({ ...good, certificate: fx.certificate(above[1]!, 'prepare') }), 'certificate-phase');
  const strangers = {
    ...receiptContext,
    genesis: { ...fx.genesis, members: fx.members.toReversed().map((each, i) => ({ ...each, id: asReplicaId(i) })) },
  };
  t.equal(codeOf(verifyReceipt(good, strangers, list)), 'certificate-epoch', 'members of another genesis');
  t.equal(
    codeOf(verifyReceipt(good, { ...receiptContext, genesis: { ...fx.genesis, chainId: fx.hashOf(4) } }, list)),
    'chain-mismatch',
  );
  let changes = 0;
  for (const [path, changed] of singleChanges(good)) {
    if (path.startsWith('.digest')) continue; // a name, not proven
    changes += 1;
    if (refused(changed as typeof good) === 'ok') t.fail(`${path} passes`);
  }
  t.ok(changes > 60, `${changes} single changes, all refused`);
});

t.test('one leaf’s proof out of a range’s', async (t) => {
  for (let size = 1; size <= 17; size++) {
    const leaves = Array.from({ length: size }, (_, i) => leafHash(fx.sha256, Uint8Array.of(i)));
    for (let start = 0; start < size; start++)
      for (let end = start + 1; end <= size; end++) {
        const proof = rangeProof(fx.sha256, leaves, start, end);
        for (let index = start; index < end; index++) {
          const path = inclusionFromRange({
            sha256: fx.sha256,
            leaves: leaves.slice(start, end),
            start,
            size,
            proof,
            index,
          });
          const expected = inclusionProof(fx.sha256, leaves, index);
          if (path.map(toHex).join() !== expected.map(toHex).join()) t.fail(`${size}: ${index} in ${start}..${end}`);
        }
      }
  }
  t.pass('equal to RFC 9162’s for every range of every tree up to 17 leaves');
  const leaves = [leafHash(fx.sha256, Uint8Array.of(1))];
  t.throws(() => inclusionFromRange({ sha256: fx.sha256, leaves, start: 0, size: 1, proof: [], index: 1 }));
  t.throws(() => inclusionFromRange({ sha256: fx.sha256, leaves, start: 0, size: 2, proof: [], index: 0 }));
});

t.test('WIRE-25 WIRE-26: receipts of transactions are files that stand for themselves', async (t) => {
  const made = fx.must(transactionReceipt(fx.receipt(base, 2, above), receiptContext, bundles[2]!.transactions, 5));
  const file = JSON.stringify(made);
  for (const crypto of [native, portable]) {
    const proven = fx.must(verifyTransactionReceipt(file, { ...receiptContext, crypto }));
    t.equal(new TextDecoder().decode(proven.transaction), '2.5');
    t.match(proven, { height: 1, index: 12, time: base.header.time });
    t.equal(toHex(proven.blockHash), toHex(base.hash));
  }
  for (const [b, bundle] of bundles.entries())
    for (let i = 0; i < bundle.transactions.length; i++) {
      const one = fx.must(transactionReceipt(fx.receipt(base, b), receiptContext, bundle.transactions, i));
      const proven = fx.must(verifyTransactionReceipt(JSON.stringify(one, null, 2), receiptContext));
      t.equal(toHex(proven.transaction), toHex(bundle.transactions[i]!));
    }
  t.equal(
    codeOf(transactionReceipt(fx.receipt(base, 0), receiptContext, bundles[0]!.transactions, 4)),
    'receipt-range',
  );
  t.equal(
    codeOf(transactionReceipt(fx.receipt(base, 0), receiptContext, bundles[1]!.transactions, 0)),
    'receipt-range',
  );

  const refused = (value: unknown) => codeOf(verifyTransactionReceipt(JSON.stringify(value), receiptContext));
  const flip = (text: string, at: number) => `${text.slice(0, at)}${text[at] === '0' ? '1' : '0'}${text.slice(at + 1)}`;
  function* textChanges(value: unknown, path = ''): Generator<readonly [string, unknown]> {
    if (typeof value === 'string') {
      for (let i = 0; i < value.length; i += value.length > 128 ? 37 : 7) yield [`${path}[${i}]`, flip(value, i)];
      yield [`${path} cut`, value.slice(0, -1)];
      yield [`${path} upper`, value === value.toUpperCase() ? `${value} ` : value.toUpperCase()];
    } else if (typeof value === 'number') {
      yield [`${path} + 1`, value + 1];
      yield [`${path} - 1`, value - 1];
      yield [`${path} as text`, String(value)];
    } else if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) {
        for (const [where, changed] of textChanges(item, `${path}.${i}`)) yield [where, value.with(i, changed)];
        yield [`${path} without ${i}`, value.toSpliced(i, 1)];
      }
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, inner] of Object.entries(value)) {
        for (const [where, changed] of textChanges(inner, `${path}.${key}`))
          yield [where, { ...value, [key]: changed }];
        yield [`${path} without ${key}`, Object.fromEntries(Object.entries(value).filter(([each]) => each !== key))];
      }
      yield [`${path} with more`, { ...value, more: 1 }];
    }
  }
  let changes = 0;
  for (const [path, changed] of textChanges(made)) {
    changes += 1;
    if (refused(changed) === 'ok') t.fail(`${path} passes`);
  }
  t.ok(changes > 150, `${changes} single changes, all refused`);
  t.match(parseReceipt(file), made);
  t.equal(codeOf(parseReceipt('{')), 'receipt-malformed');
  t.equal(codeOf(parseReceipt('null')), 'receipt-malformed');
  t.equal(codeOf(parseReceipt(' '.repeat((1 << 20) + 1))), 'receipt-malformed');
  fc.assert(
    fc.property(fc.json(), (json) => codeOf(verifyTransactionReceipt(json, receiptContext)) === 'receipt-malformed'),
  );
  fc.assert(
    fc.property(fc.string(), (each) => codeOf(verifyTransactionReceipt(each, receiptContext)) === 'receipt-malformed'),
  );
});

// ---- checkpoint notes -------------------------------------------------------------------------------------------------

t.test('WIRE-15 WIRE-16: a stable checkpoint is a C2SP signed note', async (t) => {
  const place = fx.placeOf(b1);
  const chain = toHex(fx.chainId);
  const textOf = checkpointSigningText(fx.chainId, place);
  t.equal(
    textOf,
    `synod/${chain}\n1\n${Buffer.from(place.logRoot).toString('base64')}\nepoch 0\nblock ${toHex(place.hash)}\nmembers ${toHex(place.memberSetHash)}\nstate ${toHex(place.stateDigest)}\n`,
  );
  const checkpoint = fx.checkpoint(b1);
  const signers = { crypto: native, chainId: fx.chainId, members: fx.members, quorum: fx.quorum };
  const note = exportCheckpointNote(checkpoint, signers);
  t.ok(note.startsWith(`${textOf}\n\u2014 synod/${chain}/replica-0 `));
  t.equal(note.split('\n').filter((line) => line.startsWith('\u2014')).length, 3);
  t.match(
    memberVerifierKey(fx.sha256, fx.chainId, fx.members[0]!),
    new RegExp(`^synod/${chain}/replica-0\\+[0-9a-f]{8}\\+A`),
  );
  const back = fx.must(importCheckpointNote(note, signers));
  t.strictSame(
    back.signatures.map(({ replica }) => replica),
    [0, 1, 3],
  );
  t.equal(verifyCheckpoint(back, context), null);
  const stranger = `${note}\u2014 witness.example/w ${Buffer.alloc(80, 7).toString('base64')}\n`;
  t.equal(codeOf(importCheckpointNote(stranger, signers)), 'ok', 'the lines of others are theirs');
  const refused = (changed: string, changes: object = {}) =>
    codeOf(importCheckpointNote(changed, { ...signers, ...changes }));
  const lines = note.split('\n');
  t.equal(refused(lines.filter((line) => !line.includes('replica-3')).join('\n')), 'note-below-quorum');
  t.equal(refused(note.replace('epoch 0', 'epoch 1')), 'note-signature');
  t.equal(refused(note.replace('epoch 0', 'epoch 00')), 'checkpoint-malformed');
  t.equal(refused(note.replace('epoch 0', 'epoch 0\nmore')), 'checkpoint-malformed');
  t.equal(refused(note.replace(/state .*\n/, '')), 'checkpoint-malformed');
  t.equal(refused(note.replace(/block [0-9a-f]/, 'block g')), 'checkpoint-malformed');
  t.equal(refused(note.replace('\n1\n', '\n0\n')), 'checkpoint-malformed');
  t.equal(refused(note.replace('\n1\n', '\n2\n')), 'note-signature');
  t.equal(refused(note, { chainId: fx.hashOf(3) }), 'checkpoint-origin');
  t.equal(refused(textOf), 'note-malformed');
  t.equal(refused(''), 'note-malformed');
  for (let i = 0; i < note.length; i += 3) {
    const changed = `${note.slice(0, i)}${note[i] === 'A' ? 'B' : 'A'}${note.slice(i + 1)}`;
    const result = importCheckpointNote(changed, signers);
    if (!('refused' in result)) t.fail(`a note changed at ${i} passes`);
  }
  t.throws(() =>
    exportCheckpointNote(
      { ...checkpoint, signatures: [{ replica: asReplicaId(9), signature: new Uint8Array(64) }] },
      signers,
    ),
  );
  t.equal(decodeHeader(b1.headerBytes)?.logRoot.length, asHash(place.logRoot).length);
});
