// The client: connections to all replicas, one submitting pipeline, any number of streams, and the events of all of them.

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import { type ClientSigner, clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type { DoorMessage } from '../protocol/door.ts';
import { addressOf, type GivenAddress } from '../protocol/epoch/address.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Hash, Height, View } from '../protocol/types.ts';
import { type EpochChain, genesisOf, mainMembers } from '../protocol/verify.ts';
import { ChainView } from './chain-view.ts';
import { BlockTrust } from './committed.ts';
import type { ReplicaAddress } from './connect.ts';
import { EpochLearner, learnLinks, learnTimeoutMs } from './epochs.ts';
import { ClientError } from './errors.ts';
import { type ClientEventName, Emitter, type Listener } from './events.ts';
import { type FollowRequest, FollowStream } from './follow.ts';
import { Link, type LinkEvents, type LinkOptions, type LinkState } from './link.ts';
import type { Settings } from './options.ts';
import { Pipeline } from './pipeline.ts';
import type { BundleReceipt, Receipt } from './receipt.ts';
import { bundleReceiptOf, CommittedWaiter, receiptOf, type Shape, type Waiter } from './waiter.ts';

/** `accepted`: one replica says that it holds the bundle. A claim and no proof; the client stays with it until it is certain. */
export interface Accepted<R> {
  /** Who says so; null: nobody did before the receipt itself came. */
  readonly replica: string | null;
  /** As `submit` with `wait: 'committed'`. */
  readonly committed: Promise<R>;
}

export interface ReplicaStatus {
  readonly name: string;
  readonly url: string;
  readonly state: LinkState;
  readonly suspected: boolean;
  /** What the replica says of itself, on the present connection. */
  readonly claimedHeight: Height | null;
  readonly claimedView: View | null;
  readonly lowest: Height | null;
  /** Of the last question for its head; null before the first answer. */
  readonly roundTripMs: number | null;
  /** Why the last connection ended. */
  readonly lastCode: string | null;
}

export interface ClientHead {
  /** The highest height that a verified certificate proves; 0 on a new chain. */
  readonly height: Height;
  readonly hash: Hash | null;
  readonly certificate: Certificate | null;
  /** The view that the client believes in, and its primary. */
  readonly view: View;
  readonly primary: string;
}

/** Streams of one client, each with a connection of its own. */
const streamsMax = 32;

export interface ClientParts {
  /** With the members of epoch 0. */
  readonly genesis: Genesis;
  readonly epochs: EpochChain;
  readonly settings: Settings;
  readonly crypto: Crypto;
  readonly key: SecretKey | Bytes | undefined;
  readonly replicas: readonly ReplicaAddress[];
  readonly sources: readonly ReplicaAddress[];
}

/** Made by `connect`. */
export class Client {
  /** The epochs that this client knows, each with its proof. It adds those that it learns. */
  readonly epochs: EpochChain;
  readonly #first: Genesis;
  /** The addresses that the caller gave, by name. */
  readonly #given = new Map<string, GivenAddress>();
  readonly #learner: EpochLearner;
  readonly #settings: Settings;
  readonly #crypto: Crypto;
  readonly #signer: ClientSigner;
  readonly #maySubmit: boolean;
  /** To the members of the present epoch, by number: one list for all who look into it. */
  readonly #links: Link[] = [];
  /** To nodes that are no members: for streams alone. */
  readonly #sources: readonly Link[];
  readonly #linkEvents: LinkEvents;
  readonly #chain: ChainView;
  readonly #pipeline: Pipeline;
  readonly #streams = new Set<FollowStream>();
  readonly #emitter = new Emitter();
  readonly #ticker: ReturnType<typeof setInterval>;
  #ready: { readonly resolve: () => void; readonly reject: (error: ClientError) => void } | null = null;
  #closed = false;
  #knownHeight: Height;
  #knownView: View;

  constructor({ genesis, epochs, settings, crypto, key, replicas, sources }: ClientParts) {
    this.#first = genesis;
    this.epochs = epochs;
    this.#settings = settings;
    this.#crypto = crypto;
    const secret = key === undefined ? SecretKey.generate() : key instanceof SecretKey ? key : SecretKey.fromSeed(key);
    this.#maySubmit = key !== undefined;
    this.#signer = clientSigner(secret, genesis.chainId);
    this.#linkEvents = {
      opened: (link) => this.#opened(link),
      ended: (link, code) => this.#ended(link, code),
      refused: (link, code) => this.#emitter.emit('refused', { replica: link.name, code }),
      suspected: (link, code) => this.#emitter.emit('suspected', { replica: link.name, code }),
      message: (link, message) => this.#message(link, message),
      outdated: (link) => this.#learner.ask(link.name, link.url),
    };
    this.#learner = new EpochLearner({
      chainId: genesis.chainId,
      epochs,
      crypto,
      signer: this.#signer,
      openSocket: settings.openSocket,
      timeoutMs: learnTimeoutMs(settings),
      pauseMs: settings.reconnectMsMax,
      grown: () => this.#learnt(),
      refused: (replica, code) => this.#emitter.emit('refused', { replica, code }),
    });
    this.#chain = new ChainView(epochs);
    const saidOf = (name: string) => epochs.last.members.find((member) => member.name === name)?.address;
    for (const { name, url } of replicas) this.#given.set(name, { url, said: saidOf(name) });
    this.#relink();
    this.#sources = sources.map(({ name, url }) => this.#link({ member: null, name, url }, this.#sourceEvents()));
    this.#knownHeight = this.#chain.height;
    this.#knownView = this.#chain.view;
    this.#pipeline = new Pipeline({
      settings,
      crypto,
      signer: this.#signer,
      chain: this.#chain,
      trust: new BlockTrust(genesis, crypto, this.#chain, epochs),
      links: this.#links,
      newSession: (session) => this.#emitter.emit('session', { session }),
      outdated: (link) => this.#learner.ask(link.name, link.url),
    });
    const { retryMs, withholdMs, headIntervalMs } = settings;
    const tickMs = Math.max(2, Math.min(50, Math.floor(Math.min(retryMs, withholdMs, headIntervalMs) / 8)));
    this.#ticker = setInterval(() => this.#tick(), tickMs);
  }

  /** The chain as its present epoch runs it. */
  get genesis(): Genesis {
    return genesisOf(this.#first, this.epochs.last);
  }

  /** For `connect`, once. */
  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#ready?.reject(this.#unreachable()), this.#settings.connectTimeoutMs);
      const settled = () => {
        clearTimeout(timer);
        this.#ready = null;
      };
      this.#ready = {
        resolve: () => {
          settled();
          resolve();
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      for (const link of [...this.#links, ...this.#sources]) link.start();
    });
  }

  #unreachable(): ClientError {
    const oneHonest = this.#isFollower ? 1 : this.#chain.quorums.oneHonest;
    const replicas = [...this.#links, ...this.#sources].map(
      ({ name, state, lastCode }) => `${name} ${state}${lastCode === null ? '' : ` (${lastCode})`}`,
    );
    return new ClientError('connect-timeout', { needed: oneHonest, replicas });
  }

  /** The public key under which this client submits, 32 bytes. */
  get publicKey(): Bytes {
    return this.#signer.publicKey;
  }

  /** The present session (docs/client.md, "Order"). */
  get session(): number {
    return this.#pipeline.session;
  }

  /** Is there room in the queue for another transaction? */
  get writable(): boolean {
    return this.#pipeline.queue.writable;
  }

  /** Transactions that wait to be signed, and bundles that wait for their receipt. */
  get pending(): { readonly transactions: number; readonly bundles: number } {
    return { transactions: this.#pipeline.queue.size, bundles: this.#pipeline.inFlight };
  }

  /** Resolves when the queue is at most half full; at once if it is. */
  drained(): Promise<void> {
    return this.#pipeline.queue.drained();
  }

  /**
   * Puts a transaction into the order, after all that this client submitted before. Resolves when that is proved; rejects with a
   * ClientError (docs/client.md, "Errors"). The bytes must not change before it settles.
   */
  submit(transaction: Bytes, options?: { readonly wait?: 'committed' }): Promise<Receipt>;
  submit(transaction: Bytes, options: { readonly wait: 'accepted' }): Promise<Accepted<Receipt>>;
  submit(
    transaction: Bytes,
    options?: { readonly wait?: 'accepted' | 'committed' },
  ): Promise<Receipt | Accepted<Receipt>> {
    const push = (waiter: Waiter) => this.#pipeline.queue.push(transaction, waiter);
    return options?.wait === 'accepted'
      ? this.#enqueueAccepted(push, receiptOf)
      : this.#enqueue((resolve, reject) => push(new CommittedWaiter(receiptOf, resolve, reject)));
  }

  /** One bundle of exactly these transactions: they stand next to each other in one block, or nowhere. */
  submitBundle(transactions: readonly Bytes[], options?: { readonly wait?: 'committed' }): Promise<BundleReceipt>;
  submitBundle(
    transactions: readonly Bytes[],
    options: { readonly wait: 'accepted' },
  ): Promise<Accepted<BundleReceipt>>;
  submitBundle(
    transactions: readonly Bytes[],
    options?: { readonly wait?: 'accepted' | 'committed' },
  ): Promise<BundleReceipt | Accepted<BundleReceipt>> {
    const push = (waiter: Waiter) => this.#pipeline.queue.pushBundle(transactions, waiter);
    return options?.wait === 'accepted'
      ? this.#enqueueAccepted(push, bundleReceiptOf)
      : this.#enqueue((resolve, reject) => push(new CommittedWaiter(bundleReceiptOf, resolve, reject)));
  }

  /** A promise that `run` settles; what it throws rejects it. */
  #enqueue<R>(run: (resolve: (value: R) => void, reject: (error: ClientError) => void) => void): Promise<R> {
    if (this.#closed) return Promise.reject(new ClientError('closed'));
    if (!this.#maySubmit) return Promise.reject(new ClientError('no-key'));
    return new Promise(run);
  }

  #enqueueAccepted<R>(push: (waiter: Waiter) => void, view: Shape<R>): Promise<Accepted<R>> {
    return this.#enqueue((resolve, reject) => {
      const committed = new Promise<R>((settle, fail) => {
        const waiter = new CommittedWaiter(
          view,
          (receipt: R) => {
            settle(receipt);
            // A receipt may overtake the admission; whoever proves it has accepted it.
            resolve({ replica: null, committed });
          },
          fail,
        );
        waiter.accepted = (replica) => resolve({ replica, committed });
        push(waiter);
      });
      // Who waits for acceptance only must not be stopped by an unhandled rejection; what push threw still reaches them.
      committed.catch(reject);
    });
  }

  /**
   * Decided blocks from a height on, verified, in order, each once. `break` out of the loop, or `return()`, ends the stream.
   * Throws ClientError option-invalid, closed; its `next` rejects with pruned, closed.
   */
  follow(request: FollowRequest): FollowStream {
    if (this.#closed) throw new ClientError('closed');
    if (this.#streams.size >= streamsMax) throw new ClientError('option-invalid', { option: 'follow', streamsMax });
    const stream = new FollowStream(
      {
        genesis: this.#first,
        epochs: this.epochs,
        settings: this.#settings,
        crypto: this.#crypto,
        chain: this.#chain,
        links: this.#links,
        sources: this.#sources,
        dial: ({ member, name, url }, events) => this.#link({ member, name, url }, events),
        outdated: (link) => this.#outdated(link),
        overheard: (link, message) => this.#overhear(link, message),
        certified: () => this.#learnt(),
        ended: (each) => this.#streams.delete(each),
      },
      request,
    );
    this.#streams.add(stream);
    return stream;
  }

  /** The highest certified head that this client knows of. */
  head(): ClientHead {
    const { head, view, primary } = this.#chain;
    return { ...head, view, primary: this.epochs.last.members[primary]?.name ?? '' };
  }

  status(): readonly ReplicaStatus[] {
    return [...this.#links, ...this.#sources].map(({ name, url, state, suspected, claim, roundTripMs, lastCode }) => ({
      name,
      url,
      state,
      suspected,
      claimedHeight: claim?.height ?? null,
      claimedView: claim?.view ?? null,
      lowest: claim?.lowest ?? null,
      roundTripMs,
      lastCode,
    }));
  }

  /** Returns the function that removes the listener. What a listener throws is thrown in the client's own turn: let it not. */
  on<Name extends ClientEventName>(name: Name, listener: Listener<Name>): () => void {
    return this.#emitter.on(name, listener);
  }

  /** Ends every connection and stream. Whatever is unsettled rejects with 'closed'; it may still be ordered. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    clearInterval(this.#ticker);
    const error = new ClientError('closed');
    this.#ready?.reject(error);
    this.#pipeline.close();
    for (const stream of [...this.#streams]) stream.fail(error);
    this.#learner.close();
    for (const link of [...this.#links, ...this.#sources]) link.close();
    return Promise.resolve();
  }

  // ---- members, of this epoch and the next ---------------------------------------------------------------------------

  #link(to: Pick<LinkOptions, 'member' | 'name' | 'url'>, events: LinkEvents): Link {
    return new Link({
      ...to,
      chainId: this.#first.chainId,
      epoch: () => this.#chain,
      settings: this.#settings,
      crypto: this.#crypto,
      signer: this.#signer,
      events,
    });
  }

  /** [EPO-25] Connections to members that stay are kept; the caller's address is good until a later epoch names another. */
  #relink(): void {
    const before = this.#links.splice(0);
    for (const member of mainMembers(this.epochs.last)) {
      const { name, address } = member;
      const given = this.#given.get(name);
      const url = addressOf(address, given);
      // In the first epoch the caller says whom to use.
      if (url === undefined || (given === undefined && this.epochs.last.epoch === 0)) continue;
      const kept = before.find((link) => link.url === url && link.name === name && link.enter(member));
      this.#links.push(kept ?? this.#link({ member, name, url }, this.#linkEvents));
    }
    for (const link of before) if (!this.#links.includes(link)) link.close();
  }

  /** [EPO-18] More epochs are known, by links or by the blocks of a stream: the members are those of the last of them from now on. */
  #enterEpoch(): void {
    const { epoch, members } = this.epochs.last;
    this.#chain.enter();
    this.#relink();
    for (const link of this.#links) link.start();
    for (const stream of this.#streams) stream.enter();
    this.#pipeline.enter();
    this.#emitter.emit('epoch', { epoch, members: members.map(({ name }) => name) });
    this.#emitter.emit('view', { view: this.#chain.view, primary: this.head().primary });
    this.#knownView = this.#chain.view;
    this.#checkReady();
  }

  /** Somebody's block is of an epoch that is not known here; null: of one that is known and not entered yet. */
  #outdated(link: Link | null): void {
    if (link === null) this.#learnt();
    else this.#learner.ask(link.name, link.url);
  }

  /** [WIRE-35] Told where the next epoch begins, before anything that its members have signed. */
  #prove(link: Link, links: readonly Bytes[]): void {
    const code = learnLinks(this.epochs, links);
    if (code === 'certificate-epoch') return this.#outdated(link);
    if (code !== null) return link.suspect(code);
    this.#learnt();
  }

  get #isFollower(): boolean {
    return this.#given.size === 0;
  }

  /** Of nodes that are no members: what they say of their head counts only as far as it is proved. */
  #sourceEvents(): LinkEvents {
    const message = (link: Link, said: DoorMessage) => {
      this.#overhear(link, said);
      this.#checkReady();
    };
    return { ...this.#linkEvents, message };
  }

  #overhear(link: Link, message: DoorMessage): void {
    if (message.kind === 'epochs') return this.#prove(link, message.links);
    if (message.kind !== 'head') return;
    if (link.member !== null) return this.#hear(link, message);
    if (message.epoch > this.#chain.epoch) return;
    const code = this.#chain.hearCertificate(message);
    if (code !== undefined) link.suspect(code);
    else this.#learnt();
  }

  // ---- what happens on the connections -------------------------------------------------------------------------------

  #opened(link: Link): void {
    this.#emitter.emit('connected', { replica: link.name });
  }

  #ended(link: Link, code: string): void {
    this.#emitter.emit('disconnected', { replica: link.name, code });
    this.#pipeline.retarget();
  }

  #message(link: Link, message: DoorMessage): void {
    switch (message.kind) {
      case 'admissions':
        for (const admission of message.admissions) this.#pipeline.admission(link, admission);
        return;
      case 'receipts':
        this.#pipeline.receipts(link, message);
        return this.#learnt();
      case 'head':
        return this.#hear(link, message);
      case 'epochs':
        return this.#prove(link, message.links);
      case 'follow-blocks':
      case 'follow-end':
      case 'checkpoint-here':
      case 'state-here':
        // Never asked for on this connection.
        return link.suspect('follow-unasked');
    }
  }

  #hear(link: Link, message: Extract<DoorMessage, { kind: 'head' }>): void {
    const code = this.#chain.hear(link.id, message);
    if (code !== undefined) return link.suspect(code);
    this.#learnt();
    this.#pipeline.retarget();
    this.#checkReady();
  }

  /** Enough of them have told their heads, and nobody of those is in an epoch that is still to be learnt. */
  #checkReady(): void {
    if (this.#ready === null) return;
    const { epoch, quorums } = this.#chain;
    const heard = (link: Link) => link.claim !== null && link.claim.epoch <= epoch;
    const isReady = this.#isFollower
      ? this.#sources.some(heard)
      : this.#links.filter(heard).length >= quorums.oneHonest;
    if (isReady) this.#ready.resolve();
  }

  /** The epoch, a head or a view may have changed. */
  #learnt(): void {
    if (this.#closed) return;
    if (this.epochs.last.epoch > this.#chain.epoch) this.#enterEpoch();
    const { height, view } = this.#chain;
    if (height > this.#knownHeight) {
      this.#knownHeight = height;
      this.#emitter.emit('head', { height });
    }
    if (view > this.#knownView) {
      this.#knownView = view;
      this.#emitter.emit('view', { view, primary: this.head().primary });
      this.#pipeline.retarget();
    }
  }

  #tick(): void {
    const now = performance.now();
    for (const link of [...this.#links, ...this.#sources]) link.tick(now);
    this.#pipeline.tick(now);
    for (const stream of this.#streams) stream.tick(now);
  }
}
