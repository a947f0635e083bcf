// Signed notes (c2sp.org/signed-note) and checkpoints (c2sp.org/tlog-checkpoint): the text form in which a quorum of
// replicas vouches for a log, readable by the verifiers of transparency logs. Portable. Signing is not done here.
//
// What is signed is the UTF-8 of the text, its final newline included: encodeUtf8(note.text). Parsing is strict, so that
// one note has one meaning, and looks at no signature: whoever counts a quorum checks each line that claims a known key.

import { fromBase64, toBase64 } from './base64.ts';
import { type Bytes, concat, toHex } from './bytes.ts';
import { HASH_BYTES } from './merkle-node.ts';
import type { Sha256 } from './provider.ts';
import { encodeUtf8, isWellFormed } from './utf8.ts';

export const noteCharsMax = 256 * 1024;
export const noteSignaturesMax = 256;
const nameCharsMax = 255;
/** Other kinds of signature may stand beside ours; the largest in use are post-quantum ones. */
const signatureBytesMax = 8192;
const extensionsMax = 64;
const lineCharsMax = 4096;

/** The algorithm byte of plain Ed25519 signatures in a note's key. */
const ALGORITHM_ED25519 = Uint8Array.of(1);

export interface NoteSignature {
  /** Of the signer: not empty, no blanks, no plus sign, at most 255 characters. */
  readonly name: string;
  /** 4 bytes; a hint which key to try, no proof of anything. */
  readonly keyId: Bytes;
  /** 64 bytes for our keys; parsed notes may carry other kinds, of 1 to 8192 bytes. */
  readonly signature: Bytes;
}

export interface Note {
  /** Ends with a newline. */
  readonly text: string;
  /** At least one; no two of the same name and key id. */
  readonly signatures: readonly NoteSignature[];
}

export type NoteRefusal =
  | 'note-too-large'
  | 'note-text'
  | 'note-no-signature'
  | 'note-too-many-signatures'
  | 'note-signature-line'
  | 'note-duplicate-signature';

export interface Checkpoint {
  /** The log's name: one line, not empty. */
  readonly origin: string;
  /** Leaves, 0 to 2^53 - 1. */
  readonly size: number;
  /** 32 bytes. */
  readonly root: Bytes;
  /** Further lines, each not empty. */
  readonly extensions: readonly string[];
}

export type CheckpointRefusal =
  | 'checkpoint-text'
  | 'checkpoint-origin'
  | 'checkpoint-size'
  | 'checkpoint-root'
  | 'checkpoint-extensions';

/** The first 4 bytes of SHA-256(name || 0x0A || 0x01 || key): the key id of an Ed25519 key of 32 bytes. */
export function noteKeyId(sha256: Sha256, name: string, publicKey: Bytes): Bytes {
  return sha256(concat(encodeUtf8(name), Uint8Array.of(10), ALGORITHM_ED25519, publicKey)).slice(0, 4);
}

/** The key as note verifiers are configured with it: `name+id+base64`. Throws on a name that no note can carry. */
export function noteVerifierKey(sha256: Sha256, name: string, publicKey: Bytes): string {
  if (!isName(name)) throw new Error('noteVerifierKey: name');
  return `${name}+${toHex(noteKeyId(sha256, name, publicKey))}+${toBase64(concat(ALGORITHM_ED25519, publicKey))}`;
}

/** The note as it is stored and served. Throws on what parseNote would refuse. */
export function formatNote(text: string, signatures: readonly NoteSignature[]): string {
  let note = `${text}\n`;
  for (const { name, keyId, signature } of signatures) note += `\u2014 ${name} ${toBase64(concat(keyId, signature))}\n`;
  const parsed = parseNote(note);
  if ('refused' in parsed) throw new Error(`formatNote: ${parsed.refused}`);
  // A text that brings its own blank line and signature-like lines still parses, but as another note.
  const same = parsed.text === text && parsed.signatures.length === signatures.length;
  if (!same || signatures.some(({ keyId }) => keyId.length !== 4))
    throw new Error('formatNote: not a note of this text');
  return note;
}

/** Strict and bounded: at most 256 Ki characters and 256 signatures. */
export function parseNote(note: string): Note | { readonly refused: NoteRefusal } {
  if (note.length > noteCharsMax) return { refused: 'note-too-large' };
  if (!isNoteText(note)) return { refused: 'note-text' };
  // The last blank line, since the text may have some of its own and signature lines have none.
  const split = note.lastIndexOf('\n\n');
  if (split < 1) return { refused: split === 0 ? 'note-text' : 'note-no-signature' };
  const text = note.slice(0, split + 1);
  const lines = note.slice(split + 2).split('\n');
  if (lines.pop() !== '') return { refused: 'note-signature-line' };
  if (lines.length === 0) return { refused: 'note-no-signature' };
  if (lines.length > noteSignaturesMax) return { refused: 'note-too-many-signatures' };
  const signatures: NoteSignature[] = [];
  const seen = new Set<string>();
  for (const line of lines) {
    const signature = parseSignatureLine(line);
    if (signature === undefined) return { refused: 'note-signature-line' };
    const signer = `${signature.name} ${toHex(signature.keyId)}`;
    if (seen.has(signer)) return { refused: 'note-duplicate-signature' };
    seen.add(signer);
    signatures.push(signature);
  }
  return { text, signatures };
}

function parseSignatureLine(line: string): NoteSignature | undefined {
  const [dash, name, encoded, ...more] = line.split(' ');
  if (dash !== '\u2014' || name === undefined || encoded === undefined || more.length > 0) return undefined;
  if (!isName(name) || encoded.length > Math.ceil((4 + signatureBytesMax) / 3) * 4) return undefined;
  const bytes = fromBase64(encoded);
  if (bytes === undefined || bytes.length < 5 || bytes.length > 4 + signatureBytesMax) return undefined;
  return { name, keyId: bytes.slice(0, 4), signature: bytes.slice(4) };
}

/** The text of a checkpoint, ready to be signed. Throws on what parseCheckpointText would refuse. */
export function checkpointText({ origin, size, root, extensions }: Checkpoint): string {
  const text = `${[origin, String(size), toBase64(root), ...extensions].join('\n')}\n`;
  const parsed = parseCheckpointText(text);
  if ('refused' in parsed) throw new Error(`checkpointText: ${parsed.refused}`);
  if (parsed.origin !== origin || parsed.extensions.length !== extensions.length)
    throw new Error('checkpointText: a newline');
  return text;
}

/** Strict and bounded: at most 64 extension lines, 4096 characters a line. */
export function parseCheckpointText(text: string): Checkpoint | { readonly refused: CheckpointRefusal } {
  if (text.length > noteCharsMax || !isNoteText(text)) return { refused: 'checkpoint-text' };
  const [origin, sizeText, rootText, ...extensions] = text.split('\n');
  if (extensions.pop() !== '') return { refused: 'checkpoint-text' };
  if (origin === undefined || origin === '' || origin.length > lineCharsMax) return { refused: 'checkpoint-origin' };
  if (sizeText === undefined || !/^(?:0|[1-9][0-9]{0,15})$/.test(sizeText)) return { refused: 'checkpoint-size' };
  const size = Number(sizeText);
  if (!Number.isSafeInteger(size)) return { refused: 'checkpoint-size' };
  const root = rootText?.length === 44 ? fromBase64(rootText) : undefined;
  if (root?.length !== HASH_BYTES) return { refused: 'checkpoint-root' };
  if (extensions.length > extensionsMax) return { refused: 'checkpoint-extensions' };
  if (extensions.some((line) => line === '' || line.length > lineCharsMax)) return { refused: 'checkpoint-extensions' };
  return { origin, size, root, extensions };
}

function isNoteText(text: string): boolean {
  if (!isWellFormed(text)) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x20 && code !== 10) return false;
  }
  return true;
}

function isName(name: string): boolean {
  // \s is Unicode's white space but for U+0085.
  return name.length > 0 && name.length <= nameCharsMax && !/[\s\u0085+]/.test(name) && isNoteText(name);
}
