COMMON_SRC += $(wildcard common/sts/*.c)
