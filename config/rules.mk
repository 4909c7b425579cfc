PROGRAMS += config
SRC_config := $(wildcard config/*.c)
LIBS_config := 
