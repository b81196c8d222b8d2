# Completion for bash. The program itself is asked what fits, so this is never out of date.
_drover() {
  local word=${COMP_WORDS[COMP_CWORD]} i words=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --state) ((i++)) ;;
      -*) ;;
      *) words+=("${COMP_WORDS[i]}") ;;
    esac
  done
  local help
  help=$(drover "${words[@]}" --help 2> /dev/null) || help=$(drover "${words[@]:0:1}" --help 2> /dev/null)
  case $word in
    -*) mapfile -t COMPREPLY < <(compgen -W "$(grep -oE -- '--[a-z][a-z-]*' <<< "$help" | sort -u)" -- "$word") ;;
    *)
      local commands
      commands=$(awk '/^Commands:/ { on = 1; next } /^[A-Z]/ { on = 0 } on && /^  [a-z]/ { print $1 }' <<< "$help")
      mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
      [ -n "$commands" ] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
      ;;
  esac
}
complete -F _drover drover
