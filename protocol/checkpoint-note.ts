// What a checkpoint vote signs: the text of a C2SP checkpoint (c2sp.org/tlog-checkpoint), so that a quorum of such votes is a signed
// note that the verifiers of transparency logs read as it is (blueprint, section 5.6; docs/wire.md, "Checkpoint notes").

import { ascii, type Bytes, equalBytes, fromHex, toHex } from '../crypto/bytes.ts';
import {
  checkpointText,
  formatNote,
  type NoteSignature,
  noteKeyId,
  noteVerifierKey,
  parseCheckpointText,
  parseNote,
} from '../crypto/note.ts';
import type { Crypto, Sha256 } from '../crypto/provider.ts';
import { assert } from './assert.ts';
import type { SignatureOf } from './certificate.ts';
import type { CheckpointCertificate, CheckpointPlace } from './messages.ts';
import { asEpoch, asHash, asHeight, type Hash, type Member } from './types.ts';

/** The first line: names the log. */
export function checkpointOrigin(chainId: Hash): string {
  return `synod/${toHex(chainId)}`;
}

/** [WIRE-15] Origin, height, log root, then four lines: epoch, block hash, member set hash, state digest. */
export function checkpointSigningText(chainId: Hash, place: CheckpointPlace): string {
  return checkpointText({
    origin: checkpointOrigin(chainId),
    // One leaf per block, so the size of the log tree is the height.
    size: place.height,
    root: place.logRoot,
    extensions: [
      `epoch ${place.epoch}`,
      `block ${toHex(place.hash)}`,
      `members ${toHex(place.memberSetHash)}`,
      `state ${toHex(place.stateDigest)}`,
    ],
  });
}

/** The text's bytes; all of it is ASCII. */
export function checkpointSigningBytes(chainId: Hash, place: CheckpointPlace): Bytes {
  return ascii(checkpointSigningText(chainId, place));
}

/** Under which name a member signs notes of this chain. */
export function noteKeyName(chainId: Hash, member: Member): string {
  return `${checkpointOrigin(chainId)}/${member.name}`;
}

/** The member's key as note verifiers are configured with it. */
export function memberVerifierKey(sha256: Sha256, chainId: Hash, member: Member): string {
  return noteVerifierKey(sha256, noteKeyName(chainId, member), member.publicKey);
}

export interface NoteSigners {
  readonly crypto: Crypto;
  readonly chainId: Hash;
  readonly members: readonly Member[];
  readonly quorum: number;
}

/** The signed note of a stable checkpoint: one line per replica. The certificate has been verified; unknown replicas are a bug. */
export function exportCheckpointNote(
  checkpoint: CheckpointCertificate,
  { crypto, chainId, members }: Omit<NoteSigners, 'quorum'>,
): string {
  const lines = checkpoint.signatures.map(({ replica, signature }): NoteSignature => {
    const member = members[replica];
    assert(member !== undefined, 'the certificate is of these members');
    const name = noteKeyName(chainId, member);
    return { name, keyId: noteKeyId(crypto.sha256, name, member.publicKey), signature };
  });
  return formatNote(checkpointSigningText(chainId, checkpoint), lines);
}

export type NoteProblem =
  | 'note-malformed'
  | 'checkpoint-malformed'
  | 'checkpoint-origin'
  | 'note-signature'
  | 'note-below-quorum';

/**
 * [WIRE-16] The stable checkpoint that a note proves. Lines of keys that are not this chain's are passed over, as the format wants;
 * a line that claims a member's key and does not verify makes the whole note worthless.
 */
export function importCheckpointNote(
  note: string,
  { crypto, chainId, members, quorum }: NoteSigners,
): CheckpointCertificate | { readonly refused: NoteProblem } {
  const parsed = parseNote(note);
  if ('refused' in parsed) return { refused: 'note-malformed' };
  const place = parseCheckpointPlace(parsed.text, chainId);
  if ('refused' in place) return place;
  const message = ascii(parsed.text);
  const signatures: SignatureOf[] = [];
  for (const member of members) {
    const name = noteKeyName(chainId, member);
    const keyId = noteKeyId(crypto.sha256, name, member.publicKey);
    const line = parsed.signatures.find((candidate) => candidate.name === name && equalBytes(candidate.keyId, keyId));
    if (line === undefined) continue;
    if (!crypto.verify(member.publicKey, message, line.signature)) return { refused: 'note-signature' };
    signatures.push({ replica: member.id, signature: line.signature });
  }
  if (signatures.length < quorum) return { refused: 'note-below-quorum' };
  return { ...place, signatures };
}

/** The place in a checkpoint's text, if the text is exactly the one that the place makes. */
function parseCheckpointPlace(text: string, chainId: Hash): CheckpointPlace | { readonly refused: NoteProblem } {
  const parsed = parseCheckpointText(text);
  if ('refused' in parsed) return { refused: 'checkpoint-malformed' };
  if (parsed.origin !== checkpointOrigin(chainId)) return { refused: 'checkpoint-origin' };
  const [epoch, block, members, state, ...more] = parsed.extensions;
  const number = /^epoch (0|[1-9][0-9]{0,15})$/.exec(epoch ?? '')?.[1];
  const hash = digestLine(block, 'block');
  const memberSetHash = digestLine(members, 'members');
  const stateDigest = digestLine(state, 'state');
  if (number === undefined || !Number.isSafeInteger(Number(number)) || more.length > 0 || parsed.size < 1)
    return { refused: 'checkpoint-malformed' };
  if (hash === undefined || memberSetHash === undefined || stateDigest === undefined)
    return { refused: 'checkpoint-malformed' };
  return {
    epoch: asEpoch(Number(number)),
    height: asHeight(parsed.size),
    hash,
    logRoot: asHash(parsed.root),
    memberSetHash,
    stateDigest,
  };
}

function digestLine(line: string | undefined, word: string): Hash | undefined {
  const hex = /^([a-z]+) ([0-9a-f]{64})$/.exec(line ?? '');
  const bytes = hex?.[1] === word ? fromHex(hex[2]!) : undefined;
  return bytes === undefined ? undefined : asHash(bytes);
}
