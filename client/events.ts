// What a client tells its owner as it happens; nothing in it needs an answer.

import type { Epoch, Height, View } from '../protocol/types.ts';

export interface ClientEvents {
  /** A replica proved its key and the connection works. */
  connected: { readonly replica: string };
  /** A working connection ended; it is tried again after a pause. */
  disconnected: { readonly replica: string; readonly code: string };
  /** Whoever answers at this address did not prove the replica's key, or speaks for another chain. Tried again, slowly. */
  refused: { readonly replica: string; readonly code: string };
  /** A replica sent what an honest one never sends, or withholds what others have; it is used last for a while. */
  suspected: { readonly replica: string; readonly code: string };
  /** The view that this client believes in, by a certificate or by f+1 replicas. */
  view: { readonly view: View; readonly primary: string };
  /** A higher certified head is known. At most one for each frame received. */
  head: { readonly height: Height };
  /** The members are others now, by a proof: `members` are their names, by number. */
  epoch: { readonly epoch: Epoch; readonly members: readonly string[] };
  /** Bundles are signed under a new session, since the one before ended by a final refusal (docs/client.md, "Order"). */
  session: { readonly session: number };
}

export type ClientEventName = keyof ClientEvents;
export type Listener<Name extends ClientEventName> = (event: ClientEvents[Name]) => void;

/** Listeners of one event; more are a leak in the caller. */
const listenersMax = 64;

export class Emitter {
  readonly #listeners = new Map<ClientEventName, Set<(event: never) => void>>();

  /** Returns the function that removes the listener. Throws a RangeError beyond 64 listeners of one event. */
  on<Name extends ClientEventName>(name: Name, listener: Listener<Name>): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    if (set.size >= listenersMax) throw new RangeError(`more than ${listenersMax} listeners of '${name}'`);
    this.#listeners.set(name, set);
    set.add(listener);
    return () => set.delete(listener);
  }

  emit<Name extends ClientEventName>(name: Name, event: ClientEvents[Name]): void {
    const set = this.#listeners.get(name);
    if (set === undefined) return;
    for (const listener of [...set]) {
      // The cast: `on` put only listeners of this name into this set.
      (listener as Listener<Name>)(event);
    }
  }
}
