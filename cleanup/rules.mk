PROGRAMS += cleanup
SRC_cleanup := $(wildcard cleanup/*.c)
LIBS_cleanup := -lcrypto
