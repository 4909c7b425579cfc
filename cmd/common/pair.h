/* pair: the self-signed certificate of a server that was given none. */
#ifndef CMD_PAIR_H
#define CMD_PAIR_H

#include "cmd/common/cli.h"

/* Makes DIR/state/NAME.crt and NAME.key (P-256, ten years) where a server needs them and has none. */
MUST_CHECK int pair_make_missing(struct cli *c);

#endif
