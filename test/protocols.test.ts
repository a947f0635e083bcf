// From one protocol to another by a change of the epoch, under load: nothing is lost, nothing is doubled, and the chain is proved across the switch.
// All six in turn in the simulator, with a crash in each, and from real process to real process and back. docs/adr/0009-crash-fault-family.md.

import t from 'tap';
import { native } from '../crypto/native.ts';
import { decodeCertificate, decodeStoredBlock, isRefusal } from '../protocol/codec.ts';
import { signersOf } from '../protocol/epoch/chain.ts';
import { type Protocol, proofOf } from '../protocol/modes.ts';
import { asEpoch } from '../protocol/types.ts';
import { ChainVerifier, EpochChain } from '../protocol/verify.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { Operators } from '../sim/operators.ts';

t.setTimeout(0);

const text = (value: string) => Buffer.from(value);
const ROUND: readonly Protocol[] = [
  'raft',
  'pbft',
  'multi-paxos',
  'basic-paxos',
  'fast-paxos',
  'pbft',
  'cheap-paxos',
  'raft',
];

t.test('EPO-10, EPO-12: all protocols in turn on one chain, under load, with a crash in each', async (t) => {
  const cluster = new Cluster({ seed: 11, n: 4, operators: true, realSignatures: true });
  const operators = new Operators(cluster, true);
  const clients = [0, 1, 2].map((i) => new SimClient(cluster.genesis, `client-${i}`));
  const sent: { readonly bundle: ReturnType<SimClient['bundle']>; readonly at: number }[] = [];
  let turn = 0;
  const busy = () => {
    const client = clients[turn % clients.length]!;
    const bundle = client.bundle([text(`${turn}`)]);
    sent.push({ bundle, at: turn });
    for (const id of cluster.live()) cluster.submit(id, bundle);
    turn += 1;
    cluster.after(40, busy);
  };
  cluster.run(100);
  busy();
  for (const [index, protocol] of ROUND.entries()) {
    cluster.run(400);
    const epoch = index + 1;
    const bundle = operators.bundle([{ change: 'set-protocol', protocol }]);
    for (const id of cluster.live()) cluster.submit(id, bundle);
    t.ok(
      cluster.until(() => cluster.nodes.every((node) => node.core !== null && node.epoch.epoch === epoch), 30_000),
      `${protocol} in epoch ${epoch}: ${cluster.nodes.map(({ epoch: { epoch } }) => epoch)}`,
    );
    t.ok(
      cluster.nodes.every((node) => node.epoch.protocol === protocol),
      protocol,
    );
    const before = cluster.chain.size;
    t.ok(
      cluster.until(() => cluster.chain.size > before + 3, 20_000),
      `${protocol} orders`,
    );
    const leader = cluster.primary;
    cluster.crash(leader);
    const at = cluster.chain.size;
    t.ok(
      cluster.until(() => cluster.chain.size > at + 3, 30_000),
      `${protocol} goes on without node-${leader}`,
    );
    cluster.boot(leader);
    t.ok(
      cluster.until(() => cluster.height(leader) >= at || protocol === 'cheap-paxos', 20_000),
      `${protocol}: node-${leader} is back`,
    );
  }
  const last = sent.at(-1)!;
  t.ok(
    cluster.until(
      () => sent.every(({ bundle, at }) => at > last.at || cluster.live().some((id) => cluster.has(id, bundle))),
      30_000,
    ),
    'everything that was sent is ordered once',
  );

  // CFT-PR-1, EPO-11: whoever has the genesis document alone follows the members, and what their words are worth.
  const { genesis } = cluster;
  const { parameters } = genesis;
  const epochs = new EpochChain({ genesis, crypto: native });
  const chain = new ChainVerifier({
    ...signersOf(epochs.last, native),
    parameters,
    trusted: null,
    pendingMax: 64,
    epochs,
  });
  const { disk } = cluster.nodes.reduce((a, b) => (b.disk.head > a.disk.head ? b : a));
  let proven = 0;
  for (let height = 1; height <= disk.head; height++) {
    const { hash, certificate: stored } = disk.decided.get(height)!;
    const block = decodeStoredBlock(disk.block(height, hash)!, { sha256: native.sha256, parameters });
    const certificate = stored === null ? null : decodeCertificate(stored);
    if (isRefusal(block) || (certificate !== null && isRefusal(certificate))) return t.fail(`height ${height}`);
    const fed = chain.feed({ block, certificate });
    if ('refused' in fed) return t.fail(`${fed.refused} ${fed.field} at ${height}`);
    for (const each of fed) {
      proven += 1;
      if (each.certificate !== null) t.equal(each.certificate.phase, proofOf(epochs.at(each.header.epoch)!).phase);
    }
  }
  t.equal(proven, disk.head);
  t.equal(epochs.last.epoch, ROUND.length, 'every epoch is proved by the one before');
  const trusts = [0, 1, 2].map((epoch) => epochs.trustUpTo(asEpoch(epoch)));
  t.same(trusts, ['byzantine', 'crash-fault', 'crash-fault'], 'what comes after trusted members rests on them');
});
