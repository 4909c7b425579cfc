PROGRAMS += drop
SRC_drop := $(wildcard drop/*.c)
LIBS_drop := 
