// A process that lives one life after the other, as its parent asks. It ends with its parent.

import type { LifeOptions } from '../../sim/life.ts';
import { live } from '../../sim/life.ts';

process.on('message', (options: LifeOptions) => {
  process.send?.(live(options));
});
process.on('disconnect', () => process.exit(0));
