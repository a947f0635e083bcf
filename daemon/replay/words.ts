// Steps of a replay in words: what came, and what the core made of it. Names of members are those of the genesis document; what a stranger may have
// put into a recording is printed as data, never as text of its own.

import type { Audience, CoreEvent, Input, Ready } from '../../protocol/core.ts';
import { describeMessage, short } from '../../protocol/describe.ts';
import type { LogRecord } from '../../protocol/log.ts';
import type { ReplicaMessage, ReplicaPledge } from '../../protocol/messages.ts';
import type { ReplicaId } from '../../protocol/types.ts';
import { printable } from '../transport/log.ts';

export type NameOf = (replica: ReplicaId) => string;

/** One input or one effect: what it is, for programs, and in words. */
export interface Told {
  readonly what: string;
  readonly words: string;
  readonly [field: string]: string | number;
}

export function inputTold(input: Input<ReplicaMessage, ReplicaPledge>, nameOf: NameOf): Told {
  const what: string = input.type;
  switch (input.type) {
    case 'message': {
      const { sender, message } = input.signed;
      const from = nameOf(sender);
      return { what, kind: message.kind, from, words: `${from}: ${describeMessage(message)}` };
    }
    case 'own': {
      const { message } = input.signed;
      return { what, kind: message.kind, words: `durable: own ${describeMessage(message)}` };
    }
    case 'refused':
      return { what, kind: input.pledge.kind, words: `the guard refused ${describeMessage(input.pledge)}` };
    case 'bundle': {
      const { transactions, session, sequence, digest } = input.bundle;
      const size = `${transactions.length} transactions`;
      return { what, words: `a client: bundle of ${size}, session ${session}, sequence ${sequence}, ${short(digest)}` };
    }
    case 'read':
      return { what, id: input.id, words: `a user asks for a read point, number ${input.id}` };
    case 'connected':
    case 'disconnected':
      return { what, peer: nameOf(input.peer), words: `${nameOf(input.peer)} ${what}` };
    case 'retained':
      return { what, lowest: input.lowest, words: `the log begins at height ${input.lowest}` };
    case 'leading':
      return { what, view: input.view, words: `durable: it leads view ${input.view}` };
    case 'hand-over':
      return { what, words: 'the operator takes it away soon: if it leads, another one is to lead' };
    case 'stalled':
      return { what, by: input.what, ms: input.ms, words: `held up by its own ${input.what} for ${input.ms} ms` };
    case 'wall':
      return {
        what,
        aheadMs: input.aheadMs,
        leftMs: input.leftMs,
        words: `its wall clock is followed to ${input.aheadMs} ms ahead of its timers' clock, and is ${input.leftMs} ms from there`,
      };
    default:
      return { what, words: fieldsOf(what, input) };
  }
}

/** Of what has no words of its own. */
function fieldsOf(name: string, value: object): string {
  const fields = Object.entries(value).filter(([key]) => key !== 'type');
  return printable([name, ...fields.map(([key, each]) => `${key} ${String(each)}`)].join(' '));
}

/** In the order in which a caller has to do it. */
export function effectsTold(ready: Ready<ReplicaMessage, ReplicaPledge>, nameOf: NameOf): Told[] {
  const to = (whom: Audience) =>
    whom === 'all' ? 'to all' : `to ${(typeof whom === 'number' ? [whom] : whom).map(nameOf).join(', ')}`;
  const told: Told[] = [];
  for (const { from, code, kind } of ready.refusals)
    told.push({ what: 'refusal', from: nameOf(from), code, kind, words: `refuses ${nameOf(from)}'s ${kind}: ${code}` });
  for (const { culprit, first, second } of ready.evidence)
    told.push({
      what: 'evidence',
      culprit: nameOf(culprit),
      words: `evidence against ${nameOf(culprit)}: ${describeMessage(first.message)} and ${describeMessage(second.message)}`,
    });
  for (const event of ready.events) told.push({ what: 'event', event: event.type, words: eventWords(event, nameOf) });
  for (const { block } of ready.deliver) {
    const { height, transactionCount } = block.header;
    const words = `decides height ${height} with ${transactionCount} transactions, ${short(block.hash)}`;
    told.push({ what: 'decided', height, words });
  }
  for (const { digest, code } of ready.admissions)
    told.push({ what: 'admission', code, words: `bundle ${short(digest)}: ${code}` });
  for (const { pledge, to: whom } of ready.pledges) {
    const words = `pledges ${describeMessage(pledge)}${whom === undefined ? '' : ` ${to(whom)}`}`;
    told.push({ what: 'pledge', kind: pledge.kind, words });
  }
  if (ready.lock !== null) {
    const { view, height } = ready.lock;
    told.push({ what: 'lock', view, height, words: `locks height ${height} of view ${view}` });
  }
  if (ready.lead !== null) told.push({ what: 'lead', view: ready.lead, words: `wants to lead view ${ready.lead}` });
  for (const each of ready.send)
    told.push({
      what: 'send',
      kind: each.message.kind,
      words: `sends ${describeMessage(each.message)} ${to(each.to)}`,
    });
  for (const each of ready.resend)
    told.push({
      what: 'resend',
      kind: each.signed.message.kind,
      words: `sends again ${describeMessage(each.signed.message)} ${to(each.to)}`,
    });
  if (ready.records.length > 0) told.push({ what: 'records', words: `writes ${recordWords(ready.records)}` });
  return told;
}

function recordWords(records: readonly LogRecord[]): string {
  const counts = new Map<string, number>();
  for (const { type } of records) counts.set(type, (counts.get(type) ?? 0) + 1);
  return [...counts].map(([type, count]) => (count === 1 ? type : `${count} ${type}`)).join(', ');
}

function eventWords(event: CoreEvent, nameOf: NameOf): string {
  switch (event.type) {
    case 'view-change-started':
      return `asks for view ${event.view}: ${printable(event.reason)}`;
    case 'view-entered':
      return `enters view ${event.view} under ${nameOf(event.primary)}`;
    case 'handing-over':
      return `hands over to ${nameOf(event.to)}`;
    case 'prepared':
      return `height ${event.height} is prepared in view ${event.view}`;
    case 'checkpoint-stable':
      return `checkpoint ${event.height} is stable`;
    case 'checkpoint-installed':
      return `takes the state at height ${event.height} from its peers`;
    case 'catching-up':
      return `is behind: asks for heights ${event.from} to ${event.to}`;
    case 'caught-up':
      return `has caught up at height ${event.height}`;
    default:
      return fieldsOf('event', event);
  }
}
