// Every route of the HTTP door. openapi.json describes exactly these; a test compares the two.

import type { Bytes } from '../../crypto/bytes.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import { encodeEpochsFile } from '../epochs-file.ts';
import type { EvidenceSource } from '../evidence.ts';
import openapi from '../openapi.json' with { type: 'json' };
import type { ReplicaPort } from '../ports.ts';
import { evidenceFile, evidenceList } from './evidence.ts';
import { json, type Route } from './exchange.ts';
import type { LoopHealth } from './loop-health.ts';
import { problem } from './problem.ts';
import type { Reads } from './reads.ts';
import { type NodeInfo, notReady, statusForm } from './standing.ts';
import type { Transactions } from './transactions.ts';
import type { Why } from './why.ts';

/** The text of a scrape (daemon/metrics.ts). */
export interface MetricsSource {
  readonly contentType: string;
  scrape(): Promise<string>;
}

export interface RouteParts {
  readonly replica: ReplicaPort;
  readonly reads: Reads;
  readonly why: Why;
  readonly transactions: Transactions;
  readonly health: LoopHealth;
  readonly metrics: MetricsSource;
  readonly node: NodeInfo;
  readonly evidence: EvidenceSource;
  /** The document's bytes, as the chain id hashes them. */
  readonly genesisDocument: Bytes;
  readonly epochs: EpochChain;
  draining(): boolean;
}

export function routesOf(parts: RouteParts): readonly Route[] {
  const { replica, reads, why, transactions, health, metrics, node, evidence, genesisDocument, epochs, draining } =
    parts;
  const get = (path: string, query: readonly string[], answer: Route['answer']): Route => ({
    method: 'GET',
    path,
    query,
    answer,
  });
  return [
    {
      method: 'POST',
      path: '/v1/transactions',
      query: ['wait', 'timeout', 'receipts'],
      answer: (exchange) => transactions.post(exchange),
    },
    get('/v1/bundles/{digest}', ['first', 'count', 'receipts'], (exchange) => reads.bundle(exchange)),
    get('/v1/blocks', ['from', 'limit'], (exchange) => reads.headers(exchange)),
    get('/v1/blocks/{height}', ['encoding'], (exchange) => reads.block(exchange)),
    get('/v1/read-point', [], () => reads.readPoint()),
    get('/v1/status', [], () => json(200, statusForm(replica, node, draining()))),
    get('/v1/evidence', [], () => evidenceList(evidence)),
    get('/v1/evidence/{id}', [], (exchange) => evidenceFile(evidence, exchange)),
    get('/v1/why', [], () => json(200, why.why())),
    get('/v1/explain/{place}', [], (exchange) => why.explain(exchange)),
    get('/v1/genesis', [], () => ({ status: 200, contentType: 'application/json', body: genesisDocument })),
    get('/v1/epochs', [], () => ({
      status: 200,
      contentType: 'application/octet-stream',
      body: encodeEpochsFile(replica.genesis.chainId, epochs.links),
    })),
    get('/v1/openapi.json', [], () => json(200, openapi)),
    get('/healthz', [], () => {
      const { responsive, medianMs, maxMs } = health.read();
      if (!responsive) return problem('loop-slow', `the event loop is late by ${medianMs} ms`);
      return json(200, { alive: true, eventLoopDelayMs: { median: medianMs, max: maxMs } });
    }),
    get('/readyz', [], () => {
      const explanation = replica.explain();
      const reason = notReady(explanation, replica.genesis, draining());
      if (reason !== null) return problem(reason.code, reason.message, { retryAfterSeconds: 1 });
      return json(200, { ready: true, height: explanation.height, view: explanation.view });
    }),
    get('/metrics', [], async () => ({ status: 200, contentType: metrics.contentType, body: await metrics.scrape() })),
  ];
}
