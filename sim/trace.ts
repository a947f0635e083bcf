// What happened, as a hash: two runs with one hash went the same way, message by message. And, if someone listens, as lines to read.

export class Trace {
  /** Four lanes of 32 bits: not against an adversary, only against coincidence. */
  readonly #lanes = Uint32Array.of(0x9e3779b9, 0x243f6a88, 0xb7e15162, 0x8aed2a6b);
  #turn = 0;
  /** Called with each line where someone wants to read. */
  sink: ((line: string) => void) | null = null;

  /** Adds one number, of 53 bits at most. */
  add(value: number): void {
    this.#mix(value | 0);
    this.#mix(Math.floor(value / 0x1_0000_0000) | 0);
  }

  /** Adds the first eight bytes of something that is a digest of itself. */
  addDigest(bytes: Uint8Array): void {
    this.#mix((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!);
    this.#mix((bytes[4]! << 24) | (bytes[5]! << 16) | (bytes[6]! << 8) | bytes[7]!);
  }

  #mix(word: number): void {
    const lanes = this.#lanes;
    const i = this.#turn & 3;
    this.#turn += 1;
    let h = Math.imul(lanes[i]! ^ word, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35) ^ lanes[(i + 1) & 3]!;
    lanes[i] = h ^ (h >>> 13);
  }

  /** 32 characters of hex. */
  digest(): string {
    return [...this.#lanes].map((lane) => lane.toString(16).padStart(8, '0')).join('');
  }
}
