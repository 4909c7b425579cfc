PROGRAMS += lease
SRC_lease := $(wildcard lease/*.c)
