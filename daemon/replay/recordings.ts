// The files that `synod replay` is given: one segment of a flight recording, or a folder of them. Anybody may have sent them.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { equalBytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { decodeEpoch, type EpochDocument, genesisEpoch, genesisOf } from '../../protocol/epoch/document.ts';
import { type Genesis, parseGenesis } from '../../protocol/genesis.ts';
import { fileBytesMax } from '../config.ts';
import { readSegment, SEGMENT_BYTES_MAX, type Segment } from '../recorder/format.ts';
import { segmentNumber } from '../recorder/segment-files.ts';

export interface RecordingProblem {
  readonly refused: 'recording-missing' | 'recording-malformed' | 'recording-version' | 'recording-damaged';
  readonly file: string;
  readonly problem: string;
}

/** The segments at a path, by rising number: of a file itself, of a folder of segments, or of a data directory with such a folder. */
export function segmentsAt(path: string, folderName: string): readonly string[] | RecordingProblem {
  const missing = (problem: string): RecordingProblem => ({ refused: 'recording-missing', file: path, problem });
  try {
    if (!statSync(path).isDirectory()) return [path];
    for (const folder of [path, join(path, folderName)]) {
      const names = listing(folder).filter((name) => segmentNumber(name) !== null);
      if (names.length > 0) return names.sort().map((name) => join(folder, name));
    }
    return missing('no segment of a flight recording in it');
  } catch (error) {
    return missing(error instanceof Error ? error.message : String(error));
  }
}

function listing(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

export interface Recording extends Segment {
  readonly file: string;
  /** As the epoch that it is of runs it. */
  readonly genesis: Genesis;
  readonly document: EpochDocument;
}

/** One segment and the chain that it says it is of. */
export function readRecording(file: string): Recording | RecordingProblem {
  const refuse = (refused: RecordingProblem['refused'], problem: string) => ({ refused, file, problem });
  let bytes: Uint8Array;
  try {
    if (statSync(file).size > SEGMENT_BYTES_MAX) return refuse('recording-malformed', 'larger than any segment');
    bytes = readFileSync(file);
  } catch (error) {
    return refuse('recording-missing', error instanceof Error ? error.message : String(error));
  }
  // A plain array of bytes: a Buffer would make a Buffer of every part of it.
  const segment = readSegment(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length));
  if ('refused' in segment) return refuse(segment.refused, segment.problem);
  const { head } = segment;
  if (head.genesis.length > fileBytesMax) return refuse('recording-malformed', 'its genesis document is too large');
  const genesis = parseGenesis(native, head.genesis, new TextDecoder().decode(head.genesis));
  if ('refused' in genesis) return refuse('recording-malformed', `its genesis document: ${genesis.field}`);
  const { sha256 } = native;
  const document = head.epoch === null ? genesisEpoch(sha256, genesis) : decodeEpoch(sha256, head.epoch);
  if ('refused' in document) return refuse('recording-malformed', `the document of its epoch: ${document.field}`);
  const isOfChain = equalBytes(genesis.chainId, head.chainId) && equalBytes(document.chainId, head.chainId);
  if (!isOfChain || document.members[head.replica]?.name !== head.member)
    return refuse('recording-malformed', 'its genesis document is not that of its chain and member');
  return { ...segment, file, genesis: genesisOf(genesis, document), document };
}
