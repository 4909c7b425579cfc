COMMON_SRC += $(wildcard common/base/*.c)
