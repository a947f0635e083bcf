// What a pledge is at, what it says there, and the bytes that a signature of it would cover. Only guard.ts signs them.

import { hash as digestOf } from 'node:crypto';
import type { Bytes } from '../crypto/bytes.ts';
import { voteSigningBytes } from '../protocol/certificate.ts';
import type { CheckpointPlace, ReplicaPledge } from '../protocol/messages.ts';
import type { Hash } from '../protocol/types.ts';
import { type Place, PROMISED, votedDigest } from './marks.ts';
import { assertFrame, assertNote, type FrameSigningBytes } from './statement.ts';

/** The layouts of one chain. */
export interface PledgeLayouts {
  readonly chainId: Hash;
  /** The UTF-8 text of the checkpoint note, its final newline included. */
  readonly checkpointSigningBytes: (place: CheckpointPlace) => Bytes;
  readonly frameSigningBytes: FrameSigningBytes;
}

export interface ReadPledge {
  readonly place: Place;
  readonly signingBytes: Bytes;
  /** What tells pledges of one place apart that may all be signed. */
  readonly of?: Bytes;
}

/** The place of a pledge, the digest it takes there, and what would be signed. */
export function readPledge(pledge: ReplicaPledge, payload: Bytes, layouts: PledgeLayouts): ReadPledge {
  const { chainId, checkpointSigningBytes } = layouts;
  const frameBytes = (kind: ReplicaPledge['kind']) => {
    const signingBytes = layouts.frameSigningBytes(kind, payload);
    assertFrame(kind, signingBytes);
    return signingBytes;
  };
  switch (pledge.kind) {
    case 'prepare':
    case 'commit': {
      const { kind, epoch, view, height, hash } = pledge;
      const signingBytes = voteSigningBytes(chainId, { phase: kind, epoch, view, height, hash });
      return { place: { kind, epoch, view, height, digest: hash }, signingBytes };
    }
    case 'checkpoint': {
      const { kind, epoch, height } = pledge;
      const signingBytes = checkpointSigningBytes(pledge);
      assertNote(signingBytes);
      return { place: { kind, epoch, height, digest: sha256(signingBytes) }, signingBytes };
    }
    case 'view-change':
    case 'new-view': {
      const { kind, epoch, view } = pledge;
      return { place: { kind, epoch, view, digest: sha256(payload), payload }, signingBytes: frameBytes(kind) };
    }
    case 'vote': {
      const { kind, epoch, term, candidate } = pledge;
      const place = { kind, epoch, view: term, digest: votedDigest(candidate) } as const;
      return { place, signingBytes: frameBytes(kind), of: sha256(payload) };
    }
    case 'appended': {
      const { kind, epoch, term } = pledge;
      const place = { kind, epoch, view: term, digest: PROMISED } as const;
      return { place, signingBytes: frameBytes(kind), of: sha256(payload) };
    }
    case 'promise':
    case 'accepted':
    case 'configured':
    case 'fast-accepted': {
      const { kind, epoch, ballot } = pledge;
      const place = { kind, epoch, view: ballot, digest: PROMISED } as const;
      return { place, signingBytes: frameBytes(kind), of: sha256(payload) };
    }
  }
}

function sha256(bytes: Bytes): Bytes {
  return digestOf('sha256', bytes, 'buffer');
}
