COMMON_SRC += $(wildcard common/message/*.c)
