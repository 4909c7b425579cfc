PROGRAMS += deliver
SRC_deliver := $(wildcard deliver/*.c)
LIBS_deliver := 
