// A replica of a ceiling run: `replica.js [--no-sign] [--no-sync] start CONFIG` is `synod start CONFIG` over stand-ins. The runs that
// measure the product do not come through here: they start the daemon itself.

import { install } from './stand-ins.ts';

const isSwitch = (argument: string) => argument === '--no-sign' || argument === '--no-sync';
const switches = process.argv.filter(isSwitch);
process.argv = process.argv.filter((argument) => !isSwitch(argument));
install({ sign: switches.includes('--no-sign'), sync: switches.includes('--no-sync') });
// Only now: what it imports must find the stand-ins.
await import('../daemon/main.ts');
