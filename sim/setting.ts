// What a simulated chain starts from: its genesis document, and the keys of its members.

import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import type { Genesis, GenesisDocument } from '../protocol/genesis.ts';
import { parseGenesis } from '../protocol/genesis.ts';
import type { Protocol } from '../protocol/modes.ts';
import { keyPair, standInKey } from './signatures.ts';

export interface Setting {
  readonly genesis: Genesis;
  /** By place in the member list. */
  readonly keys: readonly SimulationKey[];
  /** The same, where there are operators. */
  readonly operators: readonly SimulationKey[];
  readonly document: Uint8Array;
}

/** @param n 4 to 128; 3 to 128 where members are trusted */
export function settingOf(
  n: number,
  parameters: GenesisDocument['parameters'] = {},
  {
    realSignatures = true,
    protocol = 'pbft',
    operators: withOperators = false,
  }: { readonly realSignatures?: boolean; readonly protocol?: Protocol; readonly operators?: boolean } = {},
): Setting {
  const keyOf = realSignatures ? keyPair : standInKey;
  const keys = Array.from({ length: n }, (_, i) => keyOf(`replica-${i}`));
  const operators = Array.from({ length: withOperators ? n : 0 }, (_, i) => keyOf(`operator-${i}`));
  const text = JSON.stringify({
    synod: 1,
    name: 'simulation',
    protocol,
    createdAt: 1_700_000_000_000,
    members: keys.map((key, i) => ({
      name: `node-${i}`,
      publicKey: toHex(key.publicKey),
      ...(operators[i] === undefined ? {} : { operatorKey: toHex(operators[i].publicKey) }),
    })),
    parameters,
  } satisfies GenesisDocument);
  const document = Buffer.from(text);
  const genesis = parseGenesis(native, document, text);
  if ('refused' in genesis) throw new Error(`${genesis.field}: ${genesis.problem}`);
  return { genesis, keys, operators, document };
}
