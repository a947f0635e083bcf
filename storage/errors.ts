// What can go wrong with the replication log, as stable codes with fields. The sentence an operator reads is made at the edge.

/**
 * - `storage-damaged`: bytes on disk are not what was written; fields `kind` and, where it has one, `height` or `sequence`.
 * - `storage-lost-writes`: the log is older than, or other than, what this replica signed for; fields `expected`, `found`, `advice`.
 * - `storage-wrong-chain`: the directory belongs to another chain; fields `expected`, `found` (hex).
 * - `storage-format-newer`: written by a later version; fields `supported`, `found`.
 * - `storage-format-older`: written by an earlier one, with another layout; the same fields.
 * - `storage-locked`: another process has the directory open.
 * - `storage-not-writable`: the directory cannot be created or written.
 * - `storage-backend-unavailable`: this Node cannot load the engine that wrote the directory; fields `backend`, `reason`, `advice`.
 * - `storage-open-failed`: the engine does not open, for another reason.
 * - `storage-write-failed`: a write or its sync failed (disk full included); fatal, since nobody knows what is durable now.
 * - `storage-read-failed`: the engine reports an error on reading that is not damage.
 * - `storage-closed`: called after close.
 */
export type StorageErrorCode =
  | 'storage-damaged'
  | 'storage-lost-writes'
  | 'storage-wrong-chain'
  | 'storage-format-newer'
  | 'storage-format-older'
  | 'storage-locked'
  | 'storage-not-writable'
  | 'storage-backend-unavailable'
  | 'storage-open-failed'
  | 'storage-write-failed'
  | 'storage-read-failed'
  | 'storage-closed';

export type StorageErrorFields = Readonly<Record<string, string | number>>;

export class StorageError extends Error {
  override readonly name = 'StorageError';
  readonly code: StorageErrorCode;
  readonly fields: StorageErrorFields;

  constructor(code: StorageErrorCode, fields: StorageErrorFields = {}, cause?: unknown) {
    const words = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
    super([code, ...words].join(' '), cause === undefined ? undefined : { cause });
    this.code = code;
    this.fields = fields;
  }
}

/** The text of whatever was thrown, for a field of an error. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
