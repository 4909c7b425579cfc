PROGRAMS += bounce
SRC_bounce := $(wildcard bounce/*.c)
LIBS_bounce := 
