// A change of the epoch on its way from operator to operator: a JSON file that everybody can read, whose one field that counts is the payload that
// they sign. Whoever gets it shows it first (`synod control show`), adds a signature, and hands it on; files that were signed apart are combined.

import { readFileSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { type Bytes, equalBytes, fromHex, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { type Control, decodeControl, encodeControl } from '../../protocol/verify.ts';
import { Complaint, EXIT } from './errors.ts';

/** More than the largest control transaction in hex, with what surrounds it. */
const fileBytesMax = 256 << 10;

const hex = (bytes: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`), `${2 * bytes} characters of lower-case hex`);
const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);

const schema = z.strictObject({
  synod: z.literal('control'),
  version: z.literal(1),
  /** For people, as the next two: what counts stands in the payload, and must agree. */
  chainId: hex(32),
  epoch: count,
  changes: z.array(z.string()),
  payload: z.string().regex(/^(?:[0-9a-f]{2})+$/, 'lower-case hex'),
  signatures: z.array(z.strictObject({ operatorKey: hex(32), signature: hex(64) })),
  joins: z.array(z.strictObject({ publicKey: hex(32), height: count, signature: hex(64) })),
});

export function readControlFile(file: string): Control {
  const size = statSync(file).size;
  if (size > fileBytesMax) throw malformed(file, `${size} bytes are more than a change of the epoch has`);
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw malformed(file, 'not JSON');
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw malformed(file, `${issue?.path.join('.') || '(document)'}: ${issue?.message ?? 'invalid'}`);
  }
  const { payload, signatures, joins, chainId, epoch } = parsed.data;
  const control = decodeControl(
    native.sha256,
    encodeControl({
      payload: bytesOf(payload),
      signatures: signatures.map((each) => ({
        operatorKey: bytesOf(each.operatorKey),
        signature: bytesOf(each.signature),
      })),
      // The cast: a count is a height.
      joins: joins.map((each) => ({
        publicKey: bytesOf(each.publicKey),
        height: each.height as Control['joins'][number]['height'],
        signature: bytesOf(each.signature),
      })),
    }),
  );
  if ('refused' in control) throw malformed(file, `${control.field}: ${control.refused}`);
  // Somebody who reads the file and not the payload is not to be misled.
  if (toHex(control.body.chainId) !== chainId || control.body.epoch !== epoch)
    throw malformed(file, 'chainId and epoch are not those of the payload');
  return control;
}

/** @param changes in words, for people */
export async function writeControlFile(
  file: string,
  control: Control,
  changes: readonly string[],
  replace: boolean,
): Promise<void> {
  const { payload, body, signatures, joins } = control;
  const json: z.input<typeof schema> = {
    synod: 'control',
    version: 1,
    chainId: toHex(body.chainId),
    epoch: body.epoch,
    changes: [...changes],
    payload: toHex(payload),
    signatures: signatures.map((each) => ({
      operatorKey: toHex(each.operatorKey),
      signature: toHex(each.signature),
    })),
    joins: joins.map((each) => ({
      publicKey: toHex(each.publicKey),
      height: each.height,
      signature: toHex(each.signature),
    })),
  };
  await writeFile(file, `${JSON.stringify(json, null, 2)}\n`, { flag: replace ? 'w' : 'wx' });
}

/** The signatures and joins of several copies of one change; of two joins of one key the later. */
export function combineControls(controls: readonly Control[]): Control | { readonly differs: number } {
  const [first, ...rest] = controls;
  if (first === undefined) return { differs: 0 };
  const signatures = new Map(first.signatures.map((each) => [toHex(each.operatorKey), each]));
  const joins = new Map(first.joins.map((each) => [toHex(each.publicKey), each]));
  for (const [index, control] of rest.entries()) {
    if (!equalBytes(control.payload, first.payload)) return { differs: index + 1 };
    for (const each of control.signatures) signatures.set(toHex(each.operatorKey), each);
    for (const each of control.joins)
      if (each.height >= (joins.get(toHex(each.publicKey))?.height ?? 0)) joins.set(toHex(each.publicKey), each);
  }
  return inOrder({ ...first, signatures: [...signatures.values()], joins: [...joins.values()] });
}

/** The change of this payload, its signatures and joins in the order of the wire. */
export function inOrder(control: Pick<Control, 'payload' | 'signatures' | 'joins'>): Control {
  const ordered = decodeControl(native.sha256, encodeControl(control));
  if ('refused' in ordered) throw new Error(`control: ${ordered.refused} ${ordered.field}`);
  return ordered;
}

function malformed(file: string, problem: string): Complaint {
  return new Complaint({
    code: 'control-file-malformed',
    sentence: `${file}: ${problem}`,
    remedy: 'Give a file that `synod member`, `synod param` or `synod control` wrote, unchanged.',
    exit: EXIT.usage,
  });
}

/** Hex that the schema has checked. */
const bytesOf = (text: string): Bytes => fromHex(text) ?? new Uint8Array(0);
