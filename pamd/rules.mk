PROGRAMS += pamd
SRC_pamd := $(wildcard pamd/*.c)
LIBS_pamd := -lpam
