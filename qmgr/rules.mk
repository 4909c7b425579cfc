PROGRAMS += qmgr
SRC_qmgr := $(wildcard qmgr/*.c)
LIBS_qmgr := -ldb-5.3
