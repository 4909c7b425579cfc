PROGRAMS += logd
SRC_logd := $(wildcard logd/*.c)
LIBS_logd := 
