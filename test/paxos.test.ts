// Paxos where members are trusted: the rules of acceptor, proposer and learner at their edges, the papers' own cases on whole clusters, lives
// from seeds with everything failing that may, and planted bugs.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { floorLagMax, openGuard } from '../keys/guard.ts';
import { SecretKey } from '../keys/keypair.ts';
import type { Block } from '../protocol/block.ts';
import { decidedSigningBytes } from '../protocol/certificate.ts';
import { encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import { chained, makeValue } from '../protocol/crash/value.ts';
import { Ledger } from '../protocol/ledger.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { PaxosPledge, PaxosPromise, ReplicaMessage } from '../protocol/messages.ts';
import { Acceptor } from '../protocol/paxos/acceptor.ts';
import { decodeHardState } from '../protocol/paxos/hard-state.ts';
import { Learner } from '../protocol/paxos/learner.ts';
import { boundsOf, Proposer } from '../protocol/paxos/proposer.ts';
import { crashQuorums } from '../protocol/quorum.ts';
import type { ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { openFrame, verifyCertificate } from '../protocol/verify.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm } from '../sim/cluster.ts';
import { live } from '../sim/life.ts';
import { settingOf } from '../sim/setting.ts';
import { livesFromSeeds, plantedBugsAreCaught } from './family-lives.ts';
import { PLANTED_PAXOS } from './planted-paxos.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const T = 500;
const epoch = asEpoch(0);
const { genesis } = settingOf(3, {}, { realSignatures: false, protocol: 'multi-paxos' });
const { sha256 } = native;
const text = (value: string) => Buffer.from(value);

// ---- the roles ----------------------------------------------------------------------------------------------------------

function acceptorOf(height = 0) {
  const records: LogRecord[] = [];
  const pledges: { readonly pledge: PaxosPledge; readonly to: ReplicaId | undefined }[] = [];
  const host = {
    epoch,
    self: asReplicaId(0),
    ledger: { height: asHeight(height) },
    out: {
      records,
      resend: { push: () => 0 },
      pledge: (pledge: PaxosPledge, { to }: { to?: ReplicaId } = {}) => void pledges.push({ pledge, to }),
    },
  };
  return { acceptor: new Acceptor(), host, records, pledges };
}

const ledger = () => new Ledger({ sha256, genesis, epoch });
const valueIn = (slot: number, time = 1): Block =>
  makeValue(
    { sha256, epoch, ledger: ledger() },
    { slot: asHeight(slot), bundles: [], time: asMillis(time), proposer: asReplicaId(0) },
  );
const promiseOf = (accepted: readonly (readonly [number, number, number])[], decided = 0): PaxosPromise => ({
  kind: 'promise',
  epoch,
  ballot: asView(9),
  decided: asHeight(decided),
  accepted: accepted.map(([slot, ballot, hash]) => ({
    slot: asHeight(slot),
    ballot: asView(ballot),
    hash: asHash(new Uint8Array(32).fill(hash)),
  })),
  working: null,
});

t.test('CFT-Q-1: a majority of any n from 3 up', async (t) => {
  t.same(
    [3, 4, 5, 6, 7].map((n) => [crashQuorums(n).f, crashQuorums(n).quorum]),
    [
      [1, 2],
      [1, 3],
      [2, 3],
      [2, 4],
      [3, 4],
    ],
  );
  for (const n of [0, 2, 129, 3.5]) t.throws(() => crashQuorums(n));
});

t.test('PXS-A-1: a promise tells the highest-numbered proposal of each open slot, and is kept', async (t) => {
  const { acceptor, host, pledges, records } = acceptorOf(4);
  const [old, other] = [valueIn(5), valueIn(5, 2)];
  t.equal(acceptor.accept(host, asView(2), old), 'accepted');
  t.equal(acceptor.accept(host, asView(5), other), 'accepted', 'a higher number takes its place');
  t.ok(acceptor.prepare(host, asView(7), asReplicaId(1)));
  const { pledge, to } = pledges.at(-1)!;
  t.same(pledge, {
    kind: 'promise',
    epoch,
    ballot: 7,
    decided: 4,
    accepted: [{ slot: 5, ballot: 5, hash: other.hash }],
    working: null,
  });
  t.equal(to, 1, 'to its proposer alone');
  t.equal(pledges.at(-2)?.pledge.kind, 'accepted', 'what was accepted before is said before');
  const hard = records.findLast((record) => record.type === 'hard-state');
  t.equal(decodeHardState(hard!.type === 'hard-state' ? hard!.bytes : new Uint8Array(0))?.promised, 7, 'PXS-A-3');
  t.notOk(acceptor.prepare(host, asView(6), asReplicaId(0)), 'a lower one is passed');
  t.ok(acceptor.prepare(host, asView(7), asReplicaId(1)), 'the same again is answered again');
  t.equal(decodeHardState(new Uint8Array(9)), undefined, "another protocol's");
});

t.test('PXS-A-2: nothing below a promise is accepted, and one value in a ballot', async (t) => {
  const { acceptor, host, records } = acceptorOf();
  acceptor.prepare(host, asView(4), asReplicaId(1));
  t.equal(acceptor.accept(host, asView(3), valueIn(1)), 'passed');
  t.equal(acceptor.accept(host, asView(4), valueIn(1)), 'accepted');
  t.equal(acceptor.accept(host, asView(4), valueIn(1)), 'again');
  t.throws(() => acceptor.accept(host, asView(4), valueIn(1, 2)));
  t.equal(acceptor.accept(host, asView(6), valueIn(2)), 'accepted', 'a promise is not needed first');
  t.equal(acceptor.promised, 6, 'and is made with it');
  t.same(
    records.filter(({ type }) => type === 'accepted').map((record) => 'view' in record && record.view),
    [4, 6],
  );
  const again = new Acceptor();
  again.restore(host, { epoch: asEpoch(0), promised: asView(6), working: null }, asView(8), [
    { height: asHeight(2), ballot: asView(6), value: valueIn(2) },
  ]);
  t.equal(again.promised, 8, 'the guard remembers what the log has lost');
  t.equal(records.at(-1)?.type, 'hard-state', 'which the log learns again');
  t.equal(again.accept(host, asView(7), valueIn(3)), 'passed');
});

t.test('PXS-A-4: what was accepted before a restart is said when it is asked for again', async (t) => {
  const { acceptor, host, pledges } = acceptorOf();
  const accepted = [1, 2, 3].map((slot) => ({ height: asHeight(slot), ballot: asView(4), value: valueIn(slot) }));
  acceptor.restore(host, { epoch: asEpoch(0), promised: asView(4), working: null }, asView(4), accepted);
  acceptor.forget(asHeight(1));
  const said = () => {
    acceptor.flush(host);
    return pledges.splice(0).map(({ pledge }) => ('places' in pledge ? pledge.places.map(({ slot }) => slot) : []));
  };
  t.same(said(), [], 'unasked it says nothing');
  t.equal(acceptor.accept(host, asView(4), valueIn(2)), 'again');
  t.same(said(), [[2]], 'for it may never have left');
  t.equal(acceptor.accept(host, asView(4), valueIn(2)), 'again');
  t.same(said(), [], 'once: from then on it is there to be repeated');
  t.equal(acceptor.accept(host, asView(5), valueIn(3)), 'accepted');
  t.equal(acceptor.accept(host, asView(5), valueIn(3)), 'again');
  t.same(said(), [[3]]);
  // The one other replica that is well wrote an acceptance down, and ended; its leader waits for it, and has no reason to go.
  t.equal(live({ seed: 908, protocol: 'multi-paxos', n: null, ms: 10_000, realSignatures: null }).failure, null);
});

t.test('PXS-P-2: of the proposals among the promises the highest-numbered one binds', async (t) => {
  const promises = new Map([
    [asReplicaId(0), promiseOf([[3, 4, 40]], 1)],
    [
      asReplicaId(1),
      promiseOf(
        [
          [3, 7, 70],
          [6, 2, 20],
        ],
        2,
      ),
    ],
    [asReplicaId(2), promiseOf([[3, 7, 70]], 0)],
  ]);
  const bounds = boundsOf(promises);
  t.equal(bounds.decided, 2);
  t.equal(bounds.top, 6);
  t.same(
    [...bounds.slots].map(([slot, { ballot, hash, holders }]) => [slot, ballot, hash[0], holders]),
    [
      [3, 7, 70, [1, 2]],
      [6, 2, 20, [1]],
    ],
  );
  t.same(boundsOf(new Map([[asReplicaId(0), promiseOf([[2, 3, 1]], 2)]])).top, 2, 'nothing below what is decided');
  const proposer = new Proposer();
  proposer.begin(asView(9));
  const two = ({ size }: { readonly size: number }) => size >= 2;
  t.equal(proposer.onPromise(promiseOf([]), asReplicaId(0), two), null, 'not of a minority');
  t.equal(proposer.onPromise(promiseOf([]), asReplicaId(0), two), null, 'nor of one that says it twice');
  t.equal(
    proposer.onPromise({ ...promiseOf([]), ballot: asView(6) }, asReplicaId(1), two),
    null,
    'nor of another number',
  );
  t.ok(proposer.onPromise(promiseOf([]), asReplicaId(1), two));
});

t.test('PXS-L-1: acceptances of one proposal make it chosen, number and value', async (t) => {
  const learner = new Learner();
  const hash = asHash(new Uint8Array(32).fill(1));
  const other = asHash(new Uint8Array(32).fill(2));
  const slot = asHeight(1);
  const hear = (ballot: number, value: typeof hash, replica: number) =>
    learner.onAccepted(
      slot,
      { ballot: asView(ballot), hash: value },
      asReplicaId(replica),
      ({ length }) => length >= 2,
    );
  // Paxos Made Simple, 2.2: v accepted in ballot 1 by one, in ballot 4 by another, is not yet chosen; ballot 3 may choose w.
  hear(1, hash, 0);
  hear(4, hash, 2);
  t.equal(learner.chosen(slot), undefined, 'two ballots are two proposals');
  hear(3, other, 1);
  t.equal(learner.chosen(slot), undefined);
  hear(4, hash, 0);
  t.same(learner.chosen(slot)?.holders, [0, 2]);
  hear(3, other, 0);
  t.equal(learner.chosen(slot)?.hash, hash, 'what comes late changes nothing');
});

// ---- what a proof is worth ------------------------------------------------------------------------------------------------

t.test('CFT-PR-1 CFT-W-1: no proof and no frame of one kind of chain passes in the other', async (t) => {
  const cluster = begin();
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const { certificate } = cluster.delivered[1]![0]!;
  const signers = (protocol: 'pbft' | 'multi-paxos', quorum = 2) => {
    const { chainId, members, parameters } = cluster.genesis;
    return { crypto: native, chainId, epoch, members, parameters, quorum, protocol };
  };
  t.same(
    certificate?.signatures.map(({ replica }) => replica),
    [1],
    'one word, of who serves it',
  );
  const verified = (protocol: 'pbft' | 'multi-paxos', phase: 'decided' | 'commit', quorum?: number) =>
    verifyCertificate({ ...certificate!, phase }, signers(protocol, quorum))?.refused;
  t.equal(verified('pbft', 'decided'), 'certificate-phase', 'in a Byzantine chain a word is nothing');
  t.equal(verified('pbft', 'decided', 1), 'certificate-phase', 'whatever makes a quorum');
  t.equal(verified('pbft', 'commit', 1), 'certificate-signature', 'nor is it a vote');
  t.equal(verified('multi-paxos', 'commit'), 'certificate-phase', 'and votes are nothing here');
  const frame = (message: ReplicaMessage) =>
    ({
      kind: message.kind,
      payload: encodePayload(message),
      sender: cluster.genesis.members[0]!.publicKey,
      signature: new Uint8Array(64),
    }) as const;
  const codeOf = (message: ReplicaMessage, protocol: 'pbft' | 'multi-paxos') => {
    const opened = openFrame(frame(message), signers(protocol));
    return isRefusal(opened) ? opened.refused : 'opened';
  };
  const prepare: ReplicaMessage = { kind: 'paxos-prepare', epoch, ballot: asView(3) };
  const vote: ReplicaMessage = {
    kind: 'commit',
    epoch,
    view: asView(0),
    height: asHeight(1),
    hash: certificate!.hash,
  };
  t.equal(codeOf(prepare, 'pbft'), 'kind-not-allowed');
  t.equal(codeOf(prepare, 'multi-paxos'), 'opened');
  t.equal(codeOf(vote, 'multi-paxos'), 'kind-not-allowed');
  t.equal(codeOf(vote, 'pbft'), 'opened');
  t.ok(encodeFrame(frame(vote)).length > 0);
});

t.test('GRD-19 GRD-20: the guard keeps a ballot, and one word for a height', async (t) => {
  const secret = SecretKey.generate();
  const { chainId } = genesis;
  const path = join(t.testdir({}), 'sign-state');
  const open = (create: boolean) =>
    openGuard({ path, secret, chainId, epoch, create, checkpointSigningBytes: () => new Uint8Array(0) });
  const log = { sequence: 0, hash: new Uint8Array(32) };
  const accepted = (ballot: number, slot = 1): PaxosPledge => ({
    kind: 'accepted',
    epoch,
    ballot: asView(ballot),
    places: [{ slot: asHeight(slot), hash: asHash(new Uint8Array(32)) }],
  });
  const made = (pledges: readonly PaxosPledge[]) =>
    pledges.map((pledge) => ({ pledge, payload: encodePayload(pledge) }));
  const promise = (...pledges: readonly PaxosPledge[]) => guard.promise({ pledges: made(pledges), lock: null, log });
  let guard = await open(true);
  await promise(accepted(3), { ...promiseOf([]), ballot: asView(7) });
  t.equal(guard.state.view, 7);
  t.throws(() => guard.sign(accepted(7), encodePayload(accepted(7))), { code: 'guard-not-promised' });
  await promise(accepted(7), accepted(7, 2));
  for (const slot of [1, 2]) t.equal(guard.sign(accepted(7, slot), encodePayload(accepted(7, slot))).length, 64);
  await t.rejects(promise(accepted(6)), { code: 'guard-view-passed' });
  t.throws(() => guard.signStatement('accepted', new Uint8Array(1)), { code: 'guard-binding-kind' });
  await guard.close();
  guard = await open(false);
  await t.rejects(promise({ ...promiseOf([]), ballot: asView(6) }), { code: 'guard-view-passed' }, 'over a restart');
  const hash = (fill: number) => asHash(new Uint8Array(32).fill(fill));
  const place = { epoch, height: asHeight(4), hash: hash(1) };
  const signature = guard.signDecided(place);
  t.ok(native.verify(secret.publicKey, decidedSigningBytes(chainId, place), signature));
  t.same(guard.signDecided(place), signature, 'as often as wanted');
  t.throws(() => guard.signDecided({ ...place, hash: hash(2) }), { code: 'guard-conflict' });
  t.throws(() => guard.signDecided({ ...place, epoch: asEpoch(1) }), { code: 'guard-wrong-epoch' });
  // What a ballot has been written for needs no write again, however far the log gets; but the floor follows it.
  await promise(accepted(7));
  const written = readFileSync(path);
  const accept = (slot: number) =>
    guard.promise({
      pledges: made([accepted(7, slot)]),
      lock: null,
      log: { sequence: slot, hash: hash(slot) },
      decided: asHeight(slot - 1),
    });
  for (let slot = 2; slot < floorLagMax; slot++) await accept(slot);
  t.same(readFileSync(path), written);
  t.equal(guard.floor.sequence, 0, 'the log trims nothing by a floor that is not on disk');
  await accept(floorLagMax);
  t.notSame(readFileSync(path), written);
  t.same(guard.floor, { sequence: floorLagMax, hash: hash(floorLagMax) });
  await guard.close();
  guard = await open(false);
  t.same(guard.floor, { sequence: floorLagMax, hash: hash(floorLagMax) });
  await guard.close();
});

// ---- clusters -------------------------------------------------------------------------------------------------------------

type Options = ConstructorParameters<typeof Cluster>[0];

function begin(options: Options = {}): Cluster {
  const cluster = new Cluster({ seed: 7, n: 3, protocol: 'multi-paxos', ...options });
  cluster.run(50);
  return cluster;
}

function orders(cluster: Cluster, client: SimClient, { at = 0, ids = cluster.live(), ms = 500 } = {}): boolean {
  const bundle = client.bundle([text(`at ${cluster.now}`)]);
  cluster.submit(at, bundle);
  return cluster.until(() => ids.every((id) => cluster.has(id, bundle)), ms);
}

const leaderOf = (cluster: Cluster): number =>
  Math.max(...cluster.nodes.map(({ core }) => core?.explain().view ?? 0)) % cluster.nodes.length;
const elections = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started').length;

t.test('PXS-M-1 CFT-V-3: a free slot below a bound one becomes a no-op, which is an empty block', async (t) => {
  const cluster = begin();
  cluster.faults = calm;
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const leader = leaderOf(cluster);
  const [helper, third] = [0, 1, 2].filter((id) => id !== leader) as [number, number];
  // Slot 2 reaches nobody, slot 3 one acceptor; then the leader is gone for ever.
  cluster.tamper = (from, to, message) =>
    from === leader &&
    ((message.kind === 'accept' && (message.value.header.height === 2 || to !== helper)) || message.kind === 'blocks')
      ? null
      : message.kind === 'accepted' && from === helper
        ? null
        : message;
  const [lost, kept] = [client.bundle([text('lost')]), new SimClient(cluster.genesis, 'bob').bundle([text('kept')])];
  cluster.submit(leader, lost);
  cluster.run(3);
  cluster.submit(leader, kept);
  cluster.run(30);
  t.equal(cluster.nodes[helper]!.disk.accepted.get(3)?.view, cluster.nodes[leader]!.core!.explain().view);
  t.notOk(cluster.nodes[helper]!.disk.accepted.has(2));
  cluster.crash(leader);
  cluster.tamper = null;
  t.ok(cluster.until(() => [helper, third].every((id) => cluster.has(id, kept)), 4 * T));
  const blocks = cluster.delivered[third]!;
  const [second, next] = [2, 3].map((height) => blocks.find(({ block }) => block.header.height === height)?.block);
  t.equal(second?.bundles.length, 0, 'a no-op');
  t.equal(cluster.placeOf(toHexOf(kept.digest)), 3);
  t.ok(equalBytes(next!.header.parent, second!.hash), 'CFT-V-2: chained like every block');
  // [REQ-3] What was lost is ordered when it is sent again.
  cluster.submit(third, lost);
  t.ok(cluster.until(() => cluster.has(third, lost), 4 * T));
});

t.test('CFT-V-2: what may not stand in a block is left out of it, on every replica alike', async (t) => {
  const l = ledger();
  const client = new SimClient(genesis, 'alice');
  const [one, two] = [client.bundle([text('1')]), client.bundle([text('2')])];
  const bundles = [one, one, two];
  const context = { sha256, epoch, ledger: l };
  const value = makeValue(context, { slot: asHeight(1), bundles, time: asMillis(1), proposer: asReplicaId(2) });
  const extension = l.build([], { bundles: value.bundles, time: value.header.time, proposer: value.header.proposer })!;
  t.same(extension.block.bundles, [one, two], 'once each');
  t.equal(extension.block.header.proposer, 2, 'CFT-V-1: of who proposed it');
  const root = (block: { header: { transactionRoot: Uint8Array } }) => toHex(block.header.transactionRoot);
  t.equal(root(chained(l, [], value).block), root(extension.block), 'CFT-V-4: what is left is said anew');
  t.not(root(extension.block), root(value));
  const whole = makeValue(context, {
    slot: asHeight(1),
    bundles: [one, two],
    time: asMillis(1),
    proposer: asReplicaId(2),
  });
  t.equal(root(chained(l, [], whole).block), root(extension.block), 'CFT-V-4: of all of it the value has said it');
  t.equal(chained(l, [], whole).block.bundles, whole.bundles);
  l.apply(extension);
  const again = l.build([], { bundles: [one], time: asMillis(0), proposer: asReplicaId(0) })!;
  t.same(again.block.bundles, [], 'and never again');
  t.equal(again.block.header.time, extension.block.header.time, 'time never runs back');
  t.notOk('refused' in l.extend([], again.block), 'BLK-6: a block all the same');
});

t.test('PXS-M-2 PXS-M-3: who is cut off from the leader alone, or comes back, unseats nobody', async (t) => {
  for (const n of [3, 5]) {
    const cluster = begin({ n });
    const client = new SimClient(cluster.genesis, 'alice');
    t.ok(orders(cluster, client));
    const leader = leaderOf(cluster);
    const other = (leader + 1) % n;
    const before = elections(cluster);
    cluster.tamper = (from, to, message) =>
      (from === leader && to === other) || (from === other && to === leader) ? null : message;
    cluster.run(10 * T);
    t.equal(leaderOf(cluster), leader, 'it alone does not hear the leader');
    t.equal(elections(cluster), before, 'and runs for nothing, since the others say that they do');
    cluster.tamper = null;
    cluster.partition = [[other], [0, 1, 2, 3, 4].filter((id) => id !== other && id < n)];
    cluster.run(10 * T);
    cluster.partition = null;
    cluster.run(4 * T);
    t.equal(leaderOf(cluster), leader, 'nor does one that comes back');
    t.equal(elections(cluster), before);
    // Even a prepare out of the blue is not answered by who hears a leader.
    cluster.inject(other, (leader + 2) % n, { kind: 'paxos-prepare', epoch, ballot: asView(10 * n + other) });
    cluster.run(T);
    t.equal(elections(cluster), before);
    t.ok(orders(cluster, client));
  }
});

t.test('PXS-M-4: a leader that no majority answers leads no more, and another one soon does', async (t) => {
  const cluster = begin();
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const leader = leaderOf(cluster);
  const others = [0, 1, 2].filter((id) => id !== leader);
  cluster.partition = [[leader], others];
  const cutAt = cluster.now;
  const bundle = new SimClient(cluster.genesis, 'bob').bundle([text('x')]);
  cluster.submit(others[0]!, bundle);
  t.ok(cluster.until(() => others.every((id) => cluster.has(id, bundle)), 4 * T));
  t.ok(cluster.now - cutAt <= 2.5 * T, `taken over after ${cluster.now - cutAt} ms`);
  t.ok(
    cluster.until(() => cluster.nodes[leader]!.core!.explain().phase === 'view-change', 2 * T),
    'it knows',
  );
  cluster.partition = null;
  t.ok(
    cluster.until(() => cluster.has(leader, bundle), 2 * T),
    'and learns',
  );
  t.ok(orders(cluster, client));
});

t.test('PXS-P-1 PXS-P-3 PXS-A-3: numbers rise over restarts, wherever a process ends', async (t) => {
  for (const point of ['write-begun', 'log-written', 'guard-written', 'spoken'] as const) {
    const cluster = begin({ seed: 3 });
    const said = new Map<number, number[]>();
    cluster.tamper = (from, _, message) => {
      if (message.kind === 'paxos-prepare') said.set(from, [...(said.get(from) ?? []), message.ballot]);
      return message;
    };
    const client = new SimClient(cluster.genesis, 'alice');
    for (let i = 0; i < 6; i++) {
      t.ok(orders(cluster, client, { at: i % 3, ms: 8 * T }), `${point} ${i}`);
      const leader = leaderOf(cluster);
      // The next that runs for leader ends in the middle of its promise.
      cluster.strikes = (replica, at) => {
        if (at !== point || replica.id === leader) return false;
        cluster.strikes = () => false;
        cluster.crash(replica.id, { log: i % 2 === 0 ? 'lost' : 'kept', guard: i % 3 === 0 ? 'lost' : 'kept' });
        cluster.after(T, () => cluster.boot(replica.id));
        return true;
      };
      cluster.crash(leader);
      cluster.run(3 * T);
      cluster.boot(leader);
      cluster.run(T);
    }
    for (const [id, ballots] of said) {
      t.same(
        ballots,
        [...ballots].sort((a, b) => a - b),
        `node-${id} never goes back`,
      );
      t.ok(
        ballots.every((ballot) => ballot % 3 === id && ballot > 0),
        'and takes its own',
      );
    }
  }
});

t.test('PXS-M-5: a leader proposes as many slots as the window allows, and no more', async (t) => {
  const cluster = begin({ parameters: { window: 4, blockBundlesMax: 1 } });
  const leader = leaderOf(cluster);
  let highest = 0;
  cluster.tamper = (_, __, message) => {
    if (message.kind === 'accept') highest = Math.max(highest, message.value.header.height);
    return message.kind === 'accepted' ? null : message;
  };
  const clients = Array.from({ length: 12 }, (_, i) => new SimClient(cluster.genesis, `client-${i}`));
  for (const client of clients) cluster.submit(leader, client.bundle([text('x'.repeat(100_000))]));
  cluster.run(T / 2);
  t.equal(highest, 4, 'that many are under way at once');
  cluster.tamper = null;
  t.ok(cluster.until(() => cluster.height(leader) >= 12, 10 * T));
});

t.test('CFT-T-1: a leader whose process hung blames nobody', async (t) => {
  const cluster = begin();
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const before = elections(cluster);
  // All of them hang: when they go on, nobody has been heard for long.
  for (const node of cluster.nodes) node.stalledUntil = cluster.now + 4 * T;
  cluster.run(5 * T);
  t.equal(elections(cluster), before);
  t.ok(orders(cluster, client));
});

t.test('the log of a lagging replica comes by blocks, and by a checkpoint', async (t) => {
  const cluster = begin({ parameters: { checkpointInterval: 16, window: 4 } });
  for (const { disk } of cluster.nodes) disk.retain = 8;
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const away = (leaderOf(cluster) + 1) % 3;
  cluster.crash(away);
  for (let i = 0; i < 60; i++) t.ok(orders(cluster, client, { at: leaderOf(cluster), ids: cluster.live(), ms: 4 * T }));
  cluster.boot(away);
  t.ok(cluster.until(() => cluster.height(away) >= 61, 20 * T));
  t.ok(cluster.events.some(({ type, at }) => type === 'checkpoint-installed' && at === away));
  t.ok(orders(cluster, client));
});

t.test('a power cut everywhere: nothing that was acknowledged is lost', async (t) => {
  const cluster = begin({ n: 5 });
  const client = new SimClient(cluster.genesis, 'alice');
  for (let i = 0; i < 5; i++) t.ok(orders(cluster, client));
  for (const { id } of cluster.nodes) cluster.crash(id);
  for (const { id } of cluster.nodes) cluster.boot(id);
  // What was accepted by a majority and decided on no disk yet is decided again.
  t.ok(cluster.until(() => cluster.nodes.every(({ id }) => cluster.height(id) === 5), 8 * T));
  t.ok(orders(cluster, client));
});

t.test('PXS-B-1 PXS-B-2: without a leader any replica orders what it has, slot by slot', async (t) => {
  const cluster = begin({ protocol: 'basic-paxos' });
  const clients = [0, 1, 2].map((id) => new SimClient(cluster.genesis, `client-${id}`));
  for (const [id, client] of clients.entries()) t.ok(orders(cluster, client, { at: id, ms: 2 * T }), `at node-${id}`);
  t.same(
    cluster.delivered[0]!.map(({ block }) => block.header.proposer),
    [0, 1, 2],
    'each its own',
  );
  // One that accepted a value and then fell silent leaves a slot open; the others end it.
  cluster.tamper = (from, to, message) =>
    (message.kind === 'accept' && !(from === 0 && to === 1)) || (message.kind === 'accepted' && from === 0)
      ? null
      : message;
  const left = clients[0]!.bundle([text('left')]);
  cluster.submit(0, left);
  t.ok(cluster.until(() => cluster.nodes[1]!.disk.accepted.has(4), 2 * T));
  cluster.crash(0);
  cluster.tamper = null;
  t.ok(
    cluster.until(() => cluster.has(1, left) && cluster.has(2, left), 8 * T),
    'by the value that one of them accepted',
  );
  for (let i = 0; i < 5; i++) t.ok(orders(cluster, clients[1]!, { at: 1, ids: [1, 2], ms: 4 * T }));
});

t.test('PXS-B-3: section 2.4, duels end', async (t) => {
  for (const n of [3, 5, 7]) {
    const cluster = begin({ protocol: 'basic-paxos', n, seed: n });
    let highest = 0;
    cluster.tamper = (_, __, message) => {
      if (message.kind === 'paxos-prepare') highest = Math.max(highest, message.ballot);
      return message;
    };
    const bundles = Array.from({ length: 10 * n }, (_, i) =>
      new SimClient(cluster.genesis, `c${i}`).bundle([text('x')]),
    );
    for (const [i, bundle] of bundles.entries()) cluster.submit(i % n, bundle);
    t.ok(
      cluster.until(() => bundles.every((bundle) => cluster.has(0, bundle)), 40 * T),
      `${n} proposers at once, ballots up to ${highest}`,
    );
  }
});

livesFromSeeds('multi-paxos', 'basic-paxos');
plantedBugsAreCaught(PLANTED_PAXOS, 'multi-paxos');

const toHexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
