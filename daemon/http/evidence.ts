// The GET routes about evidence: what is kept, and each piece as the file that `synod verify` takes.

import type { EvidenceSource } from '../evidence.ts';
import { offenceInWords } from '../offences.ts';
import { type Exchange, json, type Reply } from './exchange.ts';
import { type Problem, problem } from './problem.ts';

/** For a door in front of a replica that keeps none. */
export const noEvidence: EvidenceSource = { pieces: [], newViews: [], read: async () => null };

export function evidenceList({ pieces, newViews }: EvidenceSource): Reply {
  return json(200, {
    evidence: pieces.map(({ id, culprit, name, conflict, bytes, keptAt }) => ({
      id,
      culprit: { replica: culprit, name },
      ...conflict,
      words: offenceInWords(conflict),
      bytes,
      keptAt,
    })),
    newViews: newViews.map(({ id, view, bytes }) => ({ id, view, bytes })),
  });
}

export async function evidenceFile(source: EvidenceSource, { path }: Exchange): Promise<Reply | Problem> {
  const body = await source.read(path.get('id') ?? '');
  if (body === null) return problem('evidence-not-found', 'no evidence of this name is kept', { field: 'id' });
  return { status: 200, contentType: 'application/octet-stream', body };
}
