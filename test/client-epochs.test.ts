// The client over changes of the members: it learns the links from whoever answers, believes no one who sends others, and goes on with the members of the
// next epoch; its receipts and streams cross with it.

import t from 'tap';
import { fetchCheckpoint } from '../client/checkpoint.ts';
import { learnEpochs } from '../client/epochs.ts';
import { type Client, ClientError, connect, verifyReceiptFile } from '../client/index.ts';
import { openWebSocket } from '../client/socket.ts';
import { type Bytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { EPOCH_LINKS_MAX, encodePayload, frameSigningBytes } from '../protocol/codec.ts';
import type { Epochs } from '../protocol/door.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import { Handshake } from '../protocol/handshake.ts';
import { asEpoch, asHeight } from '../protocol/types.ts';
import { EpochChain } from '../protocol/verify.ts';
import { EpochNode } from './epoch-nodes.ts';
import { EpochWorld, replicaKey } from './epoch-world.ts';

t.setTimeout(0);
const abc = ['a', 'b', 'c'];
const text = (value: string) => Buffer.from(value);
const stranger = replicaKey('p');

type Test = { teardown(end: () => unknown): void };

const windows = (world: EpochWorld, count: number) => {
  for (let i = 0; i < count; i++)
    world.end({ changes: [{ change: 'set-parameter', parameter: 'window', value: 1 + (i % 7) }], by: abc });
};

/** A key by their own operators' and everybody's word; `name2` is its name among the keys. */
const rekey = (world: EpochWorld, name: string) =>
  world.end({
    changes: [{ change: 'replace-replica-key', name, publicKey: replicaKey(`${name}2`).publicKey }],
    by: abc,
    joins: { [`${name}2`]: world.height },
  });

async function nodeOf(test: Test, world: EpochWorld, key = stranger): Promise<EpochNode> {
  const node = await new EpochNode(world, key).start();
  test.teardown(() => node.stop());
  return node;
}

const learn = (node: EpochNode, epochs: EpochChain, timeoutMs = 20_000) =>
  learnEpochs({
    url: node.url,
    chainId: node.world.genesis.chainId,
    epochs,
    crypto: native,
    signer: clientSigner(SecretKey.generate(), node.world.genesis.chainId),
    openSocket: openWebSocket,
    timeoutMs,
  });

const chainOf = ({ genesis }: EpochWorld) => new EpochChain({ genesis, crypto: native });

t.test('[EPO-18] [WIRE-35] anybody tells the links, under any key, in as many answers as it takes', async (t) => {
  const world = new EpochWorld();
  world.idle(1);
  windows(world, EPOCH_LINKS_MAX + 3);
  const node = await nodeOf(t, world);
  const epochs = chainOf(world);
  t.strictSame(await learn(node, epochs), { epochs: EPOCH_LINKS_MAX + 3, code: null });
  t.same(epochs.last.hash, world.epoch.hash);
  t.same(epochs.links, world.links);
  t.strictSame(node.heard, ['query-epochs', 'query-epochs', 'query-epochs']);
  t.strictSame(await learn(node, epochs), { epochs: 0, code: null }, 'nothing new is no harm');
  // One that knows less than the client.
  node.epoch = 2;
  t.strictSame(await learn(node, epochs), { epochs: 0, code: null });
});

t.test(
  '[EPO-18] links that are forged, cut, out of order, missing or endless: what held before them stays',
  async (t) => {
    const world = new EpochWorld();
    windows(world, 4);
    const rival = new EpochWorld();
    rival.idle(3);
    windows(rival, 2);
    const links = world.links as [Bytes, Bytes, Bytes, Bytes];
    const flipped = Uint8Array.from(links[1]);
    flipped[300]! ^= 1;
    const answers: [string, readonly Bytes[], number, RegExp][] = [
      ['a forged one', [links[0], flipped, links[2]], 1, /^(certificate|payload|epoch)-/],
      ['one that is cut', [links[0], links[1].subarray(0, 200)], 1, /^payload-malformed$/],
      ['out of order', [links[1], links[0]], 0, /^certificate-epoch$/],
      ['one left out', [links[0], links[2]], 1, /^certificate-epoch$/],
      [
        'of another chain',
        [Uint8Array.from(rival.links[0]!, (byte, i) => (i === 20 ? byte ^ 1 : byte))],
        0,
        /^(chain|cert|payload)/,
      ],
    ];
    const node = await nodeOf(t, world);
    for (const [what, given, learnt, code] of answers) {
      node.answer = ({ from }) => ({ kind: 'epochs', from, links: given });
      const epochs = chainOf(world);
      const result = await learn(node, epochs);
      t.equal(result.epochs, learnt, what);
      t.match(result.code, code, what);
      t.same(epochs.links, links.slice(0, learnt), what);
    }
    // The same again and again: it is not asked for ever.
    node.answer = ({ from }) => ({ kind: 'epochs', from, links: [links[0]] });
    node.heard.length = 0;
    t.strictSame(await learn(node, chainOf(world)), { epochs: 1, code: null });
    t.equal(node.heard.length, 2);
    // More than an answer may hold, and bytes that are none.
    node.answer = () => encodePayload({ kind: 'epochs', from: asEpoch(1), links: Array(65).fill(links[0]) } as Epochs);
    t.match(await learn(node, chainOf(world)), { epochs: 0, code: 'payload-malformed' });
    node.answer = () => new Uint8Array(400_000);
    t.match(await learn(node, chainOf(world)), { epochs: 0, code: 'payload-malformed' });
    // It never answers.
    node.answer = () => null;
    t.match(await learn(node, chainOf(world), 200), { epochs: 0, code: 'silent' });
    await node.stop();
    t.equal((await learn(node, chainOf(world))).epochs, 0);
  },
);

t.test('[EPO-11] a second end of an epoch is refused by whoever knows the first', async (t) => {
  const world = new EpochWorld();
  world.idle(1);
  windows(world, 1);
  // By the very keys of the members: they were retired, and somebody has a quorum of them.
  const rival = new EpochWorld();
  rival.idle(2);
  rival.end({ changes: [{ change: 'set-parameter', parameter: 'window', value: 5 }], by: abc });
  const node = await nodeOf(t, rival);
  const epochs = chainOf(world);
  epochs.add(world.links[0]!);
  node.answer = ({ from }) => ({ kind: 'epochs', from, links: rival.links });
  t.match(await learn(node, epochs), { epochs: 0, code: 'epoch-fork' });
  t.same(epochs.last.hash, world.epoch.hash);
  // Whoever knows the genesis document alone cannot tell the two apart: SECURITY.md says so.
  t.match(await learn(node, chainOf(world)), { epochs: 1, code: null });
});

interface Network {
  readonly world: EpochWorld;
  readonly nodes: ReadonlyMap<string, EpochNode>;
  /** The members' nodes, as the history is now, have their keys. */
  settle(): void;
  decide(): void;
}

/** A node for each name, at addresses that the epochs do not name. */
async function network(test: Test, names: readonly string[]): Promise<Network> {
  const world = new EpochWorld();
  const nodes = new Map<string, EpochNode>();
  for (const name of names) nodes.set(name, await nodeOf(test, world, replicaKey(name)));
  const pump = () => {
    for (const node of nodes.values()) node.pump();
  };
  world.onBundle = (bundle) => {
    world.decide(bundle);
    pump();
  };
  return {
    world,
    nodes,
    settle: () => {
      for (const { name, publicKey } of world.epoch.members) {
        const node = nodes.get(name);
        const key = [replicaKey(name), replicaKey(`${name}2`)].find(
          (each) => Buffer.compare(each.publicKey, publicKey) === 0,
        );
        if (node !== undefined && key !== undefined) node.key = key;
      }
      for (const node of nodes.values()) node.dropAll();
    },
    decide: pump,
  };
}

const quick = { reconnectMs: 5, reconnectMsMax: 40, headIntervalMs: 20, retryMs: 300, connectTimeoutMs: 20_000 };

const connectTo = async (
  test: Test,
  { world, nodes }: Network,
  more: Partial<Parameters<typeof connect>[0]> = {},
): Promise<Client> => {
  const client = await connect({
    genesis: world.genesis,
    replicas: [...nodes].map(([name, { url }]) => ({ name, url })),
    key: SecretKey.generate(),
    options: quick,
    ...more,
  });
  test.teardown(() => client.close());
  return client;
};

t.test(
  '[EPO-18] a client that lives through changes goes on: submits, receipts and streams of both sorts',
  async (t) => {
    const net = await network(t, ['a', 'b', 'c', 'd']);
    const { world } = net;
    const client = await connectTo(t, net);
    const epochs: number[] = [];
    client.on('epoch', ({ epoch }) => epochs.push(epoch));
    const suspected: string[] = [];
    client.on('suspected', ({ replica, code }) => suspected.push(`${replica} ${code}`));
    const bodies = client.follow({ from: 1 });
    const headers = client.follow({ from: 1, headersOnly: true });
    const receipts = [await client.submit(text('in the first epoch'))];
    const rekeyed = ['a', 'b', 'c', 'd'];
    for (const name of rekeyed) {
      rekey(world, name);
      net.settle();
      receipts.push(await client.submit(text(`after ${name}`)));
    }
    t.equal(client.epochs.last.epoch, 4);
    t.same(client.epochs.last.hash, world.epoch.hash);
    t.same(client.genesis.members, world.epoch.members);
    t.strictSame(epochs.at(-1), 4);
    t.strictSame(suspected, [], 'nobody is blamed for being ahead');
    for (const stream of [bodies, headers]) {
      const heights: number[] = [];
      for await (const { header } of stream) {
        heights.push(header.height);
        if (header.height === world.height) break;
      }
      t.strictSame(
        heights,
        Array.from({ length: world.height }, (_, i) => i + 1),
      );
    }
    // Each for whoever has the genesis document alone.
    for (const receipt of receipts)
      t.notOk(
        'refused' in verifyReceiptFile(JSON.stringify(receipt), { genesis: world.genesis, crypto: native }),
        `height ${receipt.height}`,
      );
    const open = () => client.status().filter(({ state }) => state === 'open').length;
    while (open() < 4) await new Promise((resolve) => setTimeout(resolve, 5));
  },
);

/** What a client hears of its connections. */
function troubles(client: Client): { readonly lost: string[]; readonly suspected: string[] } {
  const [lost, suspected]: [string[], string[]] = [[], []];
  client.on('disconnected', ({ replica, code }) => lost.push(`${replica} ${code}`));
  client.on('suspected', ({ replica, code }) => suspected.push(`${replica} ${code}`));
  return { lost, suspected };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}

const allOpen = (client: Client) => until(() => client.status().every(({ state }) => state === 'open'));

t.test('[EPO-23] the replicas have other keys, one after the other, and every connection goes on', async (t) => {
  const names = ['a', 'b', 'c', 'd'];
  const net = await network(t, names);
  const { world, nodes } = net;
  for (const name of ['a', 'b']) rekey(world, name);
  net.settle();
  const client = await connectTo(t, net);
  await allOpen(client);
  const { lost, suspected } = troubles(client);
  const streams = [client.follow({ from: 1 }), client.follow({ from: 1, headersOnly: true })];
  // What is in flight at the switch is not sent again.
  let waiting: SignedBundle | null = null;
  const decides = world.onBundle;
  for (const name of ['c', 'd']) {
    world.onBundle = (bundle) => {
      waiting = bundle;
    };
    const receipt = client.submit(text(`in flight when ${name} has another key`));
    await until(() => waiting !== null);
    const bundle = waiting!;
    waiting = null;
    rekey(world, name);
    const node = nodes.get(name)!;
    node.prove(replicaKey(`${name}2`));
    for (const other of nodes.values()) if (other !== node) other.tellLinks();
    decides?.(bundle);
    t.ok((await receipt).height > 0);
    world.onBundle = decides;
    t.ok((await client.submit(text(`after ${name}`))).height > 0);
  }
  for (const stream of streams) {
    let last = 0;
    for await (const { header } of stream) {
      t.equal(header.height, last + 1);
      last = header.height;
      if (last === world.height) break;
    }
  }
  t.equal(client.epochs.last.epoch, 4);
  t.strictSame(lost, []);
  t.strictSame(suspected, []);
  const sent = [...nodes.values()].flatMap(({ submitted }) => submitted.map((digest) => toHex(digest)));
  t.equal(new Set(sent).size, sent.length, 'each bundle has come to one replica, once');
});

t.test(
  '[EPO-23] the others tell first: the member has a while to prove its key, and is nobody until then',
  async (t) => {
    const net = await network(t, ['a', 'b', 'c', 'd']);
    const { world, nodes } = net;
    const client = await connectTo(t, net);
    await allOpen(client);
    const { lost, suspected } = troubles(client);
    rekey(world, 'a');
    const [a, b] = [nodes.get('a')!, nodes.get('b')!];
    b.tellLinks();
    await until(() => client.epochs.last.epoch === 1);
    const asked = a.heard.length;
    t.ok((await client.submit(text('without it'))).height > 0);
    t.notOk(a.heard.slice(asked).includes('submit'), 'nothing is sent to it');
    a.prove(replicaKey('a2'));
    await until(() => client.status().find(({ name }) => name === 'a')?.claimedHeight === world.height);
    t.strictSame(lost, []);

    // Another one never does.
    rekey(world, 'b');
    nodes.get('c')!.tellLinks();
    await until(() => lost.length > 0);
    t.strictSame(lost, ['b rekey-missing']);
    b.key = replicaKey('b2');
    await allOpen(client);
    t.strictSame(suspected, []);
  },
);

t.test('[EPO-16] [EPO-23] whoever has a stolen key says that it has another one now', async (t) => {
  const net = await network(t, ['a', 'b', 'c', 'd']);
  const { world, nodes } = net;
  const client = await connectTo(t, net);
  await allOpen(client);
  const { lost, suspected } = troubles(client);
  // No links say so, and nothing that it says counts.
  world.idle(3);
  nodes.get('a')!.prove(stranger, 'nothing');
  const claims = new Set<number | null | undefined>();
  await until(() => {
    claims.add(client.status().find(({ name }) => name === 'a')?.claimedHeight);
    return lost.includes('a rekey-missing');
  });
  t.notOk(claims.has(world.height));
  t.strictSame(suspected, []);
  // Then they name another key.
  const c = nodes.get('c')!;
  c.prove(stranger, 'nothing');
  rekey(world, 'c');
  nodes.get('b')!.tellLinks();
  await until(() => lost.includes('c rekey-missing'));
  t.strictSame(suspected, []);
  // What is no proof at all may be the thief's, too: the connection ends, and the member is not blamed.
  const forged = nodes.get('d')!;
  forged.forge(stranger);
  await until(() => lost.some((line) => line.startsWith('d ')));
  t.strictSame(lost.slice(2), ['d rekey-transcript']);
  t.strictSame(suspected, []);
  t.ok((await client.submit(text('the others'))).height > 0);
});

t.test('[EPO-23] eight keys on one connection are taken, and none is anybody’s; the ninth ends it', async (t) => {
  const net = await network(t, ['a', 'b', 'c', 'd']);
  const { world, nodes } = net;
  const client = await connectTo(t, net);
  await allOpen(client);
  const { lost, suspected } = troubles(client);
  for (const node of nodes.values()) node.epoch = 0;
  windows(world, 9);
  for (const [name, count] of [
    ['c', 8],
    ['d', 9],
  ] as const) {
    const node = nodes.get(name)!;
    // Each proof is of a later epoch than the one before.
    for (let epoch = 0; epoch < count; epoch++) {
      node.epoch = epoch;
      node.prove(replicaKey(`${name}, stolen ${epoch}`), 'nothing');
    }
    node.epoch = 0;
  }
  await until(() => lost.some((line) => line.startsWith('c ')) && lost.some((line) => line.startsWith('d ')));
  t.strictSame(lost.toSorted(), ['c rekey-missing', 'd rekeys-max']);
  t.strictSame(suspected, []);
  for (const node of nodes.values()) node.epoch = null;
  t.ok((await client.submit(text('the others'))).height > 0);
});

t.test('[EPO-18] a client that knows nobody’s key any more finds the members at their old addresses', async (t) => {
  const net = await network(t, ['a', 'b', 'c', 'd']);
  net.world.idle(3);
  for (const name of ['a', 'b', 'c', 'd']) rekey(net.world, name);
  net.settle();
  const client = await connectTo(t, net);
  t.equal(client.epochs.last.epoch, 4);
  const receipt = await client.submit(text('found'));
  t.equal(receipt.height, net.world.height);
});

t.test('[EPO-18] one old address is enough, where the next epochs name the others', async (t) => {
  const net = await network(t, ['a', 'b', 'c', 'd', 'e']);
  const { world, nodes } = net;
  world.idle(2);
  const addresses = ['a', 'b', 'c', 'd'].map((name) => ({
    change: 'change-address' as const,
    name,
    address: nodes.get(name)!.url,
  }));
  world.end({ changes: addresses, by: abc });
  net.settle();
  // An address of before is not used where the epoch names another.
  const old = await nodeOf(t, world);
  const client = await connectTo(t, net, {
    replicas: [
      { name: 'a', url: old.url },
      { name: 'b', url: 'ws://127.0.0.1:1' },
    ],
  });
  t.equal((await client.submit(text('there'))).height, world.height);
  t.same(
    client.status().map(({ url }) => url),
    ['a', 'b', 'c', 'd'].map((name) => nodes.get(name)!.url),
  );
});

t.test('[EPO-18] a name that only a later epoch has is learnt of before it is refused', async (t) => {
  const net = await network(t, ['a', 'b', 'c', 'd', 'e']);
  net.world.idle(2);
  net.world.end({
    changes: [
      {
        change: 'add-member',
        name: 'e',
        publicKey: replicaKey('e').publicKey,
        operatorKey: null,
        address: net.nodes.get('e')!.url,
      },
    ],
    by: abc,
    joins: { e: 2 },
  });
  net.settle();
  const client = await connectTo(t, net);
  t.equal(client.status().length, 5);
  t.equal((await client.submit(text('five'))).height, net.world.height);
  const unknown = connectTo(t, net, {
    replicas: [...net.nodes].map(([name, { url }]) => ({ name: `${name}x`, url })),
  });
  await t.rejects(unknown, new ClientError('unknown-replica', { name: 'ax' }));
});

t.test('[EPO-16] a removed primary that goes on talking as if nothing had happened', async (t) => {
  const net = await network(t, ['a', 'b', 'c', 'd', 'e']);
  const { world, nodes } = net;
  const client = await connectTo(t, net, {
    replicas: ['a', 'b', 'c', 'd'].map((name) => ({ name, url: nodes.get(name)!.url })),
  });
  await client.submit(text('before'));
  world.end({
    changes: [
      {
        change: 'add-member',
        name: 'e',
        publicKey: replicaKey('e').publicKey,
        operatorKey: null,
        address: nodes.get('e')!.url,
      },
    ],
    by: abc,
    joins: { e: 1 },
  });
  world.end({ changes: [{ change: 'remove-member', name: 'a' }], by: [...abc, 'd'] });
  // It serves the first epoch as if nothing had happened.
  nodes.get('a')!.epoch = 0;
  for (const [name, node] of nodes) if (name !== 'a') node.dropAll();
  const receipt = await client.submit(text('after'));
  t.equal(receipt.height, world.height);
  t.strictSame(
    client.status().map(({ name }) => name),
    ['b', 'c', 'd', 'e'],
  );
  t.equal(nodes.get('a')!.submitted.length <= 2, true);
});

t.test('[EPO-20] [WIRE-36] a certified checkpoint from anybody, and the log that goes on from it', async (t) => {
  const world = new EpochWorld();
  world.idle(20);
  windows(world, 2);
  world.idle(3);
  const state = world.checkpoint();
  world.idle(2);
  const node = await nodeOf(t, world);
  const epochs = chainOf(world);
  const { genesis } = world;
  const fetchIt = (above = 0, known = epochs) =>
    fetchCheckpoint({
      url: node.url,
      above: asHeight(above),
      chainId: genesis.chainId,
      epochs: known,
      crypto: native,
      signer: clientSigner(SecretKey.generate(), genesis.chainId),
      openSocket: openWebSocket,
      timeoutMs: 20_000,
    });
  t.match(await fetchIt(), { refused: 'certificate-epoch' }, 'the links come first');
  await learn(node, epochs);
  const fetched = await fetchIt();
  if ('refused' in fetched) throw new Error(fetched.refused);
  t.equal(fetched.certificate.height, state.certificate.height);
  // An observer with an empty log, and one that has come some way in an earlier epoch.
  for (const blocks of [0, 5]) {
    const observer = new Observer({ sha256: native.sha256, genesis }, null);
    for (const { block, certificate } of world.blocks.slice(0, blocks)) observer.take(block, certificate);
    const records = observer.install(fetched);
    t.equal(records.at(-1)?.type, 'reset-to-checkpoint');
    t.equal(observer.height, state.certificate.height);
    t.same(observer.document.hash, world.epoch.hash);
    for (const { block, certificate } of world.blocks.slice(observer.height)) observer.take(block, certificate);
    t.equal(observer.height, world.height, 'and goes on with the next block');
  }
  t.match(await fetchIt(state.certificate.height), { refused: 'checkpoint-below' });
  // What does not prove itself is not taken.
  const changes: [string, EpochNode['changesChunk']][] = [
    ['state-chunk-proof', (same) => ({ ...same, found: same.found && { ...same.found, bytes: Buffer.from('other') } })],
    ['state-unasked', (same) => ({ ...same, chunk: same.chunk + 100 })],
    ['state-gone', (same) => ({ ...same, found: null })],
  ];
  for (const [code, change] of changes) {
    node.changesChunk = (same) => (same.chunk === 7 ? change(same) : same);
    t.match(await fetchIt(), { refused: code });
  }
  node.changesChunk = (same) => same;
  const { signatures } = state.certificate;
  const forged = {
    ...state.certificate,
    signatures: signatures.map((each) => ({ ...each, signature: signatures[0]!.signature })),
  };
  world.state = { ...state, certificate: forged };
  t.match(await fetchIt(), { refused: /^note-|^certificate-/ });
  world.state = { ...state, headerBytes: world.blocks[0]!.block.headerBytes };
  t.match(await fetchIt(), { refused: 'checkpoint-header' });
  world.state = null;
  t.match(await fetchIt(), { refused: 'checkpoint-none' });
});

t.test('[EPO-16] [WIRE-14] a key that was a member’s is told so, and one that never was is not', async (t) => {
  const world = new EpochWorld();
  world.idle(1);
  rekey(world, 'a');
  const { chainId, members, epoch } = world.epoch;
  const retired = new Set(world.documents[0]!.members.map(({ publicKey }) => toHex(publicKey)));
  const answerTo = (key: SimulationKey, role: 'replica' | 'client') => {
    const common = { crypto: native, chainId, expected: null, nonce: new Uint8Array(32) };
    const caller = new Handshake({
      ...common,
      epoch: asEpoch(0),
      members: null,
      side: 'initiator',
      role,
      key: key.publicKey,
    });
    const called = new Handshake({
      ...common,
      epoch,
      members,
      isRetired: (each) => retired.has(toHex(each)),
      side: 'responder',
      role: 'replica',
      key: replicaKey('b').publicKey,
    });
    const [hello] = caller.start();
    const payload = encodePayload(hello!);
    called.start();
    const signature = key.sign(frameSigningBytes(chainId, 'hello', payload));
    return called.receive({ kind: 'hello', payload, sender: key.publicKey, signature });
  };
  t.match(answerTo(replicaKey('a'), 'replica'), { refused: 'handshake-key-retired' });
  t.match(answerTo(stranger, 'replica'), { refused: 'handshake-not-a-member' });
  t.match(answerTo(replicaKey('a2'), 'replica'), { peer: null, send: [{ kind: 'hello' }] });
  // To ask for what proves itself needs no key in particular.
  t.match(answerTo(replicaKey('a'), 'client'), { peer: null, send: [{ kind: 'hello' }] });
});
