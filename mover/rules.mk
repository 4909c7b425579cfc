PROGRAMS += mover
SRC_mover := $(wildcard mover/*.c)
LIBS_mover := 
