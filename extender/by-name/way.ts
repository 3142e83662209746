// Calls by names, answered from bytes. Declines what scan.ts or answer.ts do not take.
import { askIn } from '../verbs.ts';
import { withheld, type Answered, type TableView, type Way } from '../way.ts';
import { NameAnswers } from './answer.ts';
import { NameScanner } from './scan.ts';

/** A way of its own for each server: it answers one call after the other in the same memory. */
export function byNameWay(): Way {
  const scanner = new NameScanner();
  const answers = new NameAnswers();
  return {
    filter(body: Buffer, view: TableView): Answered | undefined {
      const call = scanner.scan(body);
      if (call === undefined) return undefined;
      const ask = askIn(view, call.pod);
      const none = withheld(ask);
      if (none !== undefined) return none;
      const answer = answers.filter(call, ask, view.nodes);
      if (answer === undefined) return undefined;
      const { bytes, passed, refused, wouldRefuse } = answer;
      return { ok: true, body: bytes, tally: { ask, nodes: call.count, passed, refused, wouldRefuse } };
    },
    prioritize(body: Buffer, view: TableView, now: number): Answered | undefined {
      const call = scanner.scan(body);
      const list = call && answers.prioritize(call, askIn(view, call.pod), view.nodes, now);
      return list === undefined ? undefined : { ok: true, body: list };
    },
  };
}
