COMMON_SRC += $(filter-out common/map/odbc.c,$(wildcard common/map/*.c))
# a module of its own: only who asks databases needs unixODBC (package posthorn-odbc)
MODULES += odbc
SRC_MODULE_odbc := common/map/odbc.c common/map/settings.c $(wildcard common/base/*.c)
LIBS_MODULE_odbc := -lodbc
