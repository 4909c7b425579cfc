COMMON_SRC += $(wildcard common/login/*.c)
