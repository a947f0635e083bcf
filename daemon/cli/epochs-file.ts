// The file of epochs as the commands read it, beside a genesis document.

import { readFileSync, statSync } from 'node:fs';
import { native } from '../../crypto/native.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { EpochChain } from '../../protocol/verify.ts';
import { decodeEpochsFile, EPOCHS_FILE_BYTES_MAX } from '../epochs-file.ts';
import { Complaint, EXIT } from './errors.ts';

/** What is known with this file; without one, the epoch of the genesis document. */
export function loadEpochs(genesis: Genesis, file: string | undefined): EpochChain {
  if (file === undefined) return new EpochChain({ genesis, crypto: native });
  const { size } = statSync(file);
  const chain =
    size > EPOCHS_FILE_BYTES_MAX
      ? { refused: 'epochs-file-malformed', problem: `${size} bytes` }
      : decodeEpochsFile(readFileSync(file), genesis);
  if (chain instanceof EpochChain) return chain;
  throw new Complaint({
    code: chain.refused,
    sentence: `not proved: ${file}: ${chain.problem}`,
    remedy:
      'Take the epochs of a replica of this network (GET /v1/epochs at its HTTP door), and the right genesis document.',
    exit: EXIT.notProved,
  });
}
