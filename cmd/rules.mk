COMMANDS += posthorn hornconf hornqueue sendmail
SRC_posthorn := cmd/posthorn.c cmd/common/cli.c cmd/common/pair.c
LIBS_posthorn := -lssl -lcrypto
SRC_hornconf := cmd/hornconf.c cmd/hornconf_print.c cmd/hornconf_edit.c cmd/hornconf_tree.c cmd/common/cli.c
SRC_hornqueue := cmd/hornqueue.c cmd/hornqueue_badmail.c cmd/common/cli.c
LIBS_hornqueue := -ljansson
SRC_sendmail := cmd/sendmail.c cmd/sendmail_smtp.c cmd/common/cli.c
