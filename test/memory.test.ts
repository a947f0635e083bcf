// What the sign-state file remembers when something was lost: a quarantine, a lost log, the request for a view (docs/adr/0006-amnesia.md).

import { readFile } from 'node:fs/promises';
import t from 'tap';
import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { type Guard, openGuard } from '../keys/guard.ts';
import { contentBytesMax } from '../keys/sign-state.ts';
import { createQuarantined, giveUpLog, inspectSignState } from '../keys/sign-state-file.ts';
import { decodeFile } from '../keys/slots.ts';
import { asEpoch, asHeight, asView, type Hash } from '../protocol/types.ts';
import { frameSigningBytes } from '../protocol/wire/frame.ts';
import {
  A,
  B,
  chainId,
  checkpoint,
  commit,
  filled,
  freshGuard,
  newPath,
  newView,
  none,
  optionsFor,
  prepare,
  promise,
  promiseAndSign,
  proposal,
  reopened,
  verifies,
  viewChange,
} from './guard-kit.ts';

t.setTimeout(200_000);

t.test(
  'REC-1 REC-4: in quarantine nothing that binds is signed, across restarts, until it is readmitted',
  async (t) => {
    const path = newPath();
    const owner = { publicKey: optionsFor(path).secret.publicKey, chainId };
    t.ok(await createQuarantined(path, owner, asEpoch(0)));
    t.notOk(await createQuarantined(path, owner, asEpoch(0)), 'one that is there is never replaced');
    let guard = await openGuard(optionsFor(path));
    for (let round = 0; round < 2; round++) {
      t.ok(guard.state.quarantined);
      for (const pledge of [prepare(9, 99, A), commit(9, 99, A), checkpoint(64, A), viewChange(9, A)])
        await t.rejects(promise(guard, pledge), { code: 'guard-quarantined' });
      await t.rejects(guard.lead(asView(9)), { code: 'guard-quarantined' });
      t.throws(() => guard.signProposal(proposal(9, 99, A)), { code: 'guard-not-leading' });
      t.ok(verifies(frameSigningBytes(chainId, 'status', A), guard.signStatement('status', A)));
      await guard.abstain({ view: asView(2), height: asHeight(7) });
      guard = await reopened(guard, path);
    }
    t.match(guard.state.abstained, { view: 2, height: 7 }, 'what it learns meanwhile is kept');
    await t.rejects(inspectSignState(path, owner), { code: 'guard-locked' });
    const tooLarge = guard.readmit({ view: asView(9), height: asHeight(40), lock: new Uint8Array(1 << 16) });
    await t.rejects(tooLarge, { code: 'guard-lock-too-large' });
    t.ok(guard.state.quarantined, 'without its certificate it is not over');
    await guard.readmit({ view: asView(5), height: asHeight(40), lock: A });
    for (let round = 0; round < 2; round++) {
      t.notOk(guard.state.quarantined);
      t.strictSame(guard.state.lock, A, 'what its view-changes show is kept in the same write');
      await t.rejects(promise(guard, commit(5, 41, A)), { code: 'guard-view-burned' });
      await t.rejects(promise(guard, viewChange(5, A)), { code: 'guard-view-burned' });
      await t.rejects(
        promise(guard, viewChange(6, A)),
        { code: 'guard-conflict' },
        'one that was forgotten may be under way',
      );
      await t.rejects(promise(guard, prepare(6, 40, A)), { code: 'guard-height-passed' });
      guard = await reopened(guard, path);
    }
    await promiseAndSign(guard, prepare(6, 41, A));
    await promiseAndSign(guard, viewChange(7, A));
    await guard.close();
  },
);

t.test('REC-6: without its log a replica keeps its marks, and votes in no view that they speak of', async (t) => {
  const path = newPath();
  const owner = { publicKey: optionsFor(path).secret.publicKey, chainId };
  const order: string[] = [];
  await t.rejects(
    giveUpLog([{ path, owner }], async () => void order.push('moved')),
    { code: 'guard-missing' },
  );
  let guard = await freshGuard(path);
  const log = { sequence: 9, hash: filled(9) };
  await guard.promise({ pledges: [prepare(3, 8, A), checkpoint(8, A)], lock: A, log });
  await t.rejects(
    giveUpLog([{ path, owner }], async () => void order.push('moved')),
    { code: 'guard-locked' },
  );
  t.strictSame(order, [], 'nothing is moved under a running replica, or without marks');
  await guard.close();
  await t.rejects(
    giveUpLog([{ path, owner }], () => Promise.reject(new Error('disk'))),
    { message: 'disk' },
  );
  t.match(
    await inspectSignState(path, owner),
    { hasSigned: true, view: 3, floor: { sequence: 9 } },
    'the floor stands',
  );
  await giveUpLog([{ path, owner }], async () => void order.push('moved'));
  t.strictSame(order, ['moved']);
  t.match(await inspectSignState(path, owner), { quarantined: false, floor: { sequence: 0 } });
  guard = await openGuard(optionsFor(path));
  t.ok(equalBytes(guard.state.lock ?? none, A), 'the certificate that a view change rests on');
  await t.rejects(promise(guard, prepare(3, 9, A)), { code: 'guard-view-burned' });
  await promiseAndSign(guard, viewChange(4, A));
  await promiseAndSign(guard, prepare(4, 8, A));
  await t.rejects(promise(guard, checkpoint(8, B)), { code: 'guard-conflict' });
  await guard.close();
});

t.test('GRD-18: the request for a view is kept until something else is marked there', async (t) => {
  const path = newPath();
  const owner = { publicKey: optionsFor(path).secret.publicKey, chainId };
  const payload = filled(7);
  let guard = await freshGuard(path);
  await promiseAndSign(guard, prepare(2, 8, A));
  t.equal(guard.state.request, null);
  const log = { sequence: 9, hash: filled(9) };
  await guard.promise({ pledges: [viewChange(3, payload)], lock: A, log });
  guard = await reopened(guard, path);
  t.ok(equalBytes(guard.state.request ?? none, payload), 'across a restart');
  t.equal(decodeFile(await readFile(path))?.content[0], 3, 'a layout that an earlier build refuses');
  await guard.close();
  await giveUpLog([{ path, owner }], async () => {});
  guard = await openGuard(optionsFor(path));
  t.match(guard.state, { view: 3, abstained: { view: 2 } }, 'nothing that the request says rests on a log (REC-6)');
  await promiseAndSign(guard, viewChange(3, payload));
  await t.rejects(promise(guard, viewChange(3, A)), { code: 'guard-conflict' });
  t.ok(equalBytes(guard.state.request ?? none, payload));
  await t.rejects(
    guard.promise({ pledges: [viewChange(4, new Uint8Array(contentBytesMax))], lock: null, log }),
    { code: 'guard-lock-too-large' },
    'more than the certificates of 128 replicas',
  );
  t.match(guard.state, { view: 3 }, 'nothing has changed');
  await promiseAndSign(guard, prepare(3, 9, A));
  t.equal(guard.state.request, null, 'a vote');
  await promiseAndSign(guard, viewChange(4, payload));
  await promise(guard, newView(4, A));
  t.equal(guard.state.request, null, 'a new-view');
  await promiseAndSign(guard, viewChange(5, payload));
  await guard.lead(asView(5));
  t.equal(guard.state.request, null, 'a lead');
  await promise(guard, viewChange(6, payload), prepare(7, 9, A));
  t.equal(guard.state.request, null, 'a later view');
  t.strictSame(await stateAfterLoss(guard, path, owner), { view: 7, abstained: 7 }, 'with votes the view is given up');
});

async function stateAfterLoss(guard: Guard, path: string, owner: { publicKey: Bytes; chainId: Hash }) {
  await guard.close();
  await giveUpLog([{ path, owner }], async () => {});
  const again = await openGuard(optionsFor(path));
  const { view, abstained } = again.state;
  await again.close();
  return { view, abstained: abstained.view };
}
