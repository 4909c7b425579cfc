PROGRAMS += pickup
SRC_pickup := $(wildcard pickup/*.c)
LIBS_pickup := 
