// Completion scripts of `kubectl gpu-gate` for bash, zsh and fish, made from the table of commands.
// Pure. kubectl looks for the program `kubectl_complete-gpu_gate`; the scripts also complete the
// plugin by its own name.
import { COMMANDS, GLOBAL_FLAGS, SHELLS, type Shell } from './args.ts';

const names = COMMANDS.map(({ name }) => name).join(' ');
const flagsOf = (command: string): string =>
  [
    ...new Set(
      [...GLOBAL_FLAGS, ...(COMMANDS.find(({ name }) => name === command)?.flags ?? [])].map(({ name }) => name),
    ),
  ]
    .map((name) => `--${name}`)
    .join(' ');
const LISTS = {
  nodes: 'kubectl get nodes -o name 2>/dev/null | cut -d/ -f2',
  pods: 'kubectl get pods -o name 2>/dev/null | cut -d/ -f2',
  shells: `echo ${SHELLS.join(' ')}`,
} as const;

const bash = (): string => `# kubectl gpu-gate completion bash > /etc/bash_completion.d/kubectl-gpu_gate
_kubectl_gpu_gate() {
  local word=\${COMP_WORDS[COMP_CWORD]} command=\${COMP_WORDS[1]} words=
  if [ "$COMP_CWORD" -eq 1 ]; then
    words='${names}'
  else
    case "$command" in
${COMMANDS.map(
  ({ name, completes }) => `      ${name})
        case "$word" in
          -*) words='${flagsOf(name)}' ;;
          *) words=$(${completes === undefined ? 'true' : LISTS[completes]}) ;;
        esac ;;`,
).join('\n')}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _kubectl_gpu_gate kubectl-gpu_gate
`;

const zsh = (): string => `#compdef kubectl-gpu_gate
# kubectl gpu-gate completion zsh > "\${fpath[1]}/_kubectl-gpu_gate"
_kubectl_gpu_gate() {
  if (( CURRENT == 2 )); then
    local -a commands=(
${COMMANDS.map(({ name, help }) => `      '${name}:${help.replaceAll("'", '’').replaceAll(':', '\\:')}'`).join('\n')}
    )
    _describe command commands
    return
  fi
  case "$words[2]" in
${COMMANDS.map(
  ({ name, completes }) =>
    `    ${name}) compadd -- ${flagsOf(name)}${completes === undefined ? '' : ` $(${LISTS[completes]})`} ;;`,
).join('\n')}
  esac
}
_kubectl_gpu_gate "$@"
`;

const fish = (): string => `# kubectl gpu-gate completion fish > ~/.config/fish/completions/kubectl-gpu_gate.fish
complete -c kubectl-gpu_gate -f
${COMMANDS.map(({ name, help, flags, completes }) =>
  [
    `complete -c kubectl-gpu_gate -n __fish_use_subcommand -a ${name} -d '${help.replaceAll("'", '’')}'`,
    ...flags.map(
      (flag) =>
        `complete -c kubectl-gpu_gate -n '__fish_seen_subcommand_from ${name}' -l ${flag.name}${flag.short === undefined ? '' : ` -s ${flag.short}`}${flag.value === undefined ? '' : ' -x'}`,
    ),
    ...(completes === undefined
      ? []
      : [`complete -c kubectl-gpu_gate -n '__fish_seen_subcommand_from ${name}' -a '(${LISTS[completes]})'`]),
  ].join('\n'),
).join('\n')}
${GLOBAL_FLAGS.map(
  (flag) =>
    `complete -c kubectl-gpu_gate -l ${flag.name}${flag.short === undefined ? '' : ` -s ${flag.short}`}${flag.value === undefined ? '' : ' -x'} -d '${flag.help.replaceAll("'", '’')}'`,
).join('\n')}
`;

/** The completion script for a shell. */
export function completion(shell: Shell): string {
  switch (shell) {
    case 'bash':
      return bash();
    case 'zsh':
      return zsh();
    case 'fish':
      return fish();
  }
}
