// The process that storage.test.ts kills: opens a log and writes block after block, one synced batch each, and prints the position
// of a batch (sequence and hash) when the log says that it is durable. A failed write ends it: the last line is then `failed` and
// the code. Arguments: directory, bytes of a body.

import { toHex } from '../crypto/bytes.ts';
import { asHash } from '../protocol/types.ts';
import { StorageError } from '../storage/errors.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openRocks } from '../storage/rocks.ts';
import { accepted, block, decided, hardState, options } from './storage-compliance.ts';

const [path, bytes] = process.argv.slice(2);
const { log, recovered } = await openLogStore(await openRocks(path!), options());
let parent = recovered.decided.at(-1)?.hash ?? asHash(new Uint8Array(32));
for (let height = log.head + 1; ; height++) {
  const next = block(height, parent, { bytes: Number(bytes) });
  const position = await log.write([next, accepted(next), hardState(`at ${height}`), decided(next)]).catch(failed);
  parent = next.hash;
  process.stdout.write(`${position.sequence} ${toHex(position.hash)}\n`);
}

function failed(error: unknown): never {
  process.stdout.write(`failed ${error instanceof StorageError ? error.code : error}\n`);
  process.exit(1);
}
