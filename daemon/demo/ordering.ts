// The middle of the demo: submits the bundles at their pace, follows the chain beside it, kills the primary half-way and starts it
// again, and measures. Times are on the clock of performance.now().

import type { BundleReceipt, Client } from '../../client/index.ts';
import type { Bytes } from '../../crypto/bytes.ts';
import { hasLeader } from '../../protocol/modes.ts';
import { within } from '../cli/clients.ts';
import { Complaint } from '../cli/errors.ts';
import { pause, type Stage } from './stage.ts';
import type { Teller } from './teller.ts';

const receiptMsMax = 60_000;
const viewChangeMsMax = 30_000;
const catchUpMsMax = 60_000;
/** Of the transactions, when the killed replica is started again. */
const restartShare = 0.75;

export interface Plan {
  readonly bundles: readonly (readonly Bytes[])[];
  /** From one bundle to the next. */
  readonly paceMs: number;
}

export interface Committed {
  readonly receipt: BundleReceipt;
  readonly sentAt: number;
  readonly committedAt: number;
}

export interface Crash {
  readonly replica: string;
  readonly killedAt: number;
  /** Committed at that moment, of the transactions submitted. */
  readonly committedThen: number;
  readonly oldView: number;
  /** Null: no other replica entered a later view. */
  readonly viewChange: { readonly view: number; readonly primary: string; readonly at: number } | null;
  readonly restartedAt: number;
  /** How far behind it was when it was started. */
  readonly behind: number;
  /** Null: it did not catch up. */
  readonly caughtUpAt: number | null;
}

/** What a follower received, in its order. */
export class Follower {
  readonly transactions: Bytes[] = [];
  blocks = 0;
  height = 0;

  async run(client: Client, wanted: number): Promise<void> {
    for await (const { header, bundles } of client.follow({ from: 1 })) {
      this.blocks += 1;
      this.height = header.height;
      // Copies: what the stream hands out are views into its buffers.
      for (const bundle of bundles ?? [])
        for (const transaction of bundle.transactions) this.transactions.push(transaction.slice());
      if (this.transactions.length >= wanted) return;
    }
  }
}

/** Where the submitting stands; read by the panel. */
export class Progress {
  sent = 0;
  committed = 0;
  readonly receipts: Committed[] = [];
}

export async function submitAll(client: Client, { bundles, paceMs }: Plan, progress: Progress): Promise<void> {
  const startedAt = performance.now();
  const answers: Promise<void>[] = [];
  for (const [index, bundle] of bundles.entries()) {
    const wait = startedAt + index * paceMs - performance.now();
    if (wait > 0) await pause(wait);
    if (!client.writable) await client.drained();
    const sentAt = performance.now();
    progress.sent += bundle.length;
    const answer = client.submitBundle(bundle).then((receipt) => {
      progress.receipts[index] = { receipt, sentAt, committedAt: performance.now() };
      progress.committed += bundle.length;
    });
    // Awaited below; until then a failure must not count as unhandled.
    answer.catch(() => undefined);
    answers.push(answer);
  }
  await within(
    receiptMsMax,
    Promise.all(answers),
    () =>
      new Complaint({
        code: 'not-ordered',
        sentence: `${progress.sent - progress.committed} transactions have no receipt ${receiptMsMax / 1000} s after the last was sent`,
      }),
  );
}

/** Kills the primary once half of the transactions are committed, and starts it again later. */
export async function crashPrimary(stage: Stage, teller: Teller, progress: Progress, total: number): Promise<Crash> {
  const { watch, cluster } = stage;
  const { genesis } = stage.network;
  const { bold, red, green, yellow } = teller.palette;
  await stage.until(() => progress.committed >= total / 2);
  const lead = watch.lead();
  if (lead === null) throw new Complaint({ code: 'no-primary', sentence: 'no replica says who leads' });
  const { primary: replica, view: oldView } = lead;
  const committedThen = progress.committed;
  const pid = cluster.pidOf(replica);
  const heightThen = watch.of(replica)?.height ?? 0;
  const killedAt = performance.now();
  await cluster.kill(replica);
  teller.say(
    `${red(bold(`SIGKILL ${replica}`))} (pid ${pid})${hasLeader(genesis) ? `, the primary of view ${oldView}` : ''}, with ${committedThen} transactions committed`,
  );

  const entered = () =>
    watch.events.find(
      ({ type, view, replica: by, at }) =>
        type === 'view-entered' && by !== replica && at > killedAt && (view ?? 0) > oldView,
    );
  if (hasLeader(genesis)) await stage.until(() => entered() !== undefined, viewChangeMsMax);
  const event = entered();
  const primary = genesis.members[Number(event?.entry.primary)]?.name ?? '?';
  const viewChange = event === undefined ? null : { view: event.view ?? 0, primary, at: event.at };

  await stage.until(() => progress.committed >= total * restartShare);
  const behind = watch.height(replica) - heightThen;
  const restartedAt = performance.now();
  cluster.start(replica);
  teller.say(`${yellow(`start ${replica} again`)} (pid ${cluster.pidOf(replica)}), about ${behind} blocks behind`);
  // Behind by no more than what was decided between two looks at the others.
  let others = watch.height(replica);
  const caughtUp = () => {
    const own = watch.of(replica);
    const isThere = own !== null && own.height >= others && own.phase !== 'catching-up';
    others = watch.height(replica);
    return isThere;
  };
  const caughtUpAt = (await stage.until(caughtUp, catchUpMsMax)) ? performance.now() : null;
  if (caughtUpAt !== null)
    teller.say(
      `${green(`${replica} has caught up`)} at height ${watch.of(replica)?.height}, ${Math.round(caughtUpAt - restartedAt)} ms after its start`,
    );
  return { replica, killedAt, committedThen, oldView, viewChange, restartedAt, behind, caughtUpAt };
}
