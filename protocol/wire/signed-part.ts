// What a frame's signature covers of its payload. Ed25519 hashes what it signs twice, and SHA-512 has no help from the processor: over bundles of
// half a megabyte that would be most of what a signature costs. They are hashed anyway, once, so their hashes are signed.

import type { Bytes } from '../../crypto/bytes.ts';
import { LayoutWriter } from '../layout.ts';
import type { Message } from './payload.ts';

/** [WIRE-18] The payload itself; where it holds bundles, a layout of all that it holds, in which digests and hashes stand for what they are of. */
export function signedPart(message: Message, payload: Bytes): Bytes {
  switch (message.kind) {
    case 'forward': {
      const layout = new LayoutWriter(message.bundles.length * 96);
      for (const { digest, signature } of message.bundles) layout.bytes(digest, 32).bytes(signature, 64);
      return layout.done();
    }
    case 'accept':
    case 'fast-accept':
      return new LayoutWriter(8 + 32).u64(message.ballot).bytes(message.value.hash, 32).done();
    case 'append-entries': {
      const { epoch, term, prev, prevTerm, decided, entry } = message;
      if (entry === null) return payload;
      const layout = new LayoutWriter(6 * 8 + 32);
      for (const count of [epoch, term, prev, prevTerm, decided, entry.term]) layout.u64(count);
      return layout.bytes(entry.value.hash, 32).done();
    }
    default:
      return payload;
  }
}
