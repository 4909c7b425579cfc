PROGRAMS += child expand
SRC_child := $(wildcard child/*.c)
LIBS_child :=
# the same without .forward, and with the libraries of maps
SRC_expand := child/expand/main.c $(filter-out child/main.c child/forward.c,$(wildcard child/*.c))
LIBS_expand := -ldb -lcdb -lpcre2-8 -lldap -llber
