// A real network that grows from four to seven and shrinks to four again while clients order without a pause, until none of the members that it began
// with is left: a backup is down during one change, the primary of the moment goes first, and the limits of a batch are others on the way.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { connect } from '../client/index.ts';
import { fetchStatus } from '../daemon/cli/replica-http.ts';
import { SecretKey } from '../keys/keypair.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { EpochNet, GENESIS } from './epoch-net.ts';
import { SteadyLoad } from './steady-load.ts';

t.setTimeout(380_000);

t.test('[EPO-12] [EPO-17] [EPO-24] 4 to 7 to 4, every original member replaced, under load', async (t) => {
  const dir = t.testdir();
  const net = new EpochNet(t, dir);
  const { ok, start, stop, config, door, inEpoch, nodes, status, eventually } = net;
  const originals = [0, 1, 2, 3].map((i) => `node-${i}`);
  await ok('init', 'net', '--unsealed', '--param', 'viewTimeoutMs=1500');
  for (const name of originals) start(name);
  await inEpoch(0, originals);

  let members = originals;
  let epoch = 0;
  const operatorKeys = new Map(originals.map((name) => [name, `net/operators/${name}.key`]));
  const addressOf = (name: string) => `ws://127.0.0.1:${config(name).listen.port}`;
  const genesis = new Uint8Array(readFileSync(join(dir, 'net/genesis.json')));
  const join_ = async (names: readonly string[]) => {
    const replicas = names.map((name) => ({ name, url: addressOf(name) }));
    const client = await connect({ genesis, replicas, key: SecretKey.generate() });
    t.teardown(() => client.close());
    return client;
  };
  // They are never told an address but those of the first four.
  const clients = await Promise.all([0, 1, 2, 3].map(() => join_(originals)));
  const load = new SteadyLoad(clients);
  const more = (count: number) => {
    const from = load.receipts.size;
    return eventually(`${count} more are ordered`, async () => load.receipts.size >= from + count, 60_000);
  };

  const primaryOf = async (by: string) => (await fetchStatus(door(by), 2_000))?.primary.name;
  /** Signed by as few operators as are enough, and by those of the newest members first. */
  const change = async (by: string, args: readonly string[], joining?: readonly string[]) => {
    const { quorum } = byzantineQuorums(members.length);
    const operators = members.slice(-quorum).map((name) => operatorKeys.get(name)!);
    const file = await net.change(by, operators, args, joining);
    const { stdout } = await net.submit(by, file);
    const [, began, height] = /^epoch (\d+) began at height (\d+): /.exec(stdout) ?? [];
    t.equal(Number(began), ++epoch, args.join(' '));
    return Number(height);
  };
  /** Made, followed until it is close, promoted. */
  const grow = async (name: string, down: readonly string[] = []) => {
    operatorKeys.set(name, `${name}.key`);
    await ok('keys', 'generate', `${name}.key`, '--unsealed');
    const peers = Object.fromEntries(originals.map((each) => [each, addressOf(each)]));
    const url = await net.observer(name, { peers });
    const by = members.at(-1)!;
    await net.isClose(name, by);
    const key = ['--key', `net/${name}/replica.key`];
    const add = ['member', 'add', name, ...key, '--operator', `${name}.key`, '--address', url];
    await change(by, add, [...key, '--at', String((await status(name))?.height)]);
    members = [...members, name];
    await inEpoch(
      epoch,
      members.filter((each) => !down.includes(each)),
    );
    await more(50);
  };
  const shrink = async (name: string) => {
    await change(members.findLast((each) => each !== name)!, ['member', 'remove', name]);
    members = members.filter((each) => each !== name);
    const gone = await nodes.get(name)!.ended;
    t.equal(gone.code, 2, `nobody starts ${name} again`);
    t.match(gone.stderr, /^synod: .* \[not-a-member\]$/m, 'and it says why');
    await inEpoch(epoch, members);
    await more(50);
  };

  await more(50);
  await grow('node-4');
  // Four of five, and then of six, are a quorum.
  const primary = await primaryOf('node-4');
  const down = originals.findLast((name) => name !== primary)!;
  nodes.get(down)!.child.kill('SIGKILL');
  t.equal((await nodes.get(down)!.ended).code, null, 'killed');
  await grow('node-5', [down]);
  start(down);
  await inEpoch(epoch, members);
  const limited = await change('node-5', ['param', 'set', 'blockBundlesMax=2', 'blockBytesMax=393216']);
  await inEpoch(epoch, members);
  await grow('node-6');
  t.equal(members.length, 7, 'seven');

  // Each epoch begins under the member that is the first of those that are left: as a rule each of these is the primary of the moment.
  const removed: string[] = [];
  const led: string[] = [];
  const shrinkFirst = async () => {
    const leads = await primaryOf(members.at(-1)!);
    const name = originals.includes(leads ?? '') ? leads! : members.find((each) => originals.includes(each))!;
    if (name === leads) led.push(name);
    removed.push(name);
    await shrink(name);
  };
  for (let i = 0; i < 3; i++) await shrinkFirst();
  t.equal(members.length, 4, 'four');
  await grow('node-7');
  await shrinkFirst();
  t.same(members, ['node-4', 'node-5', 'node-6', 'node-7'], 'only those that came later');
  t.same(removed.toSorted(), originals, 'all of the first');
  t.ok(led.length > 0, `the primary of the moment was removed: ${led}`);

  // Nobody is left at any address that its config names.
  await stop('node-5');
  start('node-5');
  await inEpoch(epoch, members);
  await more(50);
  await load.end();
  t.comment(`${load.receipts.size} transactions, ${load.height} blocks, ${epoch} epochs`);

  const late = await join_(members);
  t.equal(late.epochs.last.epoch, epoch, 'from the genesis document and addresses of later members alone');
  t.same(await load.wrongs(late), [], 'nothing is lost, nothing is doubled');
  t.equal(late.epochs.last.parameters.blockBundlesMax, 2);
  for await (const { header, bundles } of late.follow({ from: limited + 1, to: load.height }))
    if ((bundles?.length ?? 0) > 2) t.fail(`a block of ${bundles?.length} bundles, at ${header.height}`);
  await eventually('one head', async () => {
    const all = await Promise.all(members.map((name) => fetchStatus(door(name), 2_000)));
    const heads = new Set(all.map((each) => `${each?.height} ${each?.hash}`));
    return heads.size === 1 && all.every((each) => each !== null && each.height >= load.height);
  });
  const { height } = (await status('node-7'))!;
  await Promise.all(members.map(stop));
  const ofMember = async (name: string) => {
    t.equal((await nodes.get(name)!.ended).code, 0, `${name} ends well`);
    await ok('export', '--config', `net/${name}/config.json`, '--out', `${name}.chain`);
    const { stdout } = await ok('verify', `${name}.chain`, ...GENESIS, '--json');
    t.match(
      JSON.parse(stdout),
      { valid: true, from: 1, to: height, epoch },
      `from the genesis document, the log of ${name}`,
    );
  };
  await Promise.all(members.map(ofMember));
});
