COMMON_SRC += $(wildcard common/params/*.c)
