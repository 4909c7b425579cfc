PROGRAMS += maps
SRC_maps := $(wildcard maps/*.c)
LIBS_maps := -ldb -lcdb -lpcre2-8 -lldap -llber
