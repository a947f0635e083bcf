// fast-check for every test of the project: the same cases each time, unless a seed is given, so that a suite that passed
// passes again, and one that failed fails again.

import fc from 'fast-check';

/** `PROPERTY_SEED=N npm test` looks at other cases. */
const seed = Number(process.env.PROPERTY_SEED ?? 1);
fc.configureGlobal({ seed });

export { fc };
