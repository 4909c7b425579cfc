COMMON_SRC += $(wildcard common/log/*.c)
