// Everything a core knows, as bytes, and back: what each segment of a flight recording begins with (docs/adr/0007-flight-recorder.md).
//
// A walk over plain values: null, booleans, numbers, strings, bytes, arrays, maps, sets and objects without a class. Whatever stands in them
// is in the snapshot, so that a field that is added later is in it too; a function, or an object of a class that keeps its fields private, is a
// bug and throws. Such classes give and take their fields as plain values (`dump`, `load`). [FLR-1] The same state gives the same bytes:
// keys are sorted, the order of maps and sets is part of the state, and who shares an object with whom is not.
//
// Blocks, bundles and signed messages are written as the bytes they came in, each bundle once. That is for size alone: an object that has
// other fields than they have is walked like any other.

import type { Bytes } from '../crypto/bytes.ts';
import { Frontier } from '../crypto/merkle.ts';
import type { Block } from './block.ts';
import type { SignedBundle } from './bundle.ts';
import {
  decodeBundle,
  decodePayload,
  decodeStoredBlock,
  encodeBody,
  encodePayload,
  isRefusal,
  isReplicaKind,
  kindOf,
  type WireContext,
} from './codec.ts';
import type { ReplicaMessage, Signed } from './messages.ts';
import { decodeMsgpack, type WireValue } from './msgpack.ts';
import { SNAPSHOT_VERSION, SORT } from './snapshot-writer.ts';
import { asReplicaId, asView } from './types.ts';

export { encodeSnapshot } from './snapshot-writer.ts';

/** Arrays inside arrays: the state of a core needs about half of it. */
const DEPTH_MAX = 64;
/**
 * What a file may make of its bytes in memory. The value of a state takes six bytes and more on average (the smallest bundles in a full pool); short
 * ones may have less.
 */
const VALUE_BYTES_MIN = 4;
const VALUES_FREE = 65_536;
/** Of all blocks together: they may share their bundles, so few bytes can ask for many. A core has some hundred blocks. */
const BODY_BYTES_MAX = 256 << 20;
const TRANSACTIONS_MAX = 1 << 22;

export interface SnapshotRefusal {
  readonly refused: 'snapshot-malformed' | 'snapshot-other-software';
  readonly problem: string;
}

/** Bytes from a file that anyone may have written: never throws. What is in it has the form of a snapshot; what it means is for the caller to check. */
export function decodeSnapshot(bytes: Bytes, context: WireContext): { readonly value: unknown } | SnapshotRefusal {
  const valuesMax = bytes.length / VALUE_BYTES_MIN + VALUES_FREE;
  const limits = { bytesMax: bytes.length, depthMax: DEPTH_MAX, valuesMax };
  const decoded = decodeMsgpack(bytes, limits);
  if ('refused' in decoded) return malformed(decoded.refused);
  try {
    return { value: new SnapshotReader(decoded.value, context).read() };
  } catch (error) {
    if (error instanceof Malformed) return malformed(error.message);
    throw error;
  }
}

const malformed = (problem: string): SnapshotRefusal => ({ refused: 'snapshot-malformed', problem });

/** Thrown inside this file alone. */
class Malformed extends Error {}

class SnapshotReader {
  readonly #context: WireContext;
  readonly #root: WireValue;
  readonly #shapes: readonly (readonly string[])[];
  readonly #bundles: readonly SignedBundle[];
  readonly #blocks: readonly Block[];
  #bodyBytes = 0;
  #transactions = 0;

  constructor(value: WireValue, context: WireContext) {
    this.#context = context;
    const [version, root, blocks, bundles, shapes, ...rest] = list(value);
    if (version !== SNAPSHOT_VERSION || root === undefined || rest.length > 0)
      throw new Malformed(`not a snapshot of version ${SNAPSHOT_VERSION}`);
    this.#shapes = list(shapes).map(keysIn);
    this.#bundles = list(bundles).map((item) => this.#bundleIn(item));
    this.#blocks = list(blocks).map((item) => this.#blockIn(item));
    this.#root = root;
  }

  read(): unknown {
    return this.#value(this.#root);
  }

  #value(value: WireValue): unknown {
    if (!isList(value)) return value;
    const [sort, ...rest] = value;
    switch (sort) {
      case SORT.array:
        return rest.map((each) => this.#value(each));
      case SORT.object:
        return this.#object(rest);
      case SORT.map:
        if (rest.length % 2 !== 0) throw new Malformed('a map with a key too many');
        return new Map(
          Array.from({ length: rest.length / 2 }, (_, i) => [this.#value(rest[2 * i]!), this.#value(rest[2 * i + 1]!)]),
        );
      case SORT.set:
        return new Set(rest.map((each) => this.#value(each)));
      case SORT.undefined:
        return undefined;
      case SORT.double: {
        const bytes = bin(rest[0], 8);
        return new DataView(bytes.buffer, bytes.byteOffset, 8).getFloat64(0);
      }
      case SORT.bundle:
        return at(this.#bundles, rest[0]);
      case SORT.block:
        return at(this.#blocks, rest[0]);
      case SORT.signed:
      case SORT.proposal:
        return this.#signed(sort, rest);
      case SORT.frontier: {
        const frontier = Frontier.restore(this.#context.sha256, {
          size: uint(rest[0]),
          hashes: list(rest[1]).map((hash) => bin(hash, 32)),
        });
        if (frontier === undefined) throw new Malformed('a frontier that is none');
        return frontier;
      }
      default:
        throw new Malformed('a value of no known sort');
    }
  }

  #object([shape, ...values]: readonly WireValue[]): object {
    const keys = at(this.#shapes, shape);
    if (keys.length !== values.length) throw new Malformed('an object with other fields than its shape');
    return Object.fromEntries(keys.map((key, i) => [key, this.#value(values[i]!)]));
  }

  #bundleIn(item: WireValue): SignedBundle {
    const [payload, signature] = list(item);
    const bundle = sound(decodeBundle({ payload: bin(payload), signature: bin(signature, 64) }, this.#context));
    this.#transactions += bundle.transactions.length;
    if (this.#transactions > TRANSACTIONS_MAX) throw new Malformed('more transactions than a core holds');
    return bundle;
  }

  #blockIn(item: WireValue): Block {
    const [header, bundles] = list(item);
    const inside = list(bundles).map((index) => at(this.#bundles, index));
    for (const { payload, transactions } of inside) {
      this.#bodyBytes += payload.length;
      this.#transactions += transactions.length;
    }
    if (this.#bodyBytes > BODY_BYTES_MAX || this.#transactions > TRANSACTIONS_MAX)
      throw new Malformed('more in its blocks than a core holds');
    return sound(decodeStoredBlock({ header: bin(header), body: encodeBody(inside) }, this.#context));
  }

  #signed(sort: typeof SORT.signed | typeof SORT.proposal, fields: readonly WireValue[]): Signed<ReplicaMessage> {
    const [from, signed, third, fourth] = fields;
    const sender = asReplicaId(uint(from));
    const signature = bin(signed, 64);
    if (sort === SORT.proposal) {
      const block = at(this.#blocks, fourth);
      const view = asView(uint(third));
      const message = { kind: 'pre-prepare', epoch: block.header.epoch, view, block } as const;
      return { sender, message, payload: encodePayload(message), signature };
    }
    const payload = bin(fourth);
    return { sender, message: messageIn(uint(third), payload, this.#context), payload, signature };
  }
}

/** @throws Malformed */
function messageIn(number: number, payload: Bytes, context: WireContext): ReplicaMessage {
  const kind = kindOf(number);
  if (kind === undefined || !isReplicaKind(kind)) throw new Malformed('a message of no known kind');
  // The cast: of a replica's kind, so a replica's message.
  return sound(decodePayload(kind, payload, context)) as ReplicaMessage;
}

function sound<T extends object>(value: T): Exclude<T, { readonly refused: string }> {
  if (isRefusal(value)) throw new Malformed(value.refused);
  return value as Exclude<T, { readonly refused: string }>; // not a refusal, as just looked at
}

function keysIn(value: WireValue): readonly string[] {
  return list(value).map((key) => {
    if (typeof key !== 'string' || key === '__proto__') throw new Malformed('a key that is none');
    return key;
  });
}

const isList = (value: WireValue): value is readonly WireValue[] => Array.isArray(value);

function list(value: WireValue | undefined): readonly WireValue[] {
  if (value === undefined || !isList(value)) throw new Malformed('a list is missing');
  return value;
}

function bin(value: WireValue | undefined, length?: number): Bytes {
  if (!(value instanceof Uint8Array) || (length !== undefined && value.length !== length))
    throw new Malformed('bytes are missing');
  return value;
}

function uint(value: WireValue | undefined): number {
  if (typeof value !== 'number') throw new Malformed('a number is missing');
  return value;
}

function at<T>(items: readonly T[], index: WireValue | undefined): T {
  const item = items[uint(index)];
  if (item === undefined) throw new Malformed('a place that is not there');
  return item;
}
