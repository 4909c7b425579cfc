PROGRAMS += master
SRC_master := $(wildcard master/*.c)
LIBS_master := 
