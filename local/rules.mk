PROGRAMS += local
SRC_local := $(wildcard local/*.c)
LIBS_local := 
