// What a POST to /v1/transactions may carry, from untrusted bytes to a list of transactions within the chain's limits.

import { isUtf8 } from 'node:buffer';
import { fromBase64 } from '../../crypto/base64.ts';
import { type Bytes, fromHex } from '../../crypto/bytes.ts';
import type { Parameters } from '../../protocol/genesis.ts';
import { type Problem, problem } from './problem.ts';

/** What surrounds the transactions in a bundle, and each of them: upper bounds of the encoding (docs/wire.md, "Bundles"). */
const bundleOverheadBytes = 128;
const transactionOverheadBytes = 5;

export interface Submission {
  readonly transactions: readonly Bytes[];
  /** What they take in a bundle, at most. */
  readonly bundleBytes: number;
}

export function parseSubmission(
  body: Bytes,
  contentType: string | undefined,
  parameters: Parameters,
): Submission | Problem {
  const [type = '', ...options] = (contentType ?? '').toLowerCase().split(';');
  switch (type.trim()) {
    case 'application/octet-stream':
      return checked([body], parameters, '');
    case 'application/json':
      if (options.some((option) => !/^\s*charset=("?)utf-8\1\s*$/.test(option)))
        return problem('content-type-unsupported', 'JSON must be UTF-8', { field: 'content-type' });
      return fromJson(body, parameters);
    default:
      // Neither type is one that a web page may send to another site unasked, so a visited page cannot submit here.
      return problem(
        'content-type-unsupported',
        'send application/json, or application/octet-stream for one transaction',
        {
          field: 'content-type',
        },
      );
  }
}

function fromJson(body: Bytes, parameters: Parameters): Submission | Problem {
  if (!isUtf8(body)) return problem('body-not-json', 'the body is not UTF-8');
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.length).toString('utf8'));
  } catch {
    return problem('body-not-json', 'the body is not JSON');
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    return problem('body-invalid', 'the body is not a JSON object');
  const fields = new Map<string, unknown>(Object.entries(json));
  for (const name of fields.keys())
    if (name !== 'transactions' && name !== 'encoding')
      return problem('body-invalid', 'only transactions and encoding are known here', { field: name.slice(0, 64) });
  const encoding = fields.get('encoding');
  if (encoding !== 'hex' && encoding !== 'base64')
    return problem('body-invalid', 'must be "hex" or "base64"', { field: 'encoding' });
  const list = fields.get('transactions');
  if (!Array.isArray(list)) return problem('body-invalid', 'must be a list of strings', { field: 'transactions' });
  if (list.length > parameters.bundleTransactionsMax)
    return problem('transactions-too-many', `at most ${parameters.bundleTransactionsMax} at once`, {
      field: 'transactions',
    });
  const decode = encoding === 'hex' ? fromHex : fromBase64;
  const transactions: Bytes[] = [];
  for (const [index, item] of list.entries()) {
    const bytes = typeof item === 'string' ? decode(item) : undefined;
    if (bytes === undefined) return problem('body-invalid', `is not ${encoding}`, { field: `transactions.${index}` });
    transactions.push(bytes);
  }
  return checked(transactions, parameters, 'transactions');
}

function checked(transactions: readonly Bytes[], parameters: Parameters, field: string): Submission | Problem {
  if (transactions.length === 0) return problem('body-invalid', 'at least one transaction', { field });
  let bundleBytes = bundleOverheadBytes;
  for (const [index, { length }] of transactions.entries()) {
    const at = field === '' ? {} : { field: `${field}.${index}` };
    if (length === 0)
      return problem(field === '' ? 'body-empty' : 'transaction-empty', 'a transaction has at least one byte', at);
    if (length > parameters.transactionBytesMax)
      return problem('transaction-too-large', `a transaction has at most ${parameters.transactionBytesMax} bytes`, at);
    bundleBytes += length + transactionOverheadBytes;
  }
  if (bundleBytes > parameters.bundleBytesMax)
    return problem(
      'bundle-too-large',
      `together at most ${parameters.bundleBytesMax} bytes`,
      field === '' ? {} : { field },
    );
  return { transactions, bundleBytes };
}
