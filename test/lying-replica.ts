// A replica that lies, as a process: the daemon's own wiring (daemon/node.ts) around an honest core, and one rule overridden (sim/liars.ts). What
// it says instead is signed with its own key, which this file reads as any thief of the key would: its guard is not asked.
//
// node lying-replica.js LIE config.json --with-parent

import { native } from '../crypto/native.ts';
import { checkAgainstGenesis, loadConfig, loadGenesis, passphraseSource } from '../daemon/config.ts';
import { laneOf } from '../daemon/kinds.ts';
import { createLogs } from '../daemon/logging.ts';
import { startNode } from '../daemon/node.ts';
import type { Lane, PeerTransport } from '../daemon/ports.ts';
import { signBytes } from '../keys/keypair.ts';
import { loadKey } from '../keys/keystore.ts';
import { decodeFrame, encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { ReplicaId } from '../protocol/types.ts';
import { asEpoch, asReplicaId } from '../protocol/types.ts';
import { openFrame, signingBytes } from '../protocol/verify.ts';
import { LIES, type LieName, LyingReplica } from '../sim/liars.ts';
import { randomFrom } from '../sim/random.ts';

const [lie = '', configFile = ''] = process.argv.slice(2);
if (!(lie in LIES)) throw new Error(`no such lie: ${lie}`);

function must<T extends object>(value: T): Exclude<T, { readonly refused: string }> {
  if ('refused' in value) throw new Error(JSON.stringify(value));
  return value as Exclude<T, { readonly refused: string }>; // as just seen
}

const config = must(loadConfig(configFile));
const { genesis } = must(loadGenesis(native, config.genesis));
const problem = checkAgainstGenesis(config, genesis);
if (problem !== undefined) throw new Error(JSON.stringify(problem));
const self = asReplicaId(genesis.members.findIndex(({ name }) => name === config.member));
const { secret } = await loadKey({ path: config.key, passphrase: passphraseSource(config.passphraseFile) });
const { logger, flush } = createLogs({ ...config.log, member: config.member });

/** What leaves, changed: a link that the liar's mouth is at the other end of. */
class Mouth implements PeerTransport {
  readonly #inner: PeerTransport;
  readonly #others: readonly ReplicaId[];

  constructor(inner: PeerTransport) {
    this.#inner = inner;
    this.#others = genesis.members.map(({ id }) => id).filter((id) => id !== self);
  }

  send(to: ReplicaId, frame: Uint8Array, lane: Lane): void {
    const message = ownMessage(frame, genesis);
    // What another one signed is carried as it is.
    if (message === null) return this.#inner.send(to, frame, lane);
    const said = liar.says(to, message);
    if (said === message) this.#inner.send(to, frame, lane);
    else if (said !== null) this.say(to, said);
  }

  broadcast(frame: Uint8Array, lane: Lane): void {
    for (const to of this.#others) this.send(to, frame, lane);
  }

  say(to: ReplicaId, message: ReplicaMessage): void {
    const payload = encodePayload(message);
    const signature = signBytes(secret, signingBytes(genesis.chainId, message, payload));
    const frame = encodeFrame({ kind: message.kind, payload, sender: secret.publicKey, signature });
    this.#inner.send(to, frame, laneOf(message.kind));
  }

  punish(peer: ReplicaId, code: string): void {
    this.#inner.punish(peer, code);
  }
  connectedPeers(): readonly ReplicaId[] {
    return this.#inner.connectedPeers();
  }
  close(): Promise<void> {
    return this.#inner.close();
  }
}

function ownMessage(bytes: Uint8Array, { chainId, members, parameters }: Genesis): ReplicaMessage | null {
  const frame = must(decodeFrame(bytes));
  const { quorum } = byzantineQuorums(members.length);
  const signed = openFrame(frame, { crypto: native, chainId, epoch: asEpoch(0), members, quorum, parameters });
  return isRefusal(signed) || signed.sender !== self ? null : signed.message;
}

let mouth: Mouth | null = null;
const liar = new LyingReplica(LIES[lie as LieName], {
  self,
  n: genesis.members.length,
  genesis,
  say: (to, message) => mouth?.say(to, message),
  after: (ms, run) => void setTimeout(run, ms).unref(),
  random: randomFrom(1),
});

const end = (code: number): never => {
  flush();
  process.exit(code);
};
const node = await startNode(config, logger, {
  core: (core) => liar.deceive(core),
  peers: (transport) => {
    mouth = new Mouth(transport);
    return mouth;
  },
});
const stop = () => {
  node.stop().then(
    () => end(0),
    () => end(1),
  );
};
process.on('SIGTERM', stop);
process.stdin.resume().on('end', stop).on('error', stop);
const reason = await node.done;
// Its network's epoch never ends.
end(typeof reason === 'number' ? reason : 1);
