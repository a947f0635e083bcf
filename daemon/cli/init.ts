// `synod init`: the files of a new network.

import { relative } from 'node:path';
import { Command, Option } from 'commander';
import { toHex } from '../../crypto/bytes.ts';
import { bearsLies, membersMin, type Protocol, quorumsOf } from '../../protocol/modes.ts';
import { usageError } from './errors.ts';
import { createNetwork, localReplicas, remoteReplicas } from './network-files.ts';
import {
  collected,
  type HostAndPort,
  hostList,
  protocolOption,
  replicasHelp,
  replicasOf,
  wholeNumber,
} from './options.ts';
import { writeLine } from './output.ts';
import { findPassphrase } from './passphrase.ts';
import { freePortRange } from './ports.ts';

interface Options {
  readonly protocol: Protocol;
  readonly replicas?: number;
  readonly name: string;
  readonly host: string;
  readonly basePort?: number;
  readonly hosts?: readonly HostAndPort[];
  readonly unsealed?: true;
  readonly passphraseFile?: string;
  readonly param?: readonly string[];
}

export function initCommand(): Command {
  return new Command('init')
    .description('write the files of a new network: genesis document, configs, keys')
    .argument('<dir>', 'a new or empty directory')
    .addOption(protocolOption())
    .option('--replicas <n>', replicasHelp('replicas on this machine'), wholeNumber(3, 128))
    .option('--name <name>', 'name of the network', 'local')
    .option('--host <host>', 'where replicas on this machine listen', '127.0.0.1')
    .option('--base-port <port>', 'first of 2n ports (default: free ones)', wholeNumber(1, 65_000))
    .addOption(
      new Option('--hosts <list>', 'a network of several hosts: host:port or name=host:port, separated by commas')
        .argParser(hostList)
        .conflicts(['replicas', 'host', 'basePort']),
    )
    .option('--passphrase-file <file>', 'seal the keys under the passphrase in this file (or: SYNOD_PASSPHRASE)')
    .addOption(new Option('--unsealed', 'keep the keys without a passphrase').conflicts('passphraseFile'))
    .option('--param <name=value>', 'a protocol parameter, such as viewTimeoutMs=1000; may be repeated', collected)
    .addHelpText(
      'after',
      `
Examples:
  $ synod init net --unsealed
  $ synod init net --unsealed --protocol multi-paxos --replicas 3
  $ synod init net --hosts north=10.0.0.1:7000,south=10.0.0.2:7000,east=10.0.0.3:7000,west=10.0.0.4:7000 \\
      --name harbour --passphrase-file passphrase.txt`,
    )
    .action(init);
}

async function init(directory: string, options: Options): Promise<void> {
  const { hosts, host, protocol } = options;
  const count = replicasOf(options);
  if (hosts !== undefined && hosts.length < membersMin(protocol))
    throw usageError(`--hosts names ${hosts.length} replicas, ${protocol} needs at least ${membersMin(protocol)}`);
  const passphrase = await passphraseOf(options);
  const replicas =
    hosts !== undefined
      ? remoteReplicas(hosts)
      : localReplicas(count, host, options.basePort ?? (await freePortRange(host, 2 * count)));
  const { genesis, configs, clientKey, operators } = await createNetwork({
    directory,
    name: options.name,
    protocol,
    replicas,
    parameters: parametersOf(options.param ?? []),
    passphrase,
    // On other hosts the file lies elsewhere: their operators write it into the config.
    passphraseFile: hosts === undefined && passphrase !== null ? (options.passphraseFile ?? null) : null,
    logFormat: 'json',
  });
  const { n, f, quorum } = quorumsOf(genesis);
  const bears = bearsLies(protocol) ? `bears ${f} faulty` : `bears ${f} silent; its members are trusted not to lie`;
  await writeLine(
    `chain ${toHex(genesis.chainId)} "${genesis.name}": ${protocol}, ${n} replicas, quorum ${quorum}, ${bears}`,
  );
  for (const [index, config] of configs.entries()) {
    const replica = replicas[index];
    if (replica === undefined) continue;
    await writeLine(`  ${relative('.', config)}  ${replica.url}  http://${replica.http.host}:${replica.http.port}`);
  }
  await writeLine(`  ${relative('.', clientKey)}  the key of a first client`);
  await writeLine(
    `  ${relative('.', operators)}  the operators' keys: whoever has a quorum of them changes the network`,
  );
  await writeLine(`all keys are ${passphrase === null ? 'kept without a passphrase' : 'sealed under the passphrase'}`);
  await writeLine(
    hosts === undefined
      ? `next: synod dev --dir ${directory}, or one \`synod start CONFIG\` per replica`
      : "next: bring each replica its own directory (nobody needs another one's key) and each operator its key, to be kept offline; then `synod start config.json` there",
  );
}

async function passphraseOf({ unsealed, passphraseFile }: Options): Promise<string | null> {
  if (unsealed === true) return null;
  const passphrase = await findPassphrase({ file: passphraseFile, purpose: 'the new keys', isNew: true });
  if (passphrase !== undefined) return passphrase;
  throw usageError(
    'the new keys need a passphrase',
    'Give --passphrase-file FILE, set SYNOD_PASSPHRASE, or say --unsealed (for tests on one machine).',
  );
}

/** Names and ranges are judged by the genesis schema, which every replica applies. */
function parametersOf(params: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    params.map((param) => {
      const [, name, value] = /^([A-Za-z]+)=(\d+)$/.exec(param) ?? [];
      if (name === undefined) throw usageError(`--param ${param}: name=number is wanted, such as viewTimeoutMs=1000`);
      return [name, Number(value)];
    }),
  );
}
