// Two slots in one file, written in turn: a write that is torn by a power cut leaves the other slot whole. Pure: bytes in and out.
//
// A slot is a row of 512-byte sectors, the unit in which a disk writes. Each carries a CRC-32 and the generation of the write it
// belongs to; the content and its SHA-256 run through them. That tells two things apart that look alike under one digest:
//   torn     every sector is sound by itself, but they are not of one write: the write was cut off, so it was never
//            reported durable, so nothing it promised was signed. The older slot is the truth.
//   damaged  a sector is unsound by itself: the disk lost what it held. The write may have been durable and signed upon, and
//            the older slot would be a state from before that: a replica that believed it could vote twice. Nobody does.

import { hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { ascii, type Bytes, equalBytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { contentBytesMax } from './sign-state.ts';

const SECTOR_BYTES = 512;
/** u32 CRC-32 of the rest of the sector, started with the sector's place; u64 generation, as two u32. */
const SECTOR_HEADER_BYTES = 12;
const SECTOR_DATA_BYTES = SECTOR_BYTES - SECTOR_HEADER_BYTES;

const magic = ascii('synodSS1');
/** Magic, u32 length of the content, SHA-256 over generation, length and content. */
const PREFIX_BYTES = 8 + 4 + 32;

const sectorsPerSlot = Math.ceil((PREFIX_BYTES + contentBytesMax) / SECTOR_DATA_BYTES);
export const SLOT_BYTES = sectorsPerSlot * SECTOR_BYTES;
/** The size of the file, from its creation on: writes never move its end, so that a data sync has no metadata to sync. */
export const FILE_BYTES = 2 * SLOT_BYTES;

export interface Generation {
  /** 1 for the first write of the file, then one more each time. Even ones stand in slot 0, odd ones in slot 1. */
  readonly number: number;
  readonly content: Bytes;
}

/** Where a generation goes in the file. */
export function offsetOf(generation: number): number {
  return (generation % 2) * SLOT_BYTES;
}

/** The sectors of one write, only as many as the content needs. */
export function encodeSlot({ number, content }: Generation): Bytes {
  assert(content.length <= contentBytesMax, 'the content fits into its slot');
  const sectors = Math.ceil((PREFIX_BYTES + content.length) / SECTOR_DATA_BYTES);
  const out = Buffer.alloc(sectors * SECTOR_BYTES);
  const prefix = prefixOf(number, content);
  for (let i = 0; i < sectors; i++) {
    const at = i * SECTOR_BYTES;
    writeGeneration(out, at + 4, number);
    const from = i * SECTOR_DATA_BYTES - PREFIX_BYTES;
    if (i === 0) out.set(prefix, at + SECTOR_HEADER_BYTES);
    const data = content.subarray(Math.max(from, 0), from + SECTOR_DATA_BYTES);
    out.set(data, at + SECTOR_HEADER_BYTES + (i === 0 ? PREFIX_BYTES : 0));
    out.writeUInt32BE(sectorCrc(out, at, placeOf(number, i)), at);
  }
  return out;
}

/** [GRD-15] The newest generation that was durable for certain, or undefined: the file is damaged. */
export function decodeFile(file: Bytes): Generation | undefined {
  if (file.length !== FILE_BYTES) return undefined;
  const buffer = Buffer.from(file.buffer, file.byteOffset, file.length);
  const slots = [readSlot(buffer, 0), readSlot(buffer, 1)] as const;
  const [first, second] = slots;
  if (first.is === 'damaged' || second.is === 'damaged') return undefined;
  if (first.is === 'whole' && second.is === 'whole') {
    const newer = first.generation.number > second.generation.number ? first.generation : second.generation;
    const older = newer === first.generation ? second.generation : first.generation;
    return newer.number === older.number + 1 ? newer : undefined;
  }
  const [whole, other] = first.is === 'whole' ? [first, second] : [second, first];
  if (whole.is !== 'whole') return undefined;
  // The other slot must be what a cut-off write of the next generation leaves: some of its sectors, or, since the first
  // sync of the file covered both slots, nothing at all where there was no second write yet.
  if (other.is === 'torn') return other.highest === whole.generation.number + 1 ? whole.generation : undefined;
  return other.is === 'empty' && whole.generation.number === 1 ? whole.generation : undefined;
}

type Slot =
  | { readonly is: 'whole'; readonly generation: Generation }
  | { readonly is: 'torn' /** The highest generation of any sector. */; readonly highest: number }
  | { readonly is: 'empty' }
  | { readonly is: 'damaged' };

function readSlot(file: Buffer, slot: 0 | 1): Slot {
  const start = slot * SLOT_BYTES;
  const first = readSector(file, start, slot, 0);
  // Without a first sector the length is unknown, and all that was ever written of the slot is looked at.
  let sectors = sectorsPerSlot;
  if (first > 0) {
    const at = start + SECTOR_HEADER_BYTES;
    const length = file.readUInt32BE(at + 8);
    if (!equalBytes(file.subarray(at, at + 8), magic) || length > contentBytesMax) return { is: 'damaged' };
    sectors = Math.ceil((PREFIX_BYTES + length) / SECTOR_DATA_BYTES);
  }
  const generations = [first];
  for (let i = 1; i < sectors; i++) generations.push(readSector(file, start + i * SECTOR_BYTES, slot, i));
  if (generations.includes(UNSOUND)) return { is: 'damaged' };
  const highest = Math.max(...generations);
  if (highest === EMPTY) return { is: 'empty' };
  if (generations.some((generation) => generation !== highest)) return { is: 'torn', highest };
  const content = joinContent(file, start, sectors);
  const prefix = file.subarray(start + SECTOR_HEADER_BYTES, start + SECTOR_HEADER_BYTES + PREFIX_BYTES);
  // Sound sectors of one number and no digest: two attempts at one generation, the first cut off before a restart and
  // the second cut off now.
  if (!equalBytes(prefix, prefixOf(highest, content))) return { is: 'torn', highest };
  return { is: 'whole', generation: { number: highest, content } };
}

const EMPTY = 0;
const UNSOUND = -1;

/** The generation of a sector, EMPTY if it was never written, or UNSOUND. */
function readSector(file: Buffer, at: number, slot: 0 | 1, index: number): number {
  if (file.subarray(at, at + SECTOR_BYTES).every((byte) => byte === 0)) return EMPTY;
  const generation = file.readUInt32BE(at + 4) * 0x1_0000_0000 + file.readUInt32BE(at + 8);
  const sound = file.readUInt32BE(at) === sectorCrc(file, at, slot * sectorsPerSlot + index);
  return sound && Number.isSafeInteger(generation) && generation > 0 && generation % 2 === slot ? generation : UNSOUND;
}

function joinContent(file: Buffer, start: number, sectors: number): Bytes {
  const length = file.readUInt32BE(start + SECTOR_HEADER_BYTES + 8);
  const joined = Buffer.alloc(sectors * SECTOR_DATA_BYTES);
  for (let i = 0; i < sectors; i++) {
    const at = start + i * SECTOR_BYTES;
    joined.set(file.subarray(at + SECTOR_HEADER_BYTES, at + SECTOR_BYTES), i * SECTOR_DATA_BYTES);
  }
  return joined.subarray(PREFIX_BYTES, PREFIX_BYTES + length);
}

function prefixOf(number: number, content: Bytes): Bytes {
  const out = Buffer.alloc(PREFIX_BYTES);
  out.set(magic);
  out.writeUInt32BE(content.length, 8);
  // The last 32 bytes hold what the digest replaces.
  const digested = Buffer.alloc(12 + content.length);
  writeGeneration(digested, 0, number);
  digested.writeUInt32BE(content.length, 8);
  digested.set(content, 12);
  out.set(hash('sha256', digested, 'buffer'), 12);
  return out;
}

function writeGeneration(out: Buffer, at: number, generation: number): void {
  out.writeUInt32BE(Math.floor(generation / 0x1_0000_0000), at);
  out.writeUInt32BE(generation >>> 0, at + 4);
}

/** A sector that stands where another belongs is unsound too. */
function placeOf(generation: number, index: number): number {
  return (generation % 2) * sectorsPerSlot + index;
}

function sectorCrc(file: Buffer, at: number, place: number): number {
  return crc32(file.subarray(at + 4, at + SECTOR_BYTES), place);
}
