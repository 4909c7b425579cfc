PROGRAMS += keyd
SRC_keyd := $(wildcard keyd/*.c)
LIBS_keyd := -lssl -lcrypto
