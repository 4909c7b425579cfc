# Completion for Posthorn's commands: options come from --help, names from the configuration.
_posthorn_options() { "$1" --help 2>/dev/null | sed -n 's/^  \(-[^ ]*\).*/\1/p'; }
_posthorn_dir() {
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [ "${COMP_WORDS[i]}" = -c ]; then echo "${COMP_WORDS[i + 1]}"; return; fi
    done
    echo /etc/posthorn
}
_posthorn() {
    local command=${COMP_WORDS[0]##*/} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words='' dir
    dir=$(_posthorn_dir)
    case $before in
    -c | -C) mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    -s) mapfile -t COMPREPLY < <(compgen -W "$(hornconf -c "$dir" server list 2>/dev/null)" -- "$word"); return ;;
    -D) mapfile -t COMPREPLY < <(compgen -W "$(hornconf -c "$dir" domain list 2>/dev/null | cut -d' ' -f1)" -- "$word"); return ;;
    esac
    case $command:$before in
    posthorn:start | posthorn:stop | posthorn:pause | posthorn:resume | hornconf:remove | hornconf:rename | hornconf:clone)
        words=$(hornconf -c "$dir" server list 2>/dev/null) ;;
    posthorn:log) words=operators ;;
    posthorn:*) words='start stop pause resume reload upgrade status explain check log' ;;
    hornconf:-e | hornconf:-X | hornconf:-p) words=$(hornconf -c "$dir" -d 2>/dev/null | cut -d' ' -f1) ;;
    hornconf:server) words='add remove rename clone list' ;;
    hornconf:domain) words='add remove rename list default' ;;
    hornconf:*) words='init check server domain export import copy' ;;
    hornqueue:*) words='list show cat why hold release retry remove flush badmail' ;;
    hornmap:*) words='build query dump aliases' ;;
    horncert:*) words='show check self-signed request install renew' ;;
    hornpasswd:*) words='add remove list' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words $(_posthorn_options "$command")" -- "$word")
}
complete -F _posthorn posthorn hornconf hornqueue hornmap horncert hornpasswd horn-import-postfix horn-import-iis
