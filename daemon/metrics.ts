// The figures of one daemon as Prometheus series. Every series stands in the table below, with its help text; a name that does
// not is a bug and throws. Parts report times in milliseconds under names that end in _ms; what the table calls _seconds is exported in
// seconds, the base unit of Prometheus, and reported as _ms.

import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { assert } from '../protocol/assert.ts';
import { type Explanation, phases, waitKinds } from '../protocol/core.ts';
import { Cells, Distribution, type Labels } from './cells.ts';
import type { Meter, ReplicaPort } from './ports.ts';

interface SeriesShape {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels?: readonly string[];
  /** Upper bounds, in the unit of the name. */
  readonly buckets?: readonly number[];
}

const fastSeconds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const slowSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const bytes = [256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];
const counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/** Every series but prom-client's own about the process (process_*, nodejs_*). */
export const seriesTable = {
  // Read from explain() at each scrape.
  synod_view: { type: 'gauge', help: 'View this replica is in.' },
  synod_epoch: { type: 'gauge', help: 'Epoch this replica is in.' },
  synod_is_primary: { type: 'gauge', help: '1 if this replica is the primary of its view.' },
  synod_height: { type: 'gauge', help: 'Height of the last decided block.' },
  synod_stable_height: { type: 'gauge', help: 'Height of the last stable checkpoint.' },
  synod_highest_seen_height: { type: 'gauge', help: 'Highest height that any peer claims.' },
  synod_phase: { type: 'gauge', help: '1 for the phase this replica is in, 0 for the others.', labels: ['phase'] },
  synod_blocks_in_flight: { type: 'gauge', help: 'Blocks accepted and not yet decided.' },
  synod_pool_bundles: { type: 'gauge', help: 'Admitted bundles that wait to be ordered.' },
  synod_pool_bytes: { type: 'gauge', help: 'Payload bytes of the admitted bundles.' },
  synod_peers_connected: { type: 'gauge', help: 'Other replicas with an authenticated connection.' },
  synod_peer_height: { type: 'gauge', help: 'Height that a peer claims.', labels: ['peer'] },
  synod_view_timeout_seconds: { type: 'gauge', help: 'Current view timeout, back-off included.' },
  synod_waits: { type: 'gauge', help: 'Things this replica waits for, by what they are.', labels: ['what'] },
  synod_quarantined: { type: 'gauge', help: '1 while this replica votes for nothing, for its memory was lost.' },
  synod_view_changes_total: { type: 'counter', help: 'View changes begun.' },
  synod_primary_pace_ratio: {
    type: 'gauge',
    help: 'Share of the time with work in hand in which the primary was not late, in this view; 1 at the primary itself.',
  },
  synod_primary_late_seconds: { type: 'gauge', help: 'How late the primary has been, less what was forgiven.' },

  // The loop.
  synod_blocks_decided_total: { type: 'counter', help: 'Blocks decided.' },
  synod_bundles_decided_total: { type: 'counter', help: 'Bundles in decided blocks.' },
  synod_transactions_decided_total: { type: 'counter', help: 'Transactions in decided blocks.' },
  synod_payload_decided_bytes_total: { type: 'counter', help: 'Payload bytes of the bundles in decided blocks.' },
  synod_phase_seconds: {
    type: 'histogram',
    help: 'Time between two phases of a block: proposed-to-prepared, prepared-to-decided, proposed-to-decided.',
    labels: ['phase'],
    buckets: slowSeconds,
  },
  synod_stalled_seconds_total: {
    type: 'counter',
    help: 'Time in which this replica itself was held up: by its event loop, or by a synced write.',
    labels: ['what'],
  },
  synod_step_seconds: { type: 'histogram', help: 'One step of the core.', buckets: fastSeconds },
  synod_step_inputs: { type: 'histogram', help: 'Inputs of one step of the core.', buckets: counts },
  synod_verify_seconds: {
    type: 'histogram',
    help: 'Checking one message: its signature and the certificates in it.',
    labels: ['kind'],
    buckets: fastSeconds,
  },
  synod_refusals_total: { type: 'counter', help: 'What peers sent and was refused.', labels: ['code', 'kind'] },
  synod_admissions_total: { type: 'counter', help: 'Verdicts on bundles.', labels: ['code'] },
  synod_evidence_total: { type: 'counter', help: 'Proofs of misbehaviour of a replica, as seen.', labels: ['peer'] },
  synod_evidence_kept: { type: 'gauge', help: 'Proofs of misbehaviour of a replica on disk.', labels: ['peer'] },
  synod_events_total: { type: 'counter', help: 'Events of the core.', labels: ['type'] },
  synod_guard_refusals_total: { type: 'counter', help: 'What the guard refused to sign.', labels: ['code'] },

  // Disk.
  synod_log_write_seconds: { type: 'histogram', help: 'One synced write of the log.', buckets: fastSeconds },
  synod_log_write_bytes: { type: 'histogram', help: 'Bytes of one synced write of the log.', buckets: bytes },
  synod_log_lowest_height: { type: 'gauge', help: 'Lowest decided block that is still kept.' },
  synod_guard_write_seconds: { type: 'histogram', help: 'One synced write of the sign mark.', buckets: fastSeconds },
  synod_recorder_bytes_total: { type: 'counter', help: 'Bytes written by the flight recorder.' },
  synod_recorder_missed_total: { type: 'counter', help: 'Steps that the flight recorder left out.', labels: ['why'] },
  synod_recorder_errors_total: { type: 'counter', help: 'Failures of the flight recorder.', labels: ['code'] },
  synod_recorder_snapshot_seconds: {
    type: 'histogram',
    help: 'One snapshot of the core, for a new segment of the flight recorder.',
    buckets: fastSeconds,
  },

  // Transport.
  synod_transport_connections: { type: 'gauge', help: 'Open sockets of the listener.' },
  synod_transport_connections_unauthenticated: { type: 'gauge', help: 'Sockets whose handshake is not finished.' },
  synod_transport_clients: { type: 'gauge', help: 'Clients after their handshake.' },
  synod_transport_connections_refused_total: { type: 'counter', help: 'Connections turned away.', labels: ['code'] },
  synod_transport_handshakes_refused_total: {
    type: 'counter',
    help: 'Handshakes that failed.',
    labels: ['direction', 'code'],
  },
  synod_transport_frames_in_total: { type: 'counter', help: 'Frames received.', labels: ['lane'] },
  synod_transport_bytes_in_total: { type: 'counter', help: 'Bytes received.', labels: ['lane'] },
  synod_transport_frames_out_total: { type: 'counter', help: 'Frames sent.', labels: ['lane'] },
  synod_transport_bytes_out_total: { type: 'counter', help: 'Bytes sent.', labels: ['lane'] },
  synod_transport_frames_dropped_total: { type: 'counter', help: 'Frames dropped for a full queue.', labels: ['lane'] },
  synod_transport_throttled_total: { type: 'counter', help: 'Times a flood was not read on.', labels: ['lane'] },
  synod_transport_dials_total: { type: 'counter', help: 'Attempts to connect to a peer.', labels: ['lane'] },
  synod_transport_disconnects_total: { type: 'counter', help: 'Connections to a peer that ended.', labels: ['peer'] },
  synod_transport_punished_total: { type: 'counter', help: 'Peers cut off for a broken rule.', labels: ['peer'] },
  synod_transport_overloads_total: { type: 'counter', help: 'Times the bulk lanes were not read for overload.' },
  synod_transport_peers_connected: { type: 'gauge', help: 'Peers with a vote lane.' },
  synod_transport_queue_frames: { type: 'gauge', help: 'Frames that wait for a peer.', labels: ['peer', 'lane'] },
  synod_transport_queue_bytes: { type: 'gauge', help: 'Bytes that wait for a peer.', labels: ['peer', 'lane'] },
  synod_transport_other_total: { type: 'counter', help: 'Events of series beyond the bound.' },
  synod_queue_depth: { type: 'gauge', help: 'Entries of a queue of the loop.', labels: ['queue'] },
  synod_queue_bytes: { type: 'gauge', help: 'Bytes of a queue of the loop.', labels: ['queue'] },

  // Client doors.
  synod_client_connections: { type: 'gauge', help: 'Authenticated client connections.' },
  synod_client_frames_total: { type: 'counter', help: 'Frames from clients.', labels: ['kind'] },
  synod_client_refusals_total: { type: 'counter', help: 'Frames from clients that were refused.', labels: ['code'] },
  synod_bundles_waiting: { type: 'gauge', help: 'Bundles whose receipt some client waits for.' },
  synod_receipts_sent_total: { type: 'counter', help: 'Receipts sent to clients.', labels: ['source'] },
  synod_submit_seconds: { type: 'histogram', help: 'From a bundle at the door to its receipt.', buckets: slowSeconds },
  synod_follow_streams: { type: 'gauge', help: 'Open follow streams.' },
  synod_followed_blocks_total: { type: 'counter', help: 'Blocks sent to followers.' },
  synod_http_connections: { type: 'gauge', help: 'Open connections of the HTTP door.' },
  synod_http_requests_total: {
    type: 'counter',
    help: 'HTTP requests, by route and status.',
    labels: ['route', 'status'],
  },
  synod_http_request_seconds: { type: 'histogram', help: 'HTTP requests.', labels: ['route'], buckets: slowSeconds },

  // This process.
  synod_event_loop_delay_seconds: {
    type: 'gauge',
    help: 'Delay of the event loop since the last scrape.',
    labels: ['quantile'],
  },
} as const satisfies Readonly<Record<string, SeriesShape>>;

export type SeriesName = keyof typeof seriesTable;

const eventLoopResolutionMs = 10;

interface Counted {
  readonly type: 'counter';
  /** Of a set of labels, since the last scrape. */
  readonly cells: Cells<{ readonly labels: Labels; by: number }>;
  readonly metric: Counter;
}

interface Gauged {
  readonly type: 'gauge';
  /** Under which labels a value goes. */
  readonly cells: Cells<Labels>;
  readonly metric: Gauge;
}

interface Observing {
  readonly type: 'histogram';
  readonly metric: Distribution;
}

type Series = (Counted | Gauged | Observing) & {
  /** 0.001 for times, which come in milliseconds. */
  readonly scale: number;
};

/** What a scrape asks the replica; the loop also knows how full its queues are. */
export interface Watched extends Pick<ReplicaPort, 'explain' | 'log'> {
  queueDepths?(): {
    readonly frames: number;
    readonly frameBytes: number;
    readonly inputs: number;
    readonly records: number;
  };
}

/** The name under which parts report a series. */
function reportedAs(name: string, { type }: SeriesShape): string {
  return type === 'counter' ? name : name.replace(/_seconds$/, '_ms');
}

export class Metrics implements Meter {
  readonly registry = new Registry();
  readonly #series = new Map<string, Series>();
  readonly #loopDelay: IntervalHistogram;
  #watched: Watched | null = null;
  #viewChanges = 0;

  constructor() {
    for (const [name, shape] of Object.entries<SeriesShape>(seriesTable)) {
      const scale = reportedAs(name, shape) === name ? 1 : 0.001;
      this.#series.set(reportedAs(name, shape), { ...this.#create(name, shape), scale });
    }
    collectDefaultMetrics({ register: this.registry });
    this.#loopDelay = monitorEventLoopDelay({ resolution: eventLoopResolutionMs });
    this.#loopDelay.enable();
  }

  count(name: string, labels: Labels = none, by = 1): void {
    this.#find(name, 'counter').cells.at(labels).by += by;
  }

  gauge(name: string, value: number, labels: Labels = none): void {
    const { metric, cells, scale } = this.#find(name, 'gauge');
    metric.set(cells.at(labels), value * scale);
  }

  observe(name: string, value: number, labels: Labels = none): void {
    const { metric, scale } = this.#find(name, 'histogram');
    metric.add(labels, value * scale);
  }

  /** From now on every scrape asks this replica where it stands. */
  watch(replica: Watched): void {
    this.#watched = replica;
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** The text of a scrape. */
  async scrape(): Promise<string> {
    if (this.#watched !== null) {
      const { log } = this.#watched;
      this.#explained(this.#watched.explain());
      this.gauge('synod_log_lowest_height', log.lowest);
      const depths = this.#watched.queueDepths?.();
      if (depths !== undefined) {
        for (const queue of ['frames', 'inputs', 'records'] as const)
          this.gauge('synod_queue_depth', depths[queue], { queue });
        this.gauge('synod_queue_bytes', depths.frameBytes, { queue: 'frames' });
      }
    }
    // The monitor counts its own resolution as part of every delay.
    const ms = (nanos: number) => Math.max(0, nanos / 1e6 - eventLoopResolutionMs);
    if (this.#loopDelay.count > 0) {
      this.gauge('synod_event_loop_delay_ms', ms(this.#loopDelay.percentile(50)), { quantile: '0.5' });
      this.gauge('synod_event_loop_delay_ms', ms(this.#loopDelay.percentile(99)), { quantile: '0.99' });
      this.gauge('synod_event_loop_delay_ms', ms(this.#loopDelay.max), { quantile: '1' });
      this.#loopDelay.reset();
    }
    this.#handOver();
    return this.registry.metrics();
  }

  close(): void {
    this.#loopDelay.disable();
    this.registry.clear();
  }

  #explained(now: Explanation): void {
    this.gauge('synod_view', now.view);
    this.gauge('synod_epoch', now.epoch);
    this.gauge('synod_is_primary', now.primary === now.self ? 1 : 0);
    this.gauge('synod_height', now.height);
    this.gauge('synod_stable_height', now.stable);
    this.gauge('synod_highest_seen_height', now.highestSeen);
    for (const phase of phases) this.gauge('synod_phase', now.phase === phase ? 1 : 0, { phase });
    this.gauge('synod_quarantined', now.phase === 'quarantine' ? 1 : 0);
    this.gauge('synod_blocks_in_flight', now.inFlight);
    this.gauge('synod_pool_bundles', now.pool.bundles);
    this.gauge('synod_pool_bytes', now.pool.bytes);
    this.gauge('synod_peers_connected', now.peers.filter((peer) => peer.connected).length);
    for (const peer of now.peers) this.gauge('synod_peer_height', peer.height, { peer: String(peer.replica) });
    this.gauge('synod_view_timeout_ms', now.timeoutMs);
    this.gauge('synod_primary_pace_ratio', (now.pace?.percent ?? 100) / 100);
    this.gauge('synod_primary_late_ms', now.pace?.lateMs ?? 0);
    for (const what of waitKinds)
      this.gauge('synod_waits', now.waits.filter((wait) => wait.what === what).length, { what });
    this.count(
      'synod_view_changes_total',
      {},
      now.viewChanges < this.#viewChanges ? now.viewChanges : now.viewChanges - this.#viewChanges,
    );
    // Fewer than before: of another epoch.
    this.#viewChanges = now.viewChanges;
  }

  /** What was counted since the last scrape. */
  #handOver(): void {
    for (const series of this.#series.values()) {
      if (series.type !== 'counter') continue;
      for (const cell of series.cells.values()) {
        series.metric.inc(cell.labels, cell.by);
        cell.by = 0;
      }
    }
  }

  #find<T extends Series['type']>(name: string, type: T): Extract<Series, { readonly type: T }> {
    const series = this.#series.get(name);
    assert(series !== undefined && series.type === type, () => `metrics: ${name} is not a ${type} of the table`);
    // The cast: the line above has looked.
    return series as Extract<Series, { readonly type: T }>;
  }

  #create(name: string, shape: SeriesShape): Counted | Gauged | Observing {
    const labelNames = [...(shape.labels ?? [])];
    const options = { name, help: shape.help, labelNames, registers: [this.registry] };
    switch (shape.type) {
      case 'counter':
        return {
          type: shape.type,
          cells: new Cells(labelNames, (labels) => ({ labels, by: 0 })),
          metric: new Counter(options),
        };
      case 'gauge':
        return { type: shape.type, cells: new Cells(labelNames, (labels) => labels), metric: new Gauge(options) };
      case 'histogram':
        return {
          type: shape.type,
          metric: new Distribution({ ...options, buckets: [...(shape.buckets ?? slowSeconds)] }),
        };
    }
  }
}

const none: Labels = {};
