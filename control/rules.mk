PROGRAMS += control
SRC_control := $(wildcard control/*.c)
LIBS_control := 
