#!/bin/sh
# cover.sh BUILD: how many lines of its parser each corpus covers; at least 90 % of each.
set -eu
cd "$(dirname "$0")/../.."
build=$(realpath "$1")/cover
mkdir -p "$build"
COVER=1 tests/fuzz/build.sh "$build"
bad=0
while read -r target files; do
    LLVM_PROFILE_FILE="$build/$target.raw" "$build/fuzz/$target" -runs=0 "tests/fuzz/corpus/$target" >/dev/null 2>&1
    llvm-profdata-14 merge -sparse "$build/$target.raw" -o "$build/$target.prof"
    # FILE:FUNCTION,FUNCTION... names the functions of a file that are the parser; FILE alone is all of it
    llvm-cov-14 export -format=lcov "$build/fuzz/$target" -instr-profile="$build/$target.prof" >"$build/$target.lcov"
    python3 tests/fuzz/cover.py "$target" "$build/$target.lcov" $files || bad=1
done <<'END'
command common/smtp/command.c
address common/smtp/address.c
reply common/smtp/reply.c:peer_reply_line,enhanced_find,put_clean,is_digit,peer_reply_init,peer_reply_clear,peer_reply_free
data common/smtp/data.c
header common/message/header.c common/message/received.c:crlf_put
ipc common/ipc/messages.c:msg_admit common/ipc/messages.def common/base/buffer.c:take,take_u32,take_u64,take_lspan
record common/queuefile/record.c:wait_parse,record_parse common/queuefile/envelope.c:envelope_parse,take* common/queuefile/fates.c:fate_next,result_take,parse*
config common/params/config.c:config_parse_snapshot,read_lines,read_config_file,take*,begin_domain,refuse,add_server,*_is_valid common/params/resolve.c:find_text,name_length,expand,set_*,check_*,config_resolve common/params/params.c:parse*,param_set,check* common/params/values.c:copy_text,parse_*,is_bare_v6,split_port,without_brackets,set_address,listen_next,mask_bits,client_list_parse,lmtp_is_valid,delivery_parse,looks_like_address,nexthop_*,spec_length,map_spec_next
dns common/dns/dns.c:dns_parse_answer,skip*,read*,take*,put*,parse*
journal common/queuefile/record.c:load_batch,batch_head_is_good,segment_reader_next,record_parse common/queuefile/envelope.c:envelope_parse,take*
pickup pickup/draft.c
convert common/message/convert.c
rewrite common/message/rewrite.c:put*,take*,address_at,from,kind_of,rewrite*
alias common/map/alias.c common/map/text.c
proxy common/smtp/proxy.c
sts common/sts/policy.c common/sts/tlsrpt.c:tlsrpt_parse_record,tlsrpt_next,take_scheme,is_plain,is_host
ntlm common/gss/challenge.c
postfix cmd/import/postfix_record.c
lease common/lease/lease.c:lease_parse,take_text
END
[ "$bad" = 0 ]
