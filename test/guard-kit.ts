// Guards on real files, and pledges to give them.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { ascii, type Bytes, fromHex, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { type Guard, type GuardOptions, openGuard, type PledgePayload } from '../keys/guard.ts';
import { SecretKey } from '../keys/keypair.ts';
import type { LogPosition } from '../protocol/log.ts';
import type { CheckpointVote, NewView, ViewChange, Vote } from '../protocol/messages.ts';
import { asEpoch, asHash, asHeight, asView, type Hash } from '../protocol/types.ts';

export const folder = await mkdtemp(join(tmpdir(), 'synod-keys-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));
let files = 0;
export const newPath = () => join(folder, `file-${++files}`);

export const filled = (byte: number): Hash => asHash(new Uint8Array(32).fill(byte));
export const chainId = filled(0xc1);
export const seed = fromHex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60')!;
export const secret = SecretKey.fromSeed(seed);
export const epoch = asEpoch(0);
export const start: LogPosition = { sequence: 0, hash: filled(0) };
export const none = new Uint8Array(0);
export const A = filled(0xaa);
export const B = filled(0xbb);

export const checkpointSigningBytes: GuardOptions['checkpointSigningBytes'] = (place) =>
  ascii(`synod test\n${place.height}\n${toHex(place.hash)}\n`);
export const optionsFor = (path: string, more: Partial<GuardOptions> = {}): GuardOptions => ({
  path,
  secret,
  chainId,
  epoch,
  create: false,
  checkpointSigningBytes,
  ...more,
});
export const freshGuard = (path = newPath()): Promise<Guard> => openGuard(optionsFor(path, { create: true }));

export const vote = (
  kind: 'prepare' | 'commit',
  view: number,
  height: number,
  hash: Hash,
): PledgePayload & { pledge: Vote } => ({
  pledge: { kind, epoch, view: asView(view), height: asHeight(height), hash },
  payload: none,
});
export const prepare = (view: number, height: number, hash: Hash) => vote('prepare', view, height, hash);
export const commit = (view: number, height: number, hash: Hash) => vote('commit', view, height, hash);
export const viewChange = (view: number, payload: Bytes): PledgePayload & { pledge: ViewChange } => ({
  pledge: { kind: 'view-change', epoch, view: asView(view), commit: null, prepared: null },
  payload,
});
export const newView = (view: number, payload: Bytes): PledgePayload & { pledge: NewView } => ({
  pledge: { kind: 'new-view', epoch, view: asView(view), viewChanges: [] },
  payload,
});
export const checkpoint = (height: number, hash: Hash): PledgePayload & { pledge: CheckpointVote } => ({
  pledge: {
    kind: 'checkpoint',
    epoch,
    height: asHeight(height),
    hash,
    logRoot: hash,
    memberSetHash: hash,
    stateDigest: hash,
  },
  payload: none,
});
export const proposal = (view: number, height: number, hash: Hash) => ({
  epoch,
  view: asView(view),
  height: asHeight(height),
  hash,
});

export const promise = (guard: Guard, ...pledges: PledgePayload[]): Promise<void> =>
  guard.promise({ pledges, lock: null, log: start });
export const sign = (guard: Guard, { pledge, payload }: PledgePayload): Bytes => guard.sign(pledge, payload);
export async function promiseAndSign(guard: Guard, pledge: PledgePayload): Promise<Bytes> {
  await promise(guard, pledge);
  return sign(guard, pledge);
}
export async function reopened(guard: Guard, path: string, more: Partial<GuardOptions> = {}): Promise<Guard> {
  await guard.close();
  return openGuard(optionsFor(path, more));
}
export const verifies = (bytes: Bytes, signature: Bytes) => native.verify(secret.publicKey, bytes, signature);
