COMMON_SRC += $(wildcard common/map/*.c)
