COMMON_SRC += $(wildcard common/route/*.c)
