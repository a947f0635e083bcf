// `synod sim --record`: what the core of each simulated replica was given, in the files that `synod replay` reads: a folder for each replica, and
// a segment for each of its lives.

import { closeSync, mkdirSync, openSync, readdirSync, writevSync } from 'node:fs';
import { join } from 'node:path';
import type { Bytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Recovery, ReplicaCore } from '../../protocol/cores.ts';
import { encodeEpoch } from '../../protocol/epoch/document.ts';
import { digestOf, encodeStep } from '../../protocol/recording.ts';
import { drawPlan, type LifeOptions } from '../../sim/life.ts';
import { type Interrupted, SimReplica } from '../../sim/replica.ts';
import { settingOf } from '../../sim/setting.ts';
import { usageError } from '../cli/errors.ts';
import { type Ending, encodeEnd, encodeHead, encodeState, encodeStepRecord, encodeThrew } from '../recorder/format.ts';
import { segmentName } from '../recorder/segment-files.ts';
import { version } from '../version.ts';

/** Then the next segment begins: one is read whole. */
const SEGMENT_BYTES = 64 << 20;

interface Recorded {
  readonly Replica: typeof SimReplica;
  /** The run is over: segments that are open get their end. */
  end(): void;
}

/** Replicas of this life that are recorded. @throws Complaint where there are files already, or a system error */
export function recordTo(directory: string, life: LifeOptions): Recorded {
  mkdirSync(directory, { recursive: true });
  if (readdirSync(directory).length > 0) throw usageError(`--record: ${directory} is not empty`, 'Give a new folder.');
  const { n, parameters, realSignatures, operators } = drawPlan(life);
  const { protocol = 'pbft' } = life;
  const { genesis, document } = settingOf(n, parameters, { realSignatures, operators, protocol });
  const about = { chainId: genesis.chainId, genesis: document, software: version(), gap: 'none', missed: 0 } as const;
  const running = new Map<SimReplica, { readonly core: ReplicaCore; fd: number; bytes: number; steps: number }>();
  const numbers = new Map<SimReplica, number>();

  const begin = (replica: SimReplica, core: ReplicaCore, snapshot: Bytes) => {
    const member = `node-${replica.id}`;
    const number = (numbers.get(replica) ?? 0) + 1;
    numbers.set(replica, number);
    mkdirSync(join(directory, member), { recursive: true, mode: 0o700 });
    const fd = openSync(join(directory, member, segmentName(number)), 'ax', 0o600);
    running.set(replica, { core, fd, bytes: 0, steps: 0 });
    const head = {
      ...about,
      number,
      replica: replica.member!, // it has a core
      member,
      startedAt: replica.clock.now(),
      epoch: replica.epoch.epoch === 0 ? null : encodeEpoch(replica.epoch),
    };
    write(replica, [encodeHead(head), ...encodeState(snapshot)], 0);
  };
  const write = (replica: SimReplica, parts: readonly Bytes[], steps: number) => {
    const segment = running.get(replica)!; // of one that runs
    segment.bytes += writevSync(segment.fd, parts);
    segment.steps += steps;
  };
  const end = (replica: SimReplica, why: Ending) => {
    const { core, fd, steps } = running.get(replica)!; // likewise
    const snapshot = core.snapshot();
    write(replica, encodeEnd({ why, steps, state: native.sha256(snapshot) }), 0);
    closeSync(fd);
    running.delete(replica);
    return snapshot;
  };

  class Replica extends SimReplica {
    protected override makeCore(recovery: Recovery): ReplicaCore {
      // Its epoch has ended, and it goes on in the next.
      if (running.has(this)) end(this, 'stopped');
      const core = super.makeCore(recovery);
      const run = core.step.bind(core);
      begin(this, core, core.snapshot());
      core.step = (inputs, now) => {
        if (running.get(this)!.bytes > SEGMENT_BYTES) begin(this, core, end(this, 'full'));
        const step = encodeStep({ now, inputs });
        try {
          const ready = run(inputs, now);
          write(this, encodeStepRecord(digestOf(ready), step), 1);
          return ready;
        } catch (error) {
          write(this, encodeThrew(error, step), 0);
          throw error;
        }
      };
      return core;
    }

    override crash(interrupted: Interrupted): boolean {
      if (running.has(this)) end(this, 'stopped');
      return super.crash(interrupted);
    }
  }
  const endAll = () => {
    for (const replica of [...running.keys()]) end(replica, 'stopped');
  };
  return { Replica, end: endAll };
}
