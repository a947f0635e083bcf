// The HTTP door (daemon/http/) over real sockets, in front of a replica that decides what the test says. Adversary's book A14, A25, A26.

import { connect, type Socket } from 'node:net';
import t from 'tap';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { receiptsFit } from '../daemon/http/forms.ts';
import { problemCodes } from '../daemon/http/problem.ts';
import openapi from '../daemon/openapi.json' with { type: 'json' };
import type { SignedBundle } from '../protocol/bundle.ts';
import { asEpoch, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { encodeControl, verifyTransactionReceipt } from '../protocol/verify.ts';
import { bundleOf, context, deadlineMs, Gate, genesisDocument, turn, world } from './door-world.ts';
import { adding, controlFor, EpochWorld, opened } from './epoch-world.ts';
import { fc } from './property.ts';
import { chainId, text } from './wire-fixtures.ts';

// A busy machine is slow, not wrong.
t.setTimeout(240_000);

const hex = (...values: string[]) =>
  JSON.stringify({ encoding: 'hex', transactions: values.map((value) => toHex(text(value))) });
const typed = (value: string) => ({ 'content-type': value });
const jsonType = typed('application/json');

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // Whatever JSON came: the assertions say what it must be.
  readonly body: Readonly<Record<string, never>>;
}

async function ask(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(deadlineMs) });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer['body'] };
}

const post = (url: string, body: string | Uint8Array, headers: Record<string, string> = jsonType) =>
  ask(url, { method: 'POST', body, headers });
const codeOf = ({ body }: Answer) => (body as { error?: { code?: string } }).error?.code;
const fieldOf = ({ body }: Answer) => (body as { error?: { field?: string } }).error?.field;

/** Bytes as they are; what comes back until the other side ends. */
function rawHttp(port: number, bytes: string, then: (socket: Socket) => void = () => {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const timer = setTimeout(() => reject(new Error('no end')), deadlineMs);
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk.toString('latin1');
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(heard);
    });
    socket.write(bytes);
    then(socket);
  });
}

t.test('HTTP: transactions in, a verifiable receipt for each out', async (t) => {
  const { replica, url, errors } = await world(t);
  const bodies: readonly (readonly [string | Uint8Array, Record<string, string>, readonly string[]])[] = [
    [hex('one', 'two', 'three'), jsonType, ['one', 'two', 'three']],
    [
      JSON.stringify({ encoding: 'base64', transactions: [Buffer.from('four').toString('base64')] }),
      jsonType,
      ['four'],
    ],
    [text('five'), typed('application/octet-stream'), ['five']],
    [hex('six'), { 'content-type': 'application/json; charset=UTF-8' }, ['six']],
  ];
  for (const [body, headers, expected] of bodies) {
    const before = replica.submitted.length;
    const answer = post(`${url}/v1/transactions`, body, headers);
    await replica.waits.until('a bundle', () => (replica.submitted.length > before ? true : undefined));
    await replica.decide([[bundleOf(), ...replica.submitted.slice(before)], [bundleOf()]], () => false);
    const { status, body: result } = await answer;
    t.equal(status, 200);
    t.match(result, { status: 'committed', transactionCount: expected.length, firstTransaction: 2 });
    const receipts = (result as unknown as { receipts: unknown[] }).receipts;
    t.strictSame(
      receipts.map((receipt) => {
        const proven = verifyTransactionReceipt(JSON.stringify(receipt), context);
        return 'refused' in proven ? proven : Buffer.from(proven.transaction).toString();
      }),
      expected,
    );
    const again = await ask(`${url}/v1/bundles/${(result as unknown as { bundle: string }).bundle}`);
    t.strictSame(again.body, result, 'the same from the log');
    const part = await ask(
      `${url}/v1/bundles/${(result as unknown as { bundle: string }).bundle}?first=${expected.length - 1}&count=1&receipts=none`,
    );
    t.match(part.body, { transactionCount: 1, firstTransaction: 1 + expected.length });
    t.notOk('receipts' in part.body);
  }
  t.strictSame(
    replica.submitted.map(({ sequence }) => sequence),
    [1, 2, 3, 4],
    'one session, in sequence',
  );
  t.strictSame(errors, []);
});

t.test(
  'A14, WIRE-26: receipts that each prove many epochs are in one answer only where that is not too large',
  async (t) => {
    const epochs = { links: Array.from({ length: 3 }, () => new Uint8Array(2048)) };
    t.ok(receiptsFit(asEpoch(2), 2048, epochs));
    t.notOk(receiptsFit(asEpoch(2), 2049, epochs));
    t.notOk(receiptsFit(asEpoch(3), 2048, epochs));
    t.ok(receiptsFit(asEpoch(0), 1 << 20, epochs));
  },
);

t.test('HTTP: requests of one moment share bundles; accepted, pending, refused, taken back', async (t) => {
  const { replica, url, metrics } = await world(t);
  const many = Array.from({ length: 30 }, (_, i) => post(`${url}/v1/transactions?receipts=none`, hex(`m${i}`)));
  // Nothing is decided before every session has a bundle in flight: the other requests wait, and then go together.
  await replica.waits.until('eight bundles', () => (replica.submitted.length >= 8 ? true : undefined));
  const metricsSay = async () => /synod_http_connections (\d+)/.exec(await metrics.scrape())?.[1];
  while ((await metricsSay()) !== '30') await turn();
  const timer = setInterval(() => {
    const open = replica.submitted.filter(
      (bundle) => !replica.blocks.some(({ block }) => block.bundles.includes(bundle)),
    );
    if (open.length > 0) void replica.decide([open]);
  }, 1);
  const answers = await Promise.all(many);
  clearInterval(timer);
  t.ok(answers.every(({ status }) => status === 200));
  const ordered = replica.blocks.flatMap(({ block }) =>
    block.bundles.flatMap(({ transactions }) => transactions.map((each) => Buffer.from(each).toString())),
  );
  t.strictSame([...ordered].sort(), Array.from({ length: 30 }, (_, i) => `m${i}`).sort(), 'each once');
  t.ok(replica.submitted.length < 30, `${replica.submitted.length} bundles`);

  const accepted = await post(`${url}/v1/transactions?wait=accepted`, hex('a'));
  t.equal(accepted.status, 202);
  t.match(accepted.body, { status: 'accepted', transactionCount: 1 });
  const location = accepted.headers.get('location') ?? '';
  t.equal((await ask(`${url}${location}`)).status, 404, 'not decided yet');
  await replica.decide([[replica.submitted.at(-1)!]]);
  t.match((await ask(`${url}${location}`)).body, { status: 'committed' });

  const pending = await post(`${url}/v1/transactions?timeout=20`, hex('p'));
  t.strictSame([pending.status, (pending.body as { status?: string }).status], [202, 'pending']);

  for (const code of ['pool-full', 'client-quota', 'sessions-full', 'valid-until-too-far'] as const) {
    replica.verdict = () => code;
    const refused = await post(`${url}/v1/transactions`, hex(code));
    t.strictSame(
      [refused.status, codeOf(refused)],
      [code === 'client-quota' ? 429 : 503, code === 'valid-until-too-far' ? 'not-ordered' : code],
    );
    t.equal(refused.headers.get('retry-after'), '1');
  }
  replica.takes = false;
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('b'))), 'busy');
  replica.takes = true;
  // The session is gone: what was refused goes into a new one, and is not lost.
  let gaps = 0;
  replica.verdict = ({ sequence }) => (sequence > 1 && gaps++ < 2 ? 'sequence-gap' : 'pooled');
  const before = replica.submitted.length;
  const moved = post(`${url}/v1/transactions?receipts=none`, hex('moved'));
  const fresh = await replica.waits.until('a bundle of a new session', () =>
    replica.submitted.slice(before).find(({ sequence }) => sequence === 1),
  );
  await replica.decide([[fresh]]);
  t.equal((await moved).status, 200);
});

t.test('HTTP: an Idempotency-Key joins the first request', async (t) => {
  const { replica, url } = await world(t);
  const headers = { ...jsonType, 'idempotency-key': 'k-1' };
  const first = await post(`${url}/v1/transactions?wait=accepted`, hex('once'), headers);
  const second = post(`${url}/v1/transactions`, hex('once'), headers);
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('twice'), headers)), 'idempotency-key-reused');
  t.equal(
    codeOf(await post(`${url}/v1/transactions`, hex('x'), { ...jsonType, 'idempotency-key': 'ä b' })),
    'idempotency-key-invalid',
  );
  await replica.decide([replica.submitted]);
  t.equal((await second).body.bundle, first.body.bundle);
  t.equal(replica.submitted.length, 1);
});

// ---- refused is not ordered, so that whoever sends it again has it ordered once ---------------------------------------------------

const textsOf = (bundles: readonly SignedBundle[]) =>
  bundles.flatMap(({ transactions }) => transactions.map((each) => Buffer.from(each).toString()));
const sessionOf = ({ session, sequence }: SignedBundle) => `${session}/${sequence}`;
const outcomeOf = ({ status, body }: Answer) => [status, (body as { status?: string }).status];

t.test('HTTP: what was ordered in blocks that are not here is never sent again (SES-6)', async (t) => {
  const { replica, url, metrics } = await world(t);
  // One more than there are sessions, and one that joins it: they wait for a place.
  replica.verdict = () => undefined;
  const names = Array.from({ length: 10 }, (_, i) => `o${i}`);
  const posts: Promise<Answer>[] = [];
  for (const [i, name] of names.entries()) {
    posts.push(post(`${url}/v1/transactions?timeout=60000&wait=${i === 1 ? 'accepted' : 'committed'}`, hex(name)));
    if (i < 8) await replica.waits.until(`bundle ${i}`, () => (replica.submitted.length === i + 1 ? true : undefined));
  }
  const connections = async () => /synod_http_connections (\d+)/.exec(await metrics.scrape())?.[1];
  while ((await connections()) !== '10') await turn();
  await ask(`${url}/healthz`);
  const first = replica.submitted.slice();
  t.equal(first.length, 8, 'two wait');
  for (const { digest } of first) replica.admit(digest, 'sequence-passed');
  for (const [i, answer] of (await Promise.all(posts.slice(0, 8))).entries()) {
    t.strictSame(outcomeOf(answer), [202, i === 1 ? 'accepted' : 'pending'], 'at once, and not refused');
    t.equal((answer.body as { bundle?: string }).bundle, toHex(first[i]!.digest), 'with where to ask for it');
  }
  // The sessions are free again, and those that waited go.
  await replica.waits.until('the others', () => (textsOf(replica.submitted).length >= 10 ? true : undefined));
  const more = replica.submitted.slice(8);
  t.notOk(
    more.some(({ session }) => first.some((before) => before.session === session)),
    'in other sessions',
  );
  await replica.decide([more]);
  for (const answer of await Promise.all(posts.slice(8))) t.strictSame(outcomeOf(answer), [200, 'committed']);
  t.strictSame(textsOf(replica.submitted).sort(), names, 'each was sent once');
});

t.test('HTTP: a request that was taken back is over, for its Idempotency-Key as well', async (t) => {
  const { replica, url } = await world(t);
  replica.verdict = () => undefined;
  const open: Promise<Answer>[] = [];
  for (let i = 0; i < 8; i++) {
    open.push(post(`${url}/v1/transactions?timeout=60000`, hex(`w${i}`)));
    await replica.waits.until(`bundle ${i}`, () => (replica.submitted.length === i + 1 ? true : undefined));
  }
  const headers = { ...jsonType, 'idempotency-key': 'late' };
  const taken = await Promise.all([
    post(`${url}/v1/transactions?timeout=60000`, hex('late'), headers),
    post(`${url}/v1/transactions?timeout=300`, hex('late'), headers),
  ]);
  t.strictSame(taken.map(codeOf), ['busy', 'busy'], 'whoever joined it does not wait in vain');
  await replica.decide([replica.submitted]);
  for (const answer of await Promise.all(open)) t.strictSame(outcomeOf(answer), [200, 'committed']);
  const again = post(`${url}/v1/transactions?timeout=60000`, hex('late'), headers);
  await replica.waits.until('the ninth', () => (replica.submitted.length === 9 ? true : undefined));
  await replica.decide([replica.submitted.slice(8)]);
  t.strictSame(outcomeOf(await again), [200, 'committed']);
  t.equal(textsOf(replica.submitted).filter((each) => each === 'late').length, 1);
});

t.test(
  'HTTP: where nobody could look whether it was ordered, it is not refused, and its sequence is not used again',
  async (t) => {
    const { replica, url } = await world(t);
    const { log } = replica;
    const find = log.findBundle.bind(log);
    for (const code of ['sequence-passed', 'expired'] as const) {
      log.findBundle = () => Promise.reject(new Error('no look-ups'));
      replica.verdict = () => code;
      const headers = { ...jsonType, 'idempotency-key': code };
      t.strictSame(outcomeOf(await post(`${url}/v1/transactions?timeout=60000`, hex(code), headers)), [202, 'pending']);
      t.strictSame(outcomeOf(await post(`${url}/v1/transactions`, hex(code), headers)), [202, 'pending'], 'by its key');
      log.findBundle = find;
      replica.verdict = () => 'pooled';
      const next = post(`${url}/v1/transactions`, hex(`after ${code}`));
      await replica.waits.until('the next one', () =>
        textsOf(replica.submitted).includes(`after ${code}`) ? true : undefined,
      );
      await replica.decide([replica.submitted.slice(-1)]);
      t.strictSame(outcomeOf(await next), [200, 'committed']);
    }
    t.equal(new Set(replica.submitted.map(sessionOf)).size, replica.submitted.length, 'every place was used once');
    t.strictSame(textsOf(replica.submitted), ['sequence-passed', 'after sequence-passed', 'expired', 'after expired']);
  },
);

t.test('HTTP: out of date is refused only where every block was looked into in which it could stand', async (t) => {
  const horizon = 64;
  const { replica, url } = await world(t, { parameters: { validUntilHorizon: horizon } });
  replica.verdict = () => undefined;
  const submitted = async (name: string) => {
    const answer = post(`${url}/v1/transactions?timeout=60000`, hex(name));
    const bundle = await replica.waits.until(name, () =>
      replica.submitted.find((each) => textsOf([each]).includes(name)),
    );
    return { answer, bundle };
  };
  const others = (count: number) => Array.from({ length: count }, () => [bundleOf('o', { count: 1 })]);

  const never = await submitted('never');
  const { log } = replica;
  const [write, disk] = [log.write.bind(log), new Gate()];
  log.write = async (records) => {
    await disk.opened;
    return write(records);
  };
  const durable = replica.decide(others(horizon));
  replica.admit(never.bundle.digest, 'expired');
  t.equal(codeOf(await never.answer), 'not-ordered', 'though the last blocks are still on their way to the disk');
  disk.open();
  await durable;

  const late = await submitted('late');
  await replica.decide([...others(horizon - 1), [late.bundle]]);
  t.strictSame(outcomeOf(await late.answer), [200, 'committed'], 'at its last height');

  const ahead = await submitted('ahead');
  await replica.decide(others(horizon - 1));
  replica.admit(ahead.bundle.digest, 'expired');
  t.strictSame(outcomeOf(await ahead.answer), [202, 'pending'], 'the verdict is ahead of the blocks: one is missing');

  const away = await submitted('away');
  await replica.resetTo(4 * horizon);
  await replica.decide(others(1));
  replica.admit(away.bundle.digest, 'expired');
  t.strictSame(
    outcomeOf(await away.answer),
    [202, 'pending'],
    'it may stand in blocks that were taken over with a state',
  );
  t.strictSame(textsOf(replica.submitted), ['never', 'late', 'ahead', 'away'], 'each was sent once');
});

t.test('[EPO-8] HTTP: a change of the epoch goes alone, and a refused one is refused with its code', async (t) => {
  const { replica, url } = await world(t);
  const body = typed('application/octet-stream');
  const control = Buffer.concat([text('synod-v1:control'), text('and so on')]);
  const answers = [
    post(`${url}/v1/transactions`, text('before'), body),
    post(`${url}/v1/transactions`, control, body),
    post(`${url}/v1/transactions`, text('after'), body),
  ];
  await replica.waits.until('three', () =>
    replica.submitted.flatMap((b) => b.transactions).length === 3 ? true : undefined,
  );
  const alone = replica.submitted.find(({ transactions }) =>
    transactions.some((each) => each.length === control.length),
  );
  t.equal(alone?.transactions.length, 1);
  replica.admit(alone!.digest, 'control-refused');
  const refused = await answers[1]!;
  t.strictSame([refused.status, codeOf(refused)], [422, 'control-refused']);
  await replica.decide([replica.submitted.filter((bundle) => bundle !== alone)]);
  for (const i of [0, 2]) t.equal((await answers[i]!).status, 200);

  // With a signature that is not valid it is not even handed on: peers would blame this replica.
  const { epoch } = new EpochWorld();
  const sound = opened(controlFor(epoch, { changes: [adding('e')], by: ['a'] }));
  const bent = sound.signatures.map((each) => ({ ...each, signature: new Uint8Array(64) }));
  const wrong = await post(`${url}/v1/transactions`, encodeControl({ ...sound, signatures: bent }), body);
  t.strictSame([wrong.status, codeOf(wrong)], [422, 'control-refused']);
});

t.test('[EPO-15] HTTP: at the end of the epoch a request is told where its bundle is to be asked for', async (t) => {
  const { replica, url } = await world(t);
  const answer = post(`${url}/v1/transactions`, text('in flight'), typed('application/octet-stream'));
  await replica.waits.until('a bundle', () => (replica.submitted.length === 1 ? true : undefined));
  const ending = new EpochWorld();
  const next = ending.end({ changes: [adding('e')], by: ['a', 'b', 'c'], joins: { e: 0 } });
  const { block, certificate } = ending.blocks[0]!;
  const control = block.bundles[0]!.transactions[0]!;
  replica.endEpoch({
    next,
    link: { headerBytes: block.headerBytes, certificate, control },
    waiting: replica.submitted,
  });
  const { status, body } = await answer;
  t.match({ status, body }, { status: 202, body: { status: 'pending', bundle: toHex(replica.submitted[0]!.digest) } });
  const after = await post(`${url}/v1/transactions`, text('too late'), typed('application/octet-stream'));
  t.strictSame([after.status, codeOf(after)], [503, 'draining']);
});

t.test('HTTP: reads', async (t) => {
  const { replica, url, http } = await world(t);
  t.match((await ask(`${url}/v1/blocks`)).body, { blocks: [], head: 0, lowest: 1 }, 'an empty log');
  await replica.decide(
    Array.from({ length: 40 }, () => [bundleOf('r')]),
    (i) => i % 2 === 1,
  );
  const newest = (await ask(`${url}/v1/blocks`)).body as unknown as {
    blocks: { header: { height: number }; certificate: unknown }[];
    next: number;
  };
  t.strictSame([newest.blocks.length, newest.blocks[0]?.header.height, newest.next], [32, 9, 41]);
  const some = (await ask(`${url}/v1/blocks?from=3&limit=2`)).body as unknown as typeof newest;
  t.strictSame(
    some.blocks.map(({ header, certificate }) => [header.height, certificate === null]),
    [
      [3, true],
      [4, false],
    ],
  );
  const one = (await ask(`${url}/v1/blocks/7`)).body as unknown as {
    header: { hash: string };
    links: string[];
    bundles: { transactions: string[] }[];
  };
  const truth = replica.blocks[6]!.block;
  t.equal(one.header.hash, toHex(truth.hash));
  t.equal(one.links.length, 1, 'the header above, which is certified');
  t.strictSame(one.bundles[0]?.transactions, truth.bundles[0]!.transactions.map(toHex));
  const based = (await ask(`${url}/v1/blocks/7?encoding=base64`)).body as unknown as typeof one;
  t.strictSame(
    based.bundles[0]?.transactions,
    truth.bundles[0]!.transactions.map((each) => Buffer.from(each).toString('base64')),
  );
  t.equal(codeOf(await ask(`${url}/v1/blocks/41`)), 'block-not-found');
  for (const [path, code] of [
    ['/v1/blocks/0', 'path-invalid'],
    ['/v1/blocks/1e3', 'path-invalid'],
    ['/v1/blocks/99999999999999999999', 'path-invalid'],
    ['/v1/blocks/', 'path-invalid'],
    ['/v1/blocks/7?encoding=xml', 'query-invalid'],
    ['/v1/blocks/7?colour=red', 'query-invalid'],
    ['/v1/blocks?from=1&from=2', 'query-invalid'],
    ['/v1/blocks?limit=257', 'query-invalid'],
    ['/v1/bundles/xyz', 'path-invalid'],
    [`/v1/bundles/${'0'.repeat(64)}`, 'bundle-not-found'],
    ['/v2/blocks', 'not-found'],
    ['/../etc/passwd', 'not-found'],
    ['/%00', 'not-found'],
    [`/${'x'.repeat(3000)}`, 'path-invalid'],
  ] as const)
    t.equal(codeOf(await ask(url + path)), code, path.slice(0, 60));
  const genesisBytes = new Uint8Array(await (await fetch(`${url}/v1/genesis`)).arrayBuffer());
  t.ok(equalBytes(genesisBytes, genesisDocument), 'byte for byte');
  t.match(await (await fetch(`${url}/metrics`)).text(), /synod_height 40/);
  t.strictSame((await ask(`${url}/v1/openapi.json`)).body, openapi);
  const head = await fetch(`${url}/healthz`, { method: 'HEAD' });
  t.strictSame([head.status, await head.text()], [200, '']);
  t.equal(http.routes.length, 16);
  await replica.resetTo(900);
  const pruned = await ask(`${url}/v1/blocks/7`);
  t.strictSame([pruned.status, codeOf(pruned)], [410, 'block-pruned']);
});

t.test('HTTP: /readyz says why not, /v1/status says where', async (t) => {
  const { replica, url, http } = await world(t);
  const calm = replica.explanation;
  t.match((await ask(`${url}/readyz`)).body, { ready: true, height: 0 });
  const away = calm.peers.map((peer, i) => ({ ...peer, connected: i === 0 }));
  const since = asMillis(calm.at - 400);
  const wait = {
    what: 'view-change',
    height: asHeight(1),
    view: asView(1),
    have: 1,
    need: 3,
    missing: [asReplicaId(2)],
    since,
  } as const;
  for (const [explanation, code, words] of [
    [
      { ...calm, peers: away },
      'no-quorum',
      '2 of 4 replicas answer, 3 are needed; replica-2 was last heard 0 ms ago, replica-3 was last heard 0 ms ago',
    ],
    [
      { ...calm, phase: 'view-change', waits: [wait] },
      'view-change',
      'no view is active for 400 ms: 1 of 4 replicas ask for view 1, 3 are needed; replica-2 answers and has not asked',
    ],
    [
      { ...calm, phase: 'catching-up', highestSeen: asHeight(900) },
      'catching-up',
      'replica-1 is catching up: at height 0 of 900',
    ],
    [
      { ...calm, peers: away, phase: 'quarantine', waits: [{ ...wait, what: 'standing' }] },
      'quarantine',
      'replica-1 votes for nothing for 400 ms, for what its key has signed is not known; 1 of the 3 replicas that must say what they can prove have done so, missing replica-2',
    ],
    [
      { ...calm, phase: 'quarantine', waits: [{ ...wait, what: 'readmission', height: asHeight(33), missing: [] }] },
      'quarantine',
      'replica-1 votes for nothing for 400 ms, for what its key has signed is not known; it votes again when block 33 is decided',
    ],
    [
      { ...calm, phase: 'quarantine', waits: [{ ...wait, what: 'new-view', view: asView(2), missing: [] }] },
      'quarantine',
      'replica-1 votes for nothing for 400 ms, for what its key has signed is not known; it votes again when the others have entered view 2',
    ],
    [{ ...calm, highestSeen: asHeight(9) }, 'catching-up', 'replica-1 is catching up: at height 0 of 9'],
  ] as const) {
    replica.explanation = explanation;
    const { status, body } = await ask(`${url}/readyz`);
    t.strictSame([status, body], [503, { error: { code, message: words } }]);
  }
  replica.explanation = { ...calm, highestSeen: asHeight(8), waits: [{ ...wait, what: 'prepare' }] };
  t.equal((await ask(`${url}/readyz`)).status, 200, 'a window ahead is the normal case');
  const { body } = await ask(`${url}/v1/status`);
  t.match(body, {
    node: { name: 'replica-1', version: '0.1.0' },
    chain: { name: 'doors', chainId: toHex(chainId), protocol: 'pbft' },
    ready: true,
    primary: { name: 'replica-0' },
    waits: [{ missing: [{ name: 'replica-2' }], words: /1 of 3/ }],
    peers: [{ name: 'replica-0' }, { name: 'replica-2' }, { name: 'replica-3' }],
  });
  http.drain();
  t.equal(codeOf(await ask(`${url}/readyz`)), 'draining');
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('x'))), 'draining');
  t.equal((await ask(`${url}/healthz`)).status, 200, 'alive all the same');
});

t.test('HTTP: hostile bodies get a code, and nothing is submitted (A26)', async (t) => {
  const { replica, url, errors } = await world(t);
  const where = `${url}/v1/transactions`;
  const octets = typed('application/octet-stream');
  const unsupported = 'content-type-unsupported';
  for (const [name, body, headers, code, field] of [
    ['not JSON', '{"transactions":', jsonType, 'body-not-json', undefined],
    ['not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), jsonType, 'body-not-json', undefined],
    ['deep', '['.repeat(200_000), jsonType, 'body-not-json', undefined],
    ['deep and closed', '['.repeat(100_000) + ']'.repeat(100_000), jsonType, 'body-invalid', undefined],
    ['null', 'null', jsonType, 'body-invalid', undefined],
    ['nothing', '', jsonType, 'body-not-json', undefined],
    ['no transaction', hex(), jsonType, 'body-invalid', 'transactions'],
    ['an empty one', hex('a', ''), jsonType, 'transaction-empty', 'transactions.1'],
    ['no encoding', '{"transactions":["aa"]}', jsonType, 'body-invalid', 'encoding'],
    ['not hex', '{"encoding":"hex","transactions":["aa","xy"]}', jsonType, 'body-invalid', 'transactions.1'],
    ['odd hex', '{"encoding":"hex","transactions":["aaa"]}', jsonType, 'body-invalid', 'transactions.0'],
    ['not base64', '{"encoding":"base64","transactions":["a"]}', jsonType, 'body-invalid', 'transactions.0'],
    ['numbers', '{"encoding":"hex","transactions":[1]}', jsonType, 'body-invalid', 'transactions.0'],
    ['an object', '{"encoding":"hex","transactions":{"length":3}}', jsonType, 'body-invalid', 'transactions'],
    ['unknown', '{"encoding":"hex","transactions":["aa"],"x":1}', jsonType, 'body-invalid', 'x'],
    ['__proto__', '{"__proto__":{"encoding":"hex"},"transactions":["aa"]}', jsonType, 'body-invalid', '__proto__'],
    [
      'too many',
      `{"encoding":"hex","transactions":[${'"aa",'.repeat(1024)}"aa"]}`,
      jsonType,
      'transactions-too-many',
      'transactions',
    ],
    ['a large one', hex('x'.repeat(131_073)), jsonType, 'transaction-too-large', 'transactions.0'],
    ['large together', hex('x'.repeat(131_072), 'y'.repeat(131_072)), jsonType, 'bundle-too-large', 'transactions'],
    ['an empty body', new Uint8Array(0), octets, 'body-empty', undefined],
    ['a large body', new Uint8Array(131_073), octets, 'transaction-too-large', undefined],
    ['a huge body', new Uint8Array(2 << 20), octets, 'body-too-large', 'content-length'],
    ['a form', 'a=b', typed('application/x-www-form-urlencoded'), unsupported, 'content-type'],
    ['another charset', hex('a'), typed('application/json; charset=utf-16'), unsupported, 'content-type'],
    [
      'packed',
      hex('a'),
      { ...jsonType, 'content-encoding': 'gzip' },
      'content-encoding-unsupported',
      'content-encoding',
    ],
  ] as const) {
    const answer = await post(where, body, headers);
    t.strictSame([codeOf(answer), fieldOf(answer)], [code, field], name);
  }
  for (const [query, code] of [
    ['wait=forever', 'query-invalid'],
    ['timeout=0', 'query-invalid'],
    ['timeout=60001', 'query-invalid'],
    ['x', 'query-invalid'],
  ])
    t.equal(codeOf(await post(`${where}?${query}`, hex('a'))), code, query ?? '');
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (body) => {
      const { status } = await post(where, body);
      return status >= 400 && status < 500;
    }),
    { numRuns: 100, seed: 3 },
  );
  t.equal(replica.submitted.length, 0);
  t.strictSame(errors, []);
});

t.test('HTTP: methods, malformed requests, slow ones, and floods (A25)', async (t) => {
  const { url, http, replica } = await world(t, {
    http: { requestMsMax: 300, headersMsMax: 200, checkMs: 20, bodiesBytesMax: 2 << 20 },
  });
  for (const [method, path, allow] of [
    ['DELETE', '/v1/blocks', 'GET, HEAD'],
    ['GET', '/v1/transactions', 'POST'],
    ['OPTIONS', '/v1/transactions', 'POST'],
  ] as const) {
    const answer = await ask(url + path, { method });
    t.strictSame(
      [answer.status, codeOf(answer), answer.headers.get('allow')],
      [405, 'method-not-allowed', allow],
      `${method} ${path}`,
    );
  }
  const head = 'POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';
  for (const [name, bytes, expected] of [
    ['not HTTP', 'hello\r\n\r\n', /^HTTP\/1.1 400 .*"code":"request-malformed"/s],
    [
      'large headers',
      `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(9000)}\r\n\r\n`,
      /^HTTP\/1.1 431 .*"code":"headers-too-large"/s,
    ],
    ['two lengths', `${head}content-length: 4\r\ncontent-length: 5\r\n\r\nabcd`, /^HTTP\/1.1 400 /],
    [
      'a length and chunks',
      `${head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
      /^HTTP\/1.1 400 /,
    ],
    ['a negative length', `${head}content-length: -1\r\n\r\n`, /^HTTP\/1.1 400 /],
    ['headers that never end', 'GET / HTTP/1.1\r\nhost: x\r\n', /^HTTP\/1.1 408 .*"code":"request-timeout"/s],
    ['a body that never ends', `${head}content-length: 100\r\n\r\n{`, /^HTTP\/1.1 408 .*"code":"request-timeout"/s],
    [
      'chunks beyond the bound',
      `${head}transfer-encoding: chunked\r\n\r\n${`ffff\r\n${'a'.repeat(0xffff)}\r\n`.repeat(10)}`,
      /^HTTP\/1.1 413 .*"code":"body-too-large"/s,
    ],
    [
      'a length beyond the bound',
      `${head}content-length: 999999999\r\n\r\n`,
      /^HTTP\/1.1 413 .*"code":"body-too-large"/s,
    ],
  ] as const)
    t.match(await rawHttp(http.port, bytes), expected, name);

  // Bodies that were announced and never come take their memory from a bounded budget.
  const uploads = Array.from({ length: 6 }, () => rawHttp(http.port, `${head}content-length: 500000\r\n\r\n{`));
  const answers = await Promise.all(uploads);
  t.equal(answers.filter((answer) => answer.includes('"code":"busy"')).length, 2, 'two of six find no room');
  t.equal(answers.filter((answer) => answer.includes('"code":"request-timeout"')).length, 4);
  const after = post(`${url}/v1/transactions?wait=accepted`, hex('after'));
  t.equal((await after).status, 202, 'the memory came back');

  // A client that goes away in the middle.
  await rawHttp(http.port, `${head}content-length: 100\r\n\r\n{`, (socket) => socket.destroy());
  t.equal((await ask(`${url}/healthz`)).status, 200);
  t.equal(replica.submitted.length, 1);
});

t.test('HTTP: without a key of its own the door only reads; answers that nobody takes are bounded', async (t) => {
  const { url } = await world(t, { signer: null, http: { answersBytesMax: 3000 } });
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('x'))), 'submissions-disabled');
  const full = await ask(`${url}/v1/openapi.json`);
  t.strictSame([full.status, codeOf(full)], [503, 'busy']);
});

t.test('HTTP: a fault of ours is a code, its cause stays inside', async (t) => {
  const { url, replica, errors } = await world(t);
  await replica.decide([[bundleOf()]]);
  await replica.log.close();
  const answer = await ask(`${url}/v1/blocks?from=1`);
  t.strictSame([answer.status, codeOf(answer)], [500, 'internal']);
  t.notMatch(JSON.stringify(answer.body), /storage/);
  t.match(String(errors[0]), /storage-closed/);
});

t.test('HTTP: closing answers what is open, then ends', async (t) => {
  const { url, http, replica } = await world(t, { http: { closeMsMax: 5_000 } });
  const open = post(`${url}/v1/transactions`, hex('last'));
  const bundle = await replica.waits.until('the bundle', () => replica.submitted[0]);
  const closed = http.close();
  await replica.decide([[bundle]]);
  t.equal((await open).status, 200);
  await closed;
  await t.rejects(fetch(`${url}/healthz`));
});

t.test('openapi.json describes exactly the routes, their parameters and the codes', async (t) => {
  const { http } = await world(t);
  interface Operation {
    readonly operationId: string;
    readonly parameters?: readonly { readonly name: string; readonly in: string }[];
    readonly responses: Readonly<Record<string, { readonly description: string }>>;
  }
  // The cast: the document's own type knows only the paths that it has.
  const paths = openapi.paths as Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  t.strictSame(documented.sort(), http.routes.map(({ method, path }) => `${method} ${path}`).sort());
  for (const { method, path, query } of http.routes) {
    const { parameters = [], responses } = paths[path]![method.toLowerCase()]!;
    const named = (place: string) => parameters.filter((each) => each.in === place).map(({ name }) => name);
    t.strictSame(named('query'), [...query], `${path}: query`);
    t.strictSame(
      named('path'),
      [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
      `${path}: path`,
    );
    t.ok('200' in responses, path);
  }
  t.strictSame(
    [...openapi.components.schemas.Error.properties.error.properties.code.enum].sort(),
    [...problemCodes].sort(),
  );
  const references = JSON.stringify(openapi).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g);
  t.strictSame(
    [...new Set([...references].map(([, name]) => name ?? ''))].filter((name) => !(name in openapi.components.schemas)),
    [],
  );
  const mentioned = new Set(
    [...JSON.stringify(openapi.paths).matchAll(/Codes: ([a-z, -]+)\./g)].flatMap(([, list]) =>
      (list ?? '').split(', '),
    ),
  );
  const general = ['not-found', 'method-not-allowed', 'headers-too-large'];
  t.strictSame(
    problemCodes.filter((code) => !mentioned.has(code) && !general.includes(code)),
    [],
    'every code stands at a route',
  );
});
