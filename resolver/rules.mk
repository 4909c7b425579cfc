PROGRAMS += resolver
SRC_resolver := $(wildcard resolver/*.c)
LIBS_resolver := -lunbound
