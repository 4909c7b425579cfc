PROGRAMS += smtp
SRC_smtp := $(wildcard smtp/*.c)
LIBS_smtp := -lssl -lcrypto
