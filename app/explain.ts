// `explain`: joins the command with the webhook's own rules.
import type { ExplainArgs } from '../explain/args.ts';
import { explain } from '../explain/command.ts';
import { decide } from '../webhook/inject.ts';

export const explainPod = (
  args: ExplainArgs,
  print: (text: string) => void,
  complain: (text: string) => void,
): Promise<number> => explain(args, { print, complain, decide });
