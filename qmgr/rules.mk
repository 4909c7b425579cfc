PROGRAMS += qmgr
SRC_qmgr := $(wildcard qmgr/*.c)
LIBS_qmgr := -lcrypto -ldb-5.3
