PROGRAMS += sts
SRC_sts := $(wildcard sts/*.c)
LIBS_sts := -lcurl -ljansson -lz -lssl -lcrypto
