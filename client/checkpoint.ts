// A certified checkpoint with its state, from one node, whoever it is: the certificate proves the digest, and each chunk proves itself against it.

import type { Bytes } from '../crypto/bytes.ts';
import { leafHash, verifyInclusion } from '../crypto/merkle.ts';
import type { CheckpointHere, StateHere } from '../protocol/door.ts';
import type { CertifiedState } from '../protocol/epoch/observer.ts';
import { STATE_CHUNKS } from '../protocol/ledger.ts';
import type { Height } from '../protocol/types.ts';
import { verifyCheckpointProof } from '../protocol/verify.ts';
import { Conversation, type ConversationRequest } from './conversation.ts';

/** Chunks that are asked for at once: each may be the better part of a megabyte. */
const CHUNKS_IN_FLIGHT_MAX = 4;

export interface CheckpointRequest extends ConversationRequest {
  /** Only one above this height is of use. */
  readonly above: Height;
}

/** [EPO-20] [WIRE-36] The state at the node's newest stable checkpoint; or why there is none. Never rejects. */
export function fetchCheckpoint(request: CheckpointRequest): Promise<CertifiedState | { readonly refused: string }> {
  return new Promise((resolve) => {
    const { crypto, epochs, above } = request;
    let proof: CheckpointHere['proof'] = null;
    const chunks = new Map<number, Bytes>();
    let next = 0;
    const askMore = () => {
      for (; proof !== null && next < STATE_CHUNKS && next - chunks.size < CHUNKS_IN_FLIGHT_MAX; next++)
        talk.ask({ kind: 'query-state', height: proof.checkpoint.height, chunk: next });
    };
    /** Undefined, or why it proves nothing. */
    const took = (given: CheckpointHere['proof']): string | undefined => {
      if (given === null) return 'checkpoint-none';
      const { checkpoint } = given;
      if (checkpoint.height <= above) return 'checkpoint-below';
      const signers = epochs.signersOf(checkpoint.epoch);
      const document = epochs.at(checkpoint.epoch);
      if (signers === undefined || document === undefined) return 'certificate-epoch';
      const problem = verifyCheckpointProof(
        { kind: 'checkpoint-proof', ...given },
        { ...signers, parameters: document.parameters, start: document.start },
      );
      proof = given;
      return problem?.refused;
    };
    const tookChunk = ({ height, chunk, found }: StateHere): string | undefined => {
      if (proof === null || height !== proof.checkpoint.height || chunk >= next || chunks.has(chunk))
        return 'state-unasked';
      // A newer checkpoint has taken its place meanwhile.
      if (found === null) return 'state-gone';
      const leaf = leafHash(crypto.sha256, found.bytes);
      const place = { leaf, index: chunk, size: STATE_CHUNKS, proof: found.proof, root: proof.checkpoint.stateDigest };
      if (!verifyInclusion({ sha256: crypto.sha256, ...place })) return 'state-chunk-proof';
      chunks.set(chunk, found.bytes);
      return undefined;
    };
    const talk = new Conversation(request, {
      ready: () => talk.ask({ kind: 'query-checkpoint' }),
      message: (message) => {
        // An epoch has begun meanwhile, and every client is told.
        if (message.kind === 'epochs') return;
        const problem =
          message.kind === 'checkpoint-here' && proof === null
            ? took(message.proof)
            : message.kind === 'state-here'
              ? tookChunk(message)
              : 'frame-kind';
        if (problem !== undefined) return talk.end(problem);
        if (chunks.size === STATE_CHUNKS) talk.end(null);
        else askMore();
      },
      ended: (code) =>
        resolve(
          code === null && proof !== null
            ? { certificate: proof.checkpoint, headerBytes: proof.headerBytes, chunks }
            : { refused: code ?? 'closed' },
        ),
    });
  });
}
