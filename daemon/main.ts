#!/usr/bin/env node
// The `synod` program: every command is a file in cli/, errors come out at one place, and the exit code says how it went.

import { run } from './cli/program.ts';

process.exitCode = await run(process.argv.slice(2));
