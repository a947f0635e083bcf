// What a proven piece of evidence says, in words.

import type { Conflict, Offence } from '../protocol/verify.ts';

const sentences: Record<Offence, (conflict: Conflict) => string> = {
  'two-prepares': ({ view, height }) =>
    `signed two blocks for height ${height} in view ${view}: prepares, or proposals, of different hashes`,
  'two-commits': ({ view, height }) => `signed commits of two blocks for height ${height} in view ${view}`,
  'two-checkpoints': ({ height }) => `signed two different checkpoints for height ${height}`,
  'two-view-changes': ({ view }) => `signed two different view-changes for view ${view}`,
  'two-new-views': ({ view }) => `signed two different new-views for view ${view}`,
  'two-chains': ({ view, height }) =>
    `voted for two chains in view ${view}, which have parted at height ${height} or below`,
  'commit-denied': ({ view, height }) =>
    `signed a commit for height ${height} in view ${view}, and a view-change for a later view that hides it`,
};

export const offenceInWords = (conflict: Conflict): string => sentences[conflict.offence](conflict);
