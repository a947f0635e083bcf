// Where a passphrase comes from: a file, the environment, or the keyboard, unseen. Never from an argument, which every user of
// the machine can read in the list of processes.

import { readPassphrase } from '../../keys/passphrase.ts';
import { passphraseSource } from '../config.ts';
import { usageError } from './errors.ts';

export interface PassphraseQuestion {
  readonly file: string | undefined;
  /** What it is for, as the prompt says. */
  readonly purpose: string;
  /** A new passphrase is asked for twice. */
  readonly isNew: boolean;
}

/** Undefined: none was given and there is nobody to ask. */
export async function findPassphrase({ file, purpose, isNew }: PassphraseQuestion): Promise<string | undefined> {
  if (file !== undefined || process.env.SYNOD_PASSPHRASE) return readPassphrase(passphraseSource(file ?? null));
  if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined;
  const typed = await ask(`Passphrase for ${purpose}: `);
  if (typed === '') throw usageError('the passphrase is empty', 'Use --unsealed to keep the key without one.');
  if (isNew && (await ask('The same again: ')) !== typed) throw usageError('the two passphrases differ', 'Try again.');
  return typed;
}

export async function needPassphrase(question: PassphraseQuestion): Promise<string> {
  const passphrase = await findPassphrase(question);
  if (passphrase !== undefined) return passphrase;
  throw usageError(
    `${question.purpose} needs a passphrase and there is nobody to ask`,
    'Give --passphrase-file FILE or set SYNOD_PASSPHRASE.',
  );
}

/** Reads a line from the terminal without showing it. */
function ask(prompt: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { stdin, stderr } = process;
    let typed = '';
    const end = (settle: () => void) => {
      stdin.off('data', onData);
      stdin.setRawMode(false);
      stdin.pause();
      stderr.write('\n');
      settle();
    };
    const onData = (chunk: string) => {
      for (const key of chunk) {
        if (key === '\r' || key === '\n') return end(() => resolve(typed));
        // Ctrl-C and Ctrl-D: raw mode hands them to us instead of making a signal.
        if (key === '\u0003' || key === '\u0004')
          return end(() => reject(usageError('no passphrase was given', 'Try again.')));
        typed = key === '\u007f' || key === '\b' ? [...typed].slice(0, -1).join('') : typed + key;
      }
    };
    stderr.write(prompt);
    stdin.setRawMode(true);
    stdin.setEncoding('utf8');
    stdin.resume();
    stdin.on('data', onData);
  });
}
