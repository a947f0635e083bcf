// What of the view must survive a crash: written with every change of view. The highest prepared certificate is not here: it
// lives in the guard's file with the marks of the votes (ADR 4); the chain is in the log's `accepted` records.

import type { Bytes } from '../../crypto/bytes.ts';
import { encodePayload } from '../codec.ts';
import { LayoutReader, LayoutWriter } from '../layout.ts';
import type { Epoch, ReplicaId, View } from '../types.ts';
import { asEpoch, asReplicaId, asView } from '../types.ts';
import type { State } from './state.ts';

export interface HardState {
  /** The epoch that the rest is of. */
  readonly epoch: Epoch;
  readonly view: View;
  readonly mode: 'active' | 'changing';
  /** The payload of the view-change that was pledged for `view`: it is signed again as it was, never another one. */
  readonly viewChange: Bytes | null;
  /** The new-view that opened `view`: shown to who is behind, and the source of the base after a restart. */
  readonly newView: { readonly sender: ReplicaId; readonly payload: Bytes; readonly signature: Bytes } | null;
}

/** Version 1 had no epoch: there was but the first. */
const VERSION = 2;

export function encodeHardState(state: HardState): Bytes {
  const viewChange = state.viewChange ?? new Uint8Array(0);
  const newView = state.newView?.payload ?? new Uint8Array(0);
  return new LayoutWriter(1 + 8 + 8 + 1 + 4 + viewChange.length + 4 + newView.length + 4 + 64)
    .u8(VERSION)
    .u64(state.epoch)
    .u64(state.view)
    .u8(state.mode === 'active' ? 1 : 0)
    .u32(viewChange.length)
    .bytes(viewChange, viewChange.length)
    .u32(newView.length)
    .bytes(newView, newView.length)
    .u32(state.newView?.sender ?? 0)
    .bytes(state.newView?.signature ?? new Uint8Array(64), 64)
    .done();
}

/** Bytes that this replica wrote and the log has checked; undefined where a newer version wrote them. */
export function decodeHardState(bytes: Bytes): HardState | undefined {
  const reader = new LayoutReader(bytes);
  const version = reader.u8();
  if (version !== VERSION && version !== 1) return undefined;
  const epoch = asEpoch(version === 1 ? 0 : reader.u64());
  const view = asView(reader.u64());
  const mode = reader.u8() === 1 ? 'active' : 'changing';
  const viewChange = reader.bytes(reader.u32());
  const newView = reader.bytes(reader.u32());
  const sender = asReplicaId(reader.u32());
  const signature = reader.bytes(64);
  return {
    epoch,
    view,
    mode,
    viewChange: viewChange.length === 0 ? null : viewChange,
    newView: newView.length === 0 ? null : { sender, payload: newView, signature },
  };
}

export function persistHardState(s: State): void {
  const viewChange =
    s.mode === 'changing'
      ? encodePayload({
          kind: 'view-change',
          epoch: s.epoch,
          view: s.view,
          commit: s.headCertificate,
          prepared: s.prepared,
        })
      : null;
  s.out.records.push({
    type: 'hard-state',
    bytes: encodeHardState({ epoch: s.epoch, view: s.view, mode: s.mode, viewChange, newView: s.newView }),
  });
}
