// The fault model of a running network is changed, and changed back, while clients order without a pause: real processes, sockets and disks. Nothing is lost
// or doubled, one replica sleeps through a change, one is killed in each protocol, and every proof is checked with the genesis document alone.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { connect, type Receipt } from '../client/index.ts';
import type { Protocol } from '../protocol/modes.ts';
import { EpochNet, GENESIS } from './epoch-net.ts';
import { SteadyLoad } from './steady-load.ts';

t.setTimeout(280_000);
const names = [0, 1, 2, 3].map((i) => `node-${i}`);
const operators = names.slice(0, 3).map((name) => `net/operators/${name}.key`);

t.test('CFT-PR-1, EPO-12: from pbft to raft, to multi-paxos and back to pbft, under load', async (t) => {
  const dir = t.testdir();
  const net = new EpochNet(t, dir);
  const { synod, ok, start, config, door, inEpoch, nodes, eventually, submit } = net;
  await ok('init', 'net', '--unsealed', '--param', 'viewTimeoutMs=1500');
  for (const name of names) start(name);
  await inEpoch(0, names);

  const client = await connect({
    genesis: new Uint8Array(readFileSync(join(dir, 'net/genesis.json'))),
    replicas: names.map((name) => ({ name, url: `ws://127.0.0.1:${config(name).listen.port}` })),
    key: new Uint8Array(32).fill(7),
  });
  t.teardown(() => client.close());
  const load = new SteadyLoad([client]);
  const { receipts } = load;
  const more = (count: number) => {
    const from = receipts.size;
    return eventually(`${count} more are ordered`, async () => receipts.size >= from + count, 60_000);
  };

  /** Everything that a receipt was given for stands at or below the read point of any replica. */
  const readPoints = async (members: readonly string[]) => {
    const told = load.height;
    for (const name of members) {
      const response = await fetch(`${door(name)}/v1/read-point`);
      const { height } = (await response.json()) as { height?: number };
      t.ok(
        response.ok && height !== undefined && height >= told,
        `CFT-RP-1: ${name} ${response.status}, ${height} of ${told}`,
      );
    }
  };

  const change = async (protocol: Protocol, epoch: number, by: string) => {
    const submitted = await submit(by, await net.change(by, operators, ['param', 'protocol', protocol]));
    t.match(submitted.stdout, new RegExp(`^epoch ${epoch} began at height \\d+: `), protocol);
  };

  await more(50);
  const plan = await synod('param', 'protocol', 'raft', ...GENESIS, '--height', '2', '--plan');
  t.match(plan.stdout, /now {4}pbft, 4 members, quorum 3, bears 1 faulty/);
  t.match(plan.stdout, /then {3}raft, 4 members, quorum 3, bears 1 silent/);
  t.match(plan.stdout, /beware: from then on no member may lie/);
  const unknown = await synod('param', 'protocol', 'zab', ...GENESIS, '--plan');
  t.equal(unknown.code, 2);
  t.match(unknown.stderr, /zab/);

  await change('raft', 1, 'node-0');
  await inEpoch(1, names);
  await more(50);
  await readPoints(names);
  nodes.get('node-1')!.child.kill('SIGKILL');
  await more(50);
  // It sleeps through the next change.
  await change('multi-paxos', 2, 'node-0');
  await inEpoch(2, ['node-0', 'node-2', 'node-3']);
  await more(50);
  await readPoints(['node-0', 'node-2', 'node-3']);
  start('node-1');
  await inEpoch(2, names);
  nodes.get('node-2')!.child.kill('SIGKILL');
  await more(50);
  start('node-2');
  await change('pbft', 3, 'node-3');
  await inEpoch(3, names);
  await more(50);
  await load.end();
  t.equal((await fetch(`${door('node-0')}/v1/read-point`)).status, 501, 'in pbft there are none');

  t.same(await load.wrongs(client), [], 'nothing is lost, nothing is doubled');

  // Receipts of every epoch, from the genesis document alone: what comes before trusted members is proved, the rest says what it rests on.
  const byEpoch = new Map<number, Receipt>();
  for (const receipt of receipts.values()) {
    const { certificate, trust } = JSON.parse(JSON.stringify(receipt));
    byEpoch.set(certificate.epoch, receipt);
    if (trust !== (certificate.epoch === 0 ? undefined : 'crash-fault')) t.fail(`epoch ${certificate.epoch}: ${trust}`);
  }
  t.same([...byEpoch.keys()].sort(), [0, 1, 2, 3]);
  for (const [epoch, receipt] of byEpoch) {
    writeFileSync(join(dir, 'one.receipt'), JSON.stringify(receipt));
    const { stdout } = await ok('verify', 'one.receipt', ...GENESIS, '--json');
    const trust = epoch === 0 ? 'byzantine' : 'crash-fault';
    t.match(JSON.parse(stdout), { valid: true, epoch, trust });
    const ask = async (path: string) => JSON.parse(await (await fetch(`${door('node-0')}${path}`)).text());
    const { bundles } = await ask(`/v1/blocks/${receipt.height}`);
    const { receipts } = await ask(`/v1/bundles/${bundles[0].digest}`);
    writeFileSync(join(dir, 'http.receipt'), JSON.stringify(receipts[0]));
    const ofDoor = await ok('verify', 'http.receipt', ...GENESIS, '--json');
    t.match(JSON.parse(ofDoor.stdout), { valid: true, epoch, trust }, 'WIRE-26: and one of the HTTP door');
  }
  await ok('export', '--network', 'net', '--out', 'net.chain');
  const verified = await ok('verify', 'net.chain', ...GENESIS, '--json');
  t.match(JSON.parse(verified.stdout), { valid: true, from: 1, epoch: 3, trust: 'crash-fault' });
});
