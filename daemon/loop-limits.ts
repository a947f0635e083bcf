// The bounds of the loop around the core (replica.ts).

/** Every queue of the loop has its bound. */
export const LOOP_LIMITS = {
  /** Frames that wait for the loop; beyond it the transport stops reading bulk lanes. */
  framesMax: 4096,
  frameBytesMax: 64 << 20,
  framesPerPeerMax: 1024,
  /** Of the next epoch, kept for it. Two blocks find room. */
  earlyFramesPerPeerMax: 256,
  earlyBytesPerPeerMax: 2 << 20,
  /** A turn takes no further frame after this, so that timers and writes are never far away. */
  turnMsMax: 20,
  /** Block bytes on their way to a disk that does not keep up. */
  unwrittenBytesMax: 64 << 20,
  bundlesMax: 8192,
  bundleBytesMax: 64 << 20,
  /** Unanswered requests of one peer. */
  requestsPerPeerMax: 32,
} as const;
