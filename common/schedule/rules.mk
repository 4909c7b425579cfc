COMMON_SRC += $(wildcard common/schedule/*.c)
