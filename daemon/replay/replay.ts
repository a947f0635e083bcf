// The same steps again: a core from the state that a segment begins with, given the inputs that were recorded. Everything it does is compared
// with what was done then.

import { equalBytes, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Explanation, Ready } from '../../protocol/core.ts';
import { type ReplicaCore, restoreCore } from '../../protocol/cores.ts';
import type { ReplicaMessage, ReplicaPledge } from '../../protocol/messages.ts';
import { decodeStep, digestOf, type RecordedStep } from '../../protocol/recording.ts';
import type { StepRecord } from '../recorder/format.ts';
import type { Recording, RecordingProblem } from './recordings.ts';

/** A step of a recording by its segment and its place in it, from 1: `17.204`. */
export interface StepName {
  readonly segment: number;
  readonly step: number;
}

export const stepText = ({ segment, step }: StepName): string => `${segment}.${step}`;

/** Positive where `a` comes after `b`. */
export const compareSteps = (a: StepName, b: StepName): number => a.segment - b.segment || a.step - b.step;

export interface ReplayedStep extends RecordedStep {
  readonly name: StepName;
  /** Null: the core threw, as it did then. */
  readonly ready: Ready<ReplicaMessage, ReplicaPledge> | null;
  readonly threw: string;
}

/** [FLR-5] The first thing that is not as it was. */
export interface Difference {
  /** Null: the state after the last step of the segment. */
  readonly name: StepName | null;
  readonly what: 'ready' | 'threw' | 'threw-not' | 'state';
  readonly problem: string;
}

export class SegmentReplay {
  readonly #recording: Recording;
  readonly #core: ReplicaCore;
  #done = 0;

  private constructor(recording: Recording, core: ReplicaCore) {
    this.#recording = recording;
    this.#core = core;
  }

  static begin(recording: Recording): SegmentReplay | RecordingProblem {
    const { genesis, document, head, snapshot, file } = recording;
    const { sha256 } = native;
    const options = { genesis, epoch: document.epoch, document, self: head.replica, sha256 };
    const core = restoreCore(options, snapshot);
    if (!('refused' in core)) return new SegmentReplay(recording, core);
    if (core.refused === 'snapshot-malformed')
      return { refused: 'recording-damaged', file, problem: `its state cannot be read: ${core.problem}` };
    const versions = `synod ${head.software} wrote it`;
    return {
      refused: 'recording-version',
      file,
      problem: `its state is of other software (${core.problem}); ${versions}`,
    };
  }

  /** The next step; null after the last one, where the state is compared as well. */
  next(): ReplayedStep | Difference | RecordingProblem | null {
    const { steps, head, genesis, file, stop } = this.#recording;
    const record = steps[this.#done];
    if (record === undefined) return stop.kind === 'end' ? this.#compareState() : null;
    this.#done += 1;
    const name = { segment: head.number, step: this.#done };
    const step = decodeStep(record.inputs, { sha256: native.sha256, parameters: genesis.parameters });
    if ('refused' in step)
      return { refused: 'recording-malformed', file, problem: `step ${stepText(name)}: ${step.problem}` };
    return this.#run(name, step, record);
  }

  #run(name: StepName, step: RecordedStep, record: StepRecord): ReplayedStep | Difference {
    let ready: Ready<ReplicaMessage, ReplicaPledge>;
    try {
      ready = this.#core.step(step.inputs, step.now);
    } catch (error) {
      const threw = String(error);
      if (record.digest === null) return { name, ...step, ready: null, threw };
      return { name, what: 'threw', problem: `the core throws now: ${threw}` };
    }
    if (record.digest === null) return { name, what: 'threw-not', problem: `the core threw then: ${record.threw}` };
    if (digestOf(ready) === record.digest) return { name, ...step, ready, threw: '' };
    return { name, what: 'ready', problem: 'what the core wants done is not what it wanted then' };
  }

  #compareState(): Difference | null {
    const { end } = this.#recording;
    if (end === null || end.state === null || equalBytes(this.digest(), end.state)) return null;
    return { name: null, what: 'state', problem: `the state after step ${this.#done} is not what it was` };
  }

  get explanation(): Explanation {
    return this.#core.explain();
  }

  /** SHA-256 of all that the core knows now. */
  digest(): Uint8Array {
    return native.sha256(this.#core.snapshot());
  }

  digestText(): string {
    return toHex(this.digest());
  }
}
