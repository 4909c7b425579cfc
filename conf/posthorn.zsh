#compdef posthorn hornconf hornqueue hornmap horncert hornpasswd horn-import-postfix horn-import-iis
# Completion for Posthorn's commands: options come from --help, names from the configuration.
local dir=/etc/posthorn i
for ((i = 1; i < CURRENT; i++)); do [[ ${words[i]} == -c ]] && dir=${words[i+1]}; done
local -a found
case ${words[CURRENT-1]} in
-c) _directories; return ;;
-s) found=(${(f)"$(hornconf -c $dir server list 2>/dev/null)"}); compadd -a found; return ;;
-D) found=(${${(f)"$(hornconf -c $dir domain list 2>/dev/null)"}%% *}); compadd -a found; return ;;
esac
case ${words[1]:t}:${words[CURRENT-1]} in
posthorn:(start|stop|pause|resume)|hornconf:(remove|rename|clone)) found=(${(f)"$(hornconf -c $dir server list 2>/dev/null)"}) ;;
posthorn:log) found=(operators) ;;
posthorn:*) found=(start stop pause resume reload upgrade status explain check log) ;;
hornconf:-[eXp]) found=(${${(f)"$(hornconf -c $dir -d 2>/dev/null)"}%% *}) ;;
hornconf:server) found=(add remove rename clone list) ;;
hornconf:domain) found=(add remove rename list default) ;;
hornconf:*) found=(init check server domain export import copy) ;;
hornqueue:*) found=(list show cat why hold release retry remove flush badmail) ;;
hornmap:*) found=(build query dump aliases) ;;
horncert:*) found=(show check self-signed request install renew) ;;
hornpasswd:*) found=(add remove list) ;;
esac
found+=(${(f)"$(${words[1]} --help 2>/dev/null | sed -n 's/^  \(-[^ ]*\).*/\1/p')"})
compadd -a found
