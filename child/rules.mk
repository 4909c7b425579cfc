PROGRAMS += child
SRC_child := $(wildcard child/*.c)
LIBS_child := 
