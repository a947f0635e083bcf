// `synod explain`: how far a height, a bundle or a transaction has come, and why no further. Each replica answers for itself
// (/v1/explain); what most know stands first, then whoever knows less.

import { Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { printable } from '../transport/log.ts';
import { addDoorOptions, type Door, type DoorOptions, findDoors, problemWords } from './doors.ts';
import { Complaint, EXIT } from './errors.ts';
import { paletteFor, writeLine } from './output.ts';
import { fetchAnswer } from './replica-http.ts';

export function explainCommand(): Command {
  const command = new Command('explain')
    .description('how far a block, a bundle or a transaction has come, and why no further')
    .argument('<place>', 'a height, or the SHA-256 of a bundle or a transaction in hex', placeOf)
    .addHelpText(
      'after',
      `
A height is unknown, proposed, prepared, committed, decided or pruned; a bundle or transaction unknown, refused, expired, pooled,
proposed, prepared, committed or decided. Refusals are remembered by the replica that refused, for a while. A decided transaction
is looked for in the newest blocks only; a decided bundle in all that are kept. Exit code 4 if no replica answers.

Examples:
  $ synod explain 42 --network net
  $ echo hello | synod submit --network net        (prints the height and the SHA-256 of the transaction)
  $ synod explain 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 --network net`,
    );
  return addDoorOptions(command).action(explain);
}

function placeOf(text: string): string {
  const height = Number(text);
  if (/^\d{1,16}$/.test(text) && Number.isSafeInteger(height) && height > 0) return String(height);
  if (/^[0-9a-fA-F]{64}$/.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('a height from 1, or 64 characters of hex.');
}

/** How much whoever says so knows: the later, the more. */
const stages = [
  'unknown',
  'refused',
  'expired',
  'pooled',
  'proposed',
  'prepared',
  'committed',
  'pruned',
  'decided',
] as const;

const textCharsMax = 4_096;

/** From outside: what is printed is bounded and made printable; the rest goes on to JSON as it came. */
const answerSchema = z.looseObject({
  replica: z.object({ name: z.string().max(64) }),
  stage: z.enum(stages),
  words: z.string().max(1 << 16),
});

interface Told {
  readonly door: Door;
  readonly name: string;
  readonly answer: z.output<typeof answerSchema> | null;
  readonly problem: string | null;
}

async function explain(place: string, options: DoorOptions): Promise<void> {
  const { doors } = findDoors(options);
  const told = await Promise.all(doors.map((door) => ask(door, place, options.timeout)));
  const answered = told.flatMap(({ name, answer }) => (answer === null ? [] : [{ name, answer }]));
  answered.sort((a, b) => stages.indexOf(b.answer.stage) - stages.indexOf(a.answer.stage));
  const best = answered[0];
  if (options.json === true) {
    const replicas = told.map(({ name, door, answer, problem }) => ({ name, http: door.http, problem, answer }));
    await writeLine(JSON.stringify({ place, stage: best?.answer.stage ?? null, replicas }));
  }
  if (best === undefined)
    throw new Complaint({
      code: 'no-replica-answers',
      sentence: told.map(({ name, problem }) => `${name}: ${problemWords(problem ?? '')}`).join('; '),
      remedy: '`synod why` asks the same doors.',
      exit: EXIT.unreachable,
    });
  if (options.json !== true) await print(best, answered, told);
}

async function ask(door: Door, place: string, timeout: number): Promise<Told> {
  const name = printable(door.name ?? door.http ?? 'replica');
  if (door.http === null) return { door, name, answer: null, problem: 'no-door' };
  const answer = await fetchAnswer(`${door.http}/v1/explain/${place}`, timeout);
  if ('problem' in answer) return { door, name, answer: null, problem: answer.problem };
  const parsed = answerSchema.safeParse(answer.json);
  if (!parsed.success) return { door, name, answer: null, problem: answer.status === 503 ? 'busy' : 'not-synod' };
  return { door, name: door.name ?? printable(parsed.data.replica.name), answer: parsed.data, problem: null };
}

interface Answered {
  readonly name: string;
  readonly answer: z.output<typeof answerSchema>;
}

async function print(best: Answered, answered: readonly Answered[], told: readonly Told[]): Promise<void> {
  const { dim } = paletteFor(process.stdout);
  const same = answered.filter(({ answer }) => answer.stage === best.answer.stage);
  const all = same.length === told.length || told.length === 1;
  await writeLine(`${wordsOf(best)}${all ? '' : ` (${same.length === 1 ? 'says' : 'say'} ${names(same)})`}`);
  for (const each of answered.filter((other) => !same.includes(other)))
    await writeLine(`  ${each.name}: ${wordsOf(each)}`);
  for (const { name, problem } of told)
    if (problem !== null) await writeLine(dim(`  ${name}: ${problemWords(problem)} [${problem}]`));
}

const wordsOf = ({ answer }: Answered): string => answer.words.slice(0, textCharsMax).replace(/[^\x20-\x7e]/g, '?');

const names = (all: readonly Answered[]): string => all.map(({ name }) => name).join(', ');
