// More than f replicas lie, and the chain forks: what must still hold of every honest key, and who is named. Whole clusters in virtual time,
// with f + 1 and more of them in one hand (sim/conspiracy.ts). SEEDS=200 for more of them, SEED=n for one.

import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodePayload, isRefusal } from '../protocol/codec.ts';
import type { Ready } from '../protocol/core.ts';
import type { Recovery, ReplicaCore } from '../protocol/cores.ts';
import type { NewView, ReplicaMessage, ReplicaPledge, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { decodeHardState } from '../protocol/pbft/hard-state.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { asHeight, type ReplicaId } from '../protocol/types.ts';
import { Audit, type Branch, encodeEvidence, evidenceOf, verifyEvidence } from '../protocol/verify.ts';
import { Cluster } from '../sim/cluster.ts';
import { Conspiracy } from '../sim/conspiracy.ts';
import { SimReplica } from '../sim/replica.ts';
import { standInCrypto } from '../sim/signatures.ts';
import { faultsOf } from './cluster-world.ts';
import { saidByHonest } from './said.ts';
import { load, torment } from './torment.ts';

t.setTimeout(0);

const LIFE_MS = 4_000;

/** What honest replicas keep for an audit (daemon/evidence.ts), over all their lives. */
class Kept {
  readonly newViews: Verified<NewView>[] = [];
  /** By replica: what it decided, by height. */
  readonly decided = new Map<ReplicaId, Map<number, { readonly hash: string; readonly header: Uint8Array }>>();
  readonly certificates = new Map<ReplicaId, Certificate[]>();
  readonly pieces: { readonly culprit: ReplicaId; readonly bytes: Uint8Array }[] = [];
}

function recorded(kept: Kept): typeof SimReplica {
  return class extends SimReplica {
    protected override makeCore(recovery: Recovery): ReplicaCore {
      const core = super.makeCore(recovery);
      const step = core.step.bind(core);
      core.step = (inputs, now) => {
        const ready = step(inputs, now);
        this.#keep(ready);
        return ready;
      };
      return core;
    }

    #keep({ deliver, records, evidence }: Ready<ReplicaMessage, ReplicaPledge>): void {
      const { genesis } = this.world;
      for (const { block, certificate } of deliver) {
        const mine = kept.decided.get(this.id) ?? new Map();
        kept.decided.set(
          this.id,
          mine.set(block.header.height, { hash: toHex(block.hash), header: block.headerBytes }),
        );
        if (certificate !== null)
          kept.certificates.set(this.id, [...(kept.certificates.get(this.id) ?? []), certificate]);
      }
      for (const record of records) {
        const state = record.type === 'hard-state' ? decodeHardState(record.bytes) : undefined;
        if (state?.mode !== 'active' || state.newView === null) continue;
        const { sender, payload, signature } = state.newView;
        const message = decodePayload('new-view', payload, { sha256: native.sha256, parameters: genesis.parameters });
        if (isRefusal(message) || message.kind !== 'new-view') throw new Error('what was entered is a new-view');
        kept.newViews.push(asVerified({ sender, message, payload, signature }));
      }
      for (const { culprit, first, second } of evidence) {
        kept.pieces.push({ culprit, bytes: encodeEvidence(evidenceOf(genesis, first, second)) });
      }
    }
  };
}

interface Outcome {
  readonly n: number;
  readonly liars: readonly number[];
  readonly forks: number;
  readonly stopped: number;
  /** Named by the audit of all that the honest ones keep. */
  readonly named: readonly number[];
  readonly verdict: string;
  readonly accused: readonly number[];
  /** Contradictions of honest keys, over all that they said. */
  readonly contradictions: readonly string[];
}

function forkedLife(seed: number): Outcome {
  const n = seed % 3 === 0 ? 7 : 4;
  // Mostly with the primary of the first view among them.
  const first = seed % 5 === 0 ? seed % n : 0;
  const liars = Array.from({ length: faultsOf(n) + 1 + (n === 7 ? seed % 2 : 0) }, (_, i) => (first + i) % n);
  const kept = new Kept();
  const cluster = new Cluster({
    n,
    seed,
    realSignatures: seed % 8 === 1,
    parameters: { checkpointInterval: 16 },
    Replica: recorded(kept),
  });
  cluster.checks.mayFork = true;
  const conspiracy = new Conspiracy(cluster, liars);
  // Who is restarted again and again decides little: in one life of four they do that too.
  conspiracy.cutsPower = seed % 4 === 0;
  const said = saidByHonest(cluster, liars);
  load(cluster, { clients: 3, everyMs: 150, untilMs: LIFE_MS });
  if (seed % 4 === 0) torment(cluster, { untilMs: LIFE_MS, blackouts: false });
  else {
    // The honest ones are kept apart, each half with the liars: until they meet, neither knows of the other chain.
    const half = (which: number) =>
      cluster.nodes.map(({ id }) => Number(id)).filter((id) => liars.includes(id) || id % 2 === which);
    cluster.partition = [half(0), half(1)];
    cluster.after(LIFE_MS / 2, () => {
      cluster.partition = null;
    });
  }
  cluster.run(LIFE_MS + 500);
  const report = audited(cluster, kept, liars);
  return {
    n,
    liars,
    forks: cluster.checks.forks.length,
    stopped: cluster.nodes.filter(({ id, core }) => core === null && !liars.includes(id)).length,
    named: report.culprits.map(({ member }) => Number(member.id)),
    verdict: report.verdict,
    accused: [...new Set([...cluster.evidence, ...kept.pieces].map(({ culprit }) => Number(culprit)))],
    contradictions: said.end(),
  };
}

/** As `synod audit` does it with the chain files and witness files of all honest replicas. */
function audited({ genesis }: Cluster, kept: Kept, liars: readonly number[]) {
  const audit = new Audit({ genesis, crypto: standInCrypto });
  const honest = [...kept.decided].filter(([id]) => !liars.includes(id));
  for (const signed of kept.newViews) audit.statement(signed);
  for (const { bytes } of kept.pieces) {
    const proven = verifyEvidence(bytes, { genesis, crypto: standInCrypto });
    if (isRefusal(proven)) throw new Error(`evidence that does not hold: ${proven.refused}`);
    audit.evidence(bytes, proven);
  }
  for (const [id] of honest) for (const certificate of kept.certificates.get(id) ?? []) audit.certificate(certificate);
  const top = Math.max(0, ...honest.flatMap(([, chain]) => [...chain.keys()]));
  for (let height = 1; height <= top; height++) {
    const branches = new Map<string, Branch>();
    for (const [id, chain] of honest) {
      const at = chain.get(height);
      if (at === undefined) continue;
      const certificates = (kept.certificates.get(id) ?? []).filter((each) => each.height >= height);
      const headers = [...chain].filter(([each]) => each >= height).sort(([a], [b]) => a - b);
      if (certificates.length === 0 || branches.has(at.hash)) continue;
      branches.set(at.hash, {
        sources: [`node-${id}`],
        hash: Buffer.from(at.hash, 'hex') as unknown as Branch['hash'], // 32 bytes, as it was written
        certificates,
        headers: headers.map(([, { header }]) => header),
      });
    }
    if (branches.size > 1) return audit.report({ height: asHeight(height), branches: [...branches.values()] });
  }
  return audit.report(null);
}

t.test(
  'ACC-3, EVD-5: more than f lie and the chain forks: no honest key is ever the culprit, f + 1 liars are',
  async (t) => {
    const only = process.env.SEED === undefined ? null : [Number(process.env.SEED)];
    const seeds = only ?? Array.from({ length: Number(process.env.SEEDS ?? 24) }, (_, i) => i + 1);
    let forked = 0;
    let guilty = 0;
    for (const seed of seeds) {
      const outcome = forkedLife(seed);
      const { n, liars, forks, named, accused, contradictions, verdict } = outcome;
      const words = `seed ${seed}: ${JSON.stringify(outcome)}`;
      t.strictSame(contradictions, [], `${words}: no honest key signed what contradicts`);
      t.ok(
        [...named, ...accused].every((id) => liars.includes(id)),
        words,
      );
      if (forks === 0) continue;
      forked += 1;
      if (verdict !== 'guilty') continue;
      guilty += 1;
      t.ok(named.length > byzantineQuorums(n).f, `${words}: f + 1 are named`);
    }
    if (only !== null) return;
    t.comment(`${forked} of ${seeds.length} lives forked; in ${guilty} of these f + 1 liars are named`);
    t.ok(forked >= seeds.length / 8, `${forked} forks`);
    t.equal(guilty, forked, 'the honest ones together can name f + 1 of them in each');
  },
);
